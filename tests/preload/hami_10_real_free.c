/* SPDX-License-Identifier: Apache-2.0 */
/* A fault of other limiters: free memory that is told is what the limit has left, whether the GPU has it or not. Here it is the smaller one. */
// run: SOFTSLICE_VRAM=3GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MEM=4G
// unemulated: rests on robust mutexes: the emulator gives the kernel no list of them, so the simulated GPU sees no process die
#include "../cuda_helper.h"

/* A tenant of its own takes `bytes` and holds them until the pipe closes. */
static pid_t neighbour(size_t bytes, int *hold)
{
    int ready[2], held[2];
    char byte;

    t_check(pipe(ready) == 0 && pipe(held) == 0, "pipe");
    pid_t child = t_fork();
    if (child == 0) {
        close(held[1]);
        t_context(0);
        t_check(t_alloc(bytes), "the neighbour was refused");
        t_check(write(ready[1], "", 1) == 1 && read(held[0], &byte, 1) == 0, "pipe");
        _exit(0);
    }
    t_check(read(ready[0], &byte, 1) == 1, "the neighbour ended");
    close(held[0]);
    *hold = held[1];
    return child;
}

int main(void)
{
    size_t free_bytes = 1, total = 1;
    int hold;
    pid_t child = neighbour(2 * T_GIB, &hold);

    t_context(0);
    t_equal(t_used(0), 2 * T_GIB + 2 * 100 * T_MIB);
    t_cuda(cuMemGetInfo(&free_bytes, &total));
    t_equal(total, 3 * T_GIB);
    t_equal(free_bytes, 4 * T_GIB - t_used(0)); /* not the 2.9 GiB that the budget has left */
    t_check(t_alloc(free_bytes), "what is told to be free was refused");
    t_equal(t_free(), 0);
    /* The GPU's own end, with the budget far from its own: the same error. */
    t_check(!t_alloc(2 * T_MIB), "more than the GPU has was granted");
    close(hold);
    t_join(child);
    for (uint64_t end = t_now_ms() + 10000; t_now_ms() < end && t_free() != 3 * T_GIB - t_used(0);)
        usleep(1000);
    t_equal(t_free(), 3 * T_GIB - t_used(0));
    return 0;
}
