/* SPDX-License-Identifier: Apache-2.0 */
/* However a program came by its handle - by name, by absolute path, by another file name, RTLD_NOLOAD, a library that depends on the driver - it
 * gets the wrapper; and not where a library has functions of those names that are its own. */
// run: SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_VRAM=1GiB -- path
// run: SOFTSLICE_VRAM=1GiB -- renamed
// run: SOFTSLICE_VRAM=1GiB -- dependent
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "../helper.h"

static char path[4096];

static const char *file(const char *variable, const char *name)
{
    snprintf(path, sizeof(path), "%s/%s", getenv(variable), name);
    return path;
}

static void *load(const char *name, int mode)
{
    void *handle = dlopen(name, mode);
    t_check(handle, "dlopen: %s", dlerror());
    return handle;
}

static void hooked(void *handle, const char *how)
{
    void *found = dlsym(handle, "cuMemAlloc_v2");
    t_check(found && found == t_wrapper("cuMemAlloc_v2"), "%s: cuMemAlloc_v2 lies in %s", how, t_object(found));
    found = dlsym(handle, "cuDeviceGetName");
    t_check(found && !t_is_ours(found), "%s: cuDeviceGetName lies in %s", how, t_object(found));
    dlerror();
    t_check(!dlsym(handle, "cuNothing") && dlerror(), "%s: a name that does not exist", how);
}

static void copy_driver(void)
{
    int from = open(file("TEST_SIM", "libcuda.so.1"), O_RDONLY), to;
    struct stat status;

    t_check(from >= 0 && fstat(from, &status) == 0, "%s: %s", path, strerror(errno));
    to = open(file("TEST_TMP", "libcuda.so.580.65.06"), O_WRONLY | O_CREAT, 0700);
    t_check(to >= 0 && sendfile(to, from, NULL, (size_t)status.st_size) == status.st_size, "%s: %s", path, strerror(errno));
    close(from);
    close(to);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "name";
    void *handle;

    t_check(!dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD), "the driver is loaded before anybody asked for it");
    t_check(!dlsym(t_library("libm.so.6"), "cuInit"), "libm has a cuInit");
    if (*how == 'p') {
        handle = load(file("TEST_SIM", "libcuda.so.1"), RTLD_NOW);
    } else if (*how == 'r') {
        copy_driver();
        handle = load(path, RTLD_NOW); /* NVIDIA's own file name; the name in it is libcuda.so.1 */
    } else if (*how == 'd') {
        handle = load(file("TEST_BUILD", "tests/preload/lib/dependent.so"), RTLD_NOW);
        t_check(((int (*)(void))dlsym(handle, "dependent_version"))() >= 12000, "the version");
        void *found = ((void *(*)(const char *))dlsym(handle, "dependent_default"))("cuMemAlloc_v2");
        t_check(t_is_ours(found), "RTLD_DEFAULT from a library that brought the driver: in %s", t_object(found));
    } else {
        handle = load("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    }
    hooked(handle, how);
    hooked(load("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD), "RTLD_NOLOAD");
    hooked(load("libcuda.so.1", RTLD_NOW), "by name, later");
    hooked(handle, how);

    void *lookalike = load(file("TEST_BUILD", "tests/preload/lib/lookalike.so"), RTLD_NOW);
    void *found = dlsym(lookalike, "cuMemAlloc_v2");
    t_check(strcmp(t_object(found), "lookalike.so") == 0, "another library's cuMemAlloc_v2 was taken for the driver's: in %s",
            t_object(found));
    t_equal(((int (*)(unsigned))dlsym(lookalike, "cuInit"))(1), 4712);

    /* A handle that was closed and opened again. */
    dlclose(handle);
    hooked(load("libcuda.so.1", RTLD_LAZY), "opened again");
    return 0;
}
