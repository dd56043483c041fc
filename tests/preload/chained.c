/* SPDX-License-Identifier: Apache-2.0 */
/* A second library that hooks dlsym, before or behind ours: the program gets the wrapper through both, other names as ever. */
// unsanitized: the order of the preloaded libraries is what is tested, and a sanitizer's runtime must be first
// run: LD_PRELOAD="$BUILD/tests/preload/lib/hook_chain.so $LIB" SOFTSLICE_VRAM=1GiB -- before
// run: LD_PRELOAD="$LIB $BUILD/tests/preload/lib/hook_chain.so" SOFTSLICE_VRAM=1GiB
// run: LD_PRELOAD="$BUILD/tests/preload/lib/hook_chain.so $LIB libjemalloc.so.2" SOFTSLICE_VRAM=1GiB -- before
#include "../helper.h"

int main(int argc, char **argv)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    int *calls = t_dlsym(RTLD_DEFAULT, "hook_chain_calls"), status;
    void *function;

    (void)argv;
    t_check(driver && calls, "not loaded");
    int before = *calls;
    t_check(dlsym(driver, "cuMemAlloc_v2") == t_wrapper("cuMemAlloc_v2"), "cuMemAlloc_v2 is in %s",
            t_object(dlsym(driver, "cuMemAlloc_v2")));
    t_check(argc < 2 || *calls > before, "the library in front was not asked");
    t_check(dlsym(driver, "cuDeviceGetName") == t_real("cuDeviceGetName"), "cuDeviceGetName");
    t_check(dlsym(RTLD_DEFAULT, "malloc") == t_dlsym(RTLD_DEFAULT, "malloc"), "malloc");
    t_check(!dlsym(driver, "cuNothing"), "cuNothing");
    int (*get)(const char *, void **, int, uint64_t, int *) =
        (int (*)(const char *, void **, int, uint64_t, int *))dlsym(driver, "cuGetProcAddress_v2");
    t_cuda(get("cuMemAlloc", &function, 12000, 0, &status));
    t_check(function == t_wrapper("cuMemAlloc_v2"), "cuGetProcAddress of cuMemAlloc is in %s", t_object(function));
    t_cuda(((int (*)(unsigned))dlsym(driver, "cuInit"))(0));
    return 0;
}
