/* SPDX-License-Identifier: Apache-2.0 */
/* A tenant whose members have all ended begins anew: NVML tells the next process its own limit before CUDA starts, not the last life's, and tells
 * a live member's to one that is no member. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=again SOFTSIM_CONTEXT_BYTES=100M
#include <sys/wait.h>

#include "../cuda_helper.h"

static uint64_t nvml_total(void)
{
    unsigned long long memory[3];
    void *nvml = t_library("libnvidia-ml.so.1");

    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(t_nvml_device(0), memory), 0);
    return memory[0];
}

/* A member with another limit, which holds a context until the pipe is closed. */
static int member(void)
{
    char byte;

    t_context(0);
    t_check(write(1, "x", 1) == 1 && read(0, &byte, 1) == 0, "pipes");
    return 0;
}

int main(int argc, char **argv)
{
    int up[2], down[2], status;
    char byte;

    if (argc > 1)
        return member();
    t_check(pipe(up) == 0 && pipe(down) == 0, "pipes");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(down[0], 0);
        dup2(up[1], 1);
        for (int i = 0; i < 2; i++)
            close(up[i]), close(down[i]);
        setenv("SOFTSLICE_VRAM", "3GiB", 1);
        execl("/proc/self/exe", argv[0], "member", (char *)NULL);
        _exit(127);
    }
    close(up[1]);
    t_check(read(up[0], &byte, 1) == 1, "the member did not come up");
    t_equal(nvml_total(), 3 * T_GIB);
    close(down[0]);
    close(down[1]);
    t_check(waitpid(pid, &status, 0) == pid && status == 0, "the member failed");
    t_equal(nvml_total(), T_GIB);
    t_context(0);
    t_equal(nvml_total(), T_GIB);
    return 0;
}
