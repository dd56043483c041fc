/* SPDX-License-Identifier: Apache-2.0 */
/* A container without NVML: what dlerror() has to tell the program stays the program's, and contexts and modules are charged all the same. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=2GiB
#include "../cuda_helper.h"

static void quiet(const char *when)
{
    const char *said = dlerror();

    t_check(!said, "%s dlerror() says %s", when, said);
}

int main(int argc, char **argv)
{
    char path[4096], target[4096];
    CUmodule module;

    if (argc == 1) {
        snprintf(path, sizeof(path), "%s/libcuda.so.1", getenv("TEST_TMP"));
        snprintf(target, sizeof(target), "%s/libcuda.so.1", getenv("TEST_SIM"));
        t_check(symlink(target, path) == 0, "symlink: %s", strerror(errno));
        setenv("LD_LIBRARY_PATH", getenv("TEST_TMP"), 1);
        execl("/proc/self/exe", argv[0], "alone", (char *)NULL);
        t_fail("exec: %s", strerror(errno));
    }
    quiet("before all");
    t_context(0);
    quiet("after a context was made");
    t_check(t_free() < t_total(), "the context is not charged");
    t_check(!dlopen("none such", RTLD_LAZY), "dlopen");
    t_cuda(cuModuleLoadData(&module, "an image"));
    t_check(strstr(dlerror(), "none such"), "the program's own message is gone");
    t_cuda(cuModuleUnload(module));
    quiet("after a module was unloaded");
    return 0;
}
