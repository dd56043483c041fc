/* SPDX-License-Identifier: Apache-2.0 */
/* A member that is killed gives its bytes back to the others: the next allocation finds them, also where the GPU needs a moment to let go. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=kill SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=kill SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MEM=1200M SOFTSIM_RELEASE_DELAY_MS=500
#include "../cuda_helper.h"

int main(void)
{
    uint64_t limit = t_bytes("SOFTSLICE_VRAM", 0), cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);

    t_context(0);
    for (int round = 0; round < 5; round++) {
        int ready[2];
        char byte;

        t_check(pipe(ready) == 0, "pipe");
        pid_t child = fork();
        if (child == 0) {
            char end[16];
            snprintf(end, sizeof(end), "%d", ready[1]);
            execl("/proc/self/exe", "kill", end, (char *)NULL);
            _exit(1);
        }
        close(ready[1]);
        t_check(read(ready[0], &byte, 1) == 1, "the other process did not fill its part");
        close(ready[0]);
        t_check(!t_alloc(2 * T_MIB), "the budget was full and an allocation was granted");
        t_check(kill(child, SIGKILL) == 0, "kill");
        while (waitpid(child, NULL, 0) < 0)
            ;
        /* All at once: what was killed held it in many blocks and a context. */
        CUdeviceptr p = t_alloc(limit - cost);
        t_check(p, "%zu bytes are told to be free after a member was killed, %llu were refused", t_free(),
                (unsigned long long)(limit - cost));
        t_check(t_used(0) <= limit, "%llu bytes are in use on the GPU", (unsigned long long)t_used(0));
        t_cuda(cuMemFree(p));
        t_equal(t_free(), limit - cost);
    }
    return 0;
}

__attribute__((constructor)) static void filler(int argc, char **argv)
{
    if (argc < 2)
        return;
    t_context(0);
    while (t_alloc(2 * T_MIB))
        ;
    t_check(write(atoi(argv[1]), "f", 1) == 1, "write");
    for (;;)
        pause();
}
