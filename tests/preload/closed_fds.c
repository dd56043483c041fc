/* SPDX-License-Identifier: Apache-2.0 */
/* A program that closes or replaces every descriptor it does not know loses nothing of its place in the ledger, and keeps none of ours open. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=closed SOFTSIM_CONTEXT_BYTES=100M -- close
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=closed SOFTSIM_CONTEXT_BYTES=100M -- replace
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=closed SOFTSIM_CONTEXT_BYTES=100M -- limit
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>

#include "../cuda_helper.h"

static int open_fds(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    t_check(directory, "opendir");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

int main(int argc, char **argv)
{
    uint64_t limit = t_bytes("SOFTSLICE_VRAM", 0), cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0), block = 100 * T_MIB;
    char how = argc > 1 ? argv[1][0] : 'c';

    if (how == 'o') { /* the other process: sees what the first one holds */
        t_context(0);
        t_equal(t_free(), limit - 2 * cost - block);
        t_check(!t_alloc(limit - 2 * cost - block + 1), "what another member holds was granted");
        return 0;
    }
    int before = open_fds();
    t_context(0);
    CUdeviceptr p = t_alloc(block);
    t_check(p, "refused");
    t_equal(open_fds(), before);

    if (how == 'c') {
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
    } else if (how == 'r') {
        int null = open("/dev/null", O_RDWR);
        for (int fd = 3; fd < 256; fd++)
            if (fd != null)
                t_check(dup2(null, fd) == fd, "dup2");
    } else {
        struct rlimit none = {.rlim_cur = 3, .rlim_max = 3};
        t_join(t_again("other"));
        for (uint64_t end = t_now_ms() + 5000; t_now_ms() < end && t_free() != limit - cost - block;)
            usleep(1000); /* that it is gone can be found out only with a descriptor */
        t_check(setrlimit(RLIMIT_NOFILE, &none) == 0, "setrlimit");
    }
    for (int i = 0; i < 100; i++) {
        CUdeviceptr q = t_alloc(T_MIB * (unsigned)(i + 1));
        t_check(q, "refused");
        t_equal(t_free(), t_total() - t_used(0));
        t_cuda(cuMemFree(q));
    }
    t_check(!t_alloc(limit), "granted");
    if (how != 'l')
        t_join(t_again("other"));
    t_cuda(cuMemFree(p));
    t_equal(t_used(0), cost);
    return 0;
}
