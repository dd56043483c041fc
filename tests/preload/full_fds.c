/* SPDX-License-Identifier: Apache-2.0 */
/* A program that has used up its descriptors still finds out that another member is dead, and gets what that one held. */
// unemulated: rests on a task with a table of descriptors of its own, which the emulator does not make
// run: SOFTSLICE_VRAM=2560MiB SOFTSLICE_TENANT=full SOFTSIM_CONTEXT_BYTES=100M
#include <sys/resource.h>

#include "../cuda_helper.h"

int main(void)
{
    struct rlimit few = {.rlim_cur = 64, .rlim_max = 64};
    int ready[2];
    char byte;

    t_check(pipe(ready) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        t_context(0);
        t_check(t_alloc(2 * T_GIB), "refused");
        t_check(write(ready[1], "x", 1) == 1, "write");
        pause();
    }
    t_check(read(ready[0], &byte, 1) == 1, "read");
    t_context(0);
    t_check(!t_alloc(T_GIB), "what another member holds was granted");
    t_check(setrlimit(RLIMIT_NOFILE, &few) == 0, "setrlimit");
    while (dup(0) >= 0)
        ;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    t_check(t_alloc(T_GIB), "what a dead member held stays refused");
    return 0;
}
