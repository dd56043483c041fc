/* SPDX-License-Identifier: Apache-2.0 */
/* A forked child that outlives its parent does not keep the parent's charge alive. */
// unemulated: rests on MADV_WIPEONFORK and MADV_DONTFORK, which the emulator does not pass to the kernel
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=orphan SOFTSIM_CONTEXT_BYTES=100M
#include "../cuda_helper.h"

int main(void)
{
    uint64_t limit = t_bytes("SOFTSLICE_VRAM", 0), cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    int orphan[2];
    pid_t sleeper;

    t_check(pipe(orphan) == 0, "pipe");
    pid_t parent = t_fork();
    if (parent == 0) {
        t_context(0);
        t_check(t_alloc(500 * T_MIB), "refused");
        pid_t child = fork();
        if (child == 0) {
            pause();
            _exit(0);
        }
        t_check(write(orphan[1], &child, sizeof(child)) == sizeof(child), "write");
        kill(getpid(), SIGKILL);
    }
    t_check(read(orphan[0], &sleeper, sizeof(sleeper)) == sizeof(sleeper), "read");
    while (waitpid(parent, NULL, 0) < 0)
        ;
    t_context(0);
    CUdeviceptr p = t_alloc(limit - cost);
    kill(sleeper, SIGKILL);
    t_check(p, "the budget of a dead process is kept by its child");
    return 0;
}
