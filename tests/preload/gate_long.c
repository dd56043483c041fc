/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that take longer than a turn can be kept: the neighbours go on beside them. Each of two tenants gets its share all the same, and what the other's
 * slices took is not charged. */
// run: LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 50 100ms
// run: LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 50 20us
// run: LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 30 1ms
// unsanitized: virtual time is preloaded too
// unemulated: it is in virtual time
#include <stdio.h>

#include "gate_helper.h"

#define KERNELS 40
#define WORK    (KERNELS * 100 * MS)

static void has_long_ones(unsigned percent)
{
    t_context(0);
    CUfunction kernel = gate_kernel("k__100ms");
    CUstream stream = gate_stream();
    uint64_t began = v_clock(CLOCK_MONOTONIC);

    for (unsigned i = 0; i < KERNELS; i++)
        gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    uint64_t took = v_clock(CLOCK_MONOTONIC) - began;
    struct ledger_device_state account = gate_account(0);
    printf("%.2f s of work in %.2f s, %.2f s counted, %llu turns lost\n", (double)WORK / S, (double)took / S,
           (double)account.busy / S, (unsigned long long)account.turns_lost);
    gate_percent(WORK, took, percent, 2.5);
    gate_percent(account.busy, WORK, 100, 3);
    t_check(account.turns_lost > KERNELS / 2, "%llu turns lost: did it have a neighbour?", (unsigned long long)account.turns_lost);
}

/* As long as the other one needs, which has `percent`. */
static void goes_on(const char *name, uint64_t length, unsigned percent)
{
    t_context(0);
    CUfunction kernel = gate_kernel(name);
    CUstream stream = gate_stream();
    uint64_t began = v_clock(CLOCK_MONOTONIC), work = 0;

    for (; v_clock(CLOCK_MONOTONIC) < began + 100 * WORK / percent; work += length)
        gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    uint64_t took = v_clock(CLOCK_MONOTONIC) - began;
    gate_percent(work, took, 100 - percent, 2.5);
}

/* A program of its own, as number `order` of two in virtual time. */
static void become(char **argv, unsigned order, const char *tenant, unsigned percent)
{
    char share[16];

    snprintf(share, sizeof(share), "%u%%", percent);
    setenv("SOFTSIM_VIRTUAL", "2", 1);
    setenv("SOFTSIM_VIRTUAL_ORDER", order ? "2" : "1", 1);
    setenv("SOFTSLICE_TENANT", tenant, 1);
    setenv("SOFTSLICE_COMPUTE", share, 1);
    execv("/proc/self/exe", (char *[]){argv[0], argv[1], argv[2], (char *)tenant, NULL});
    t_fail("exec: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    unsigned percent = (unsigned)atoi(argv[1]);
    pid_t child[2];

    if (argc > 3) {
        if (strcmp(argv[3], "gate") == 0)
            has_long_ones(percent);
        else if (strcmp(argv[2], "100ms") == 0)
            goes_on("k__100ms", 100 * MS, percent);
        else if (strcmp(argv[2], "1ms") == 0)
            goes_on("k__1ms", MS, percent);
        else
            goes_on("k__20us", 20 * US, percent);
        return 0;
    }
    for (unsigned i = 0; i < 2; i++) {
        child[i] = t_fork();
        if (child[i] == 0)
            become(argv, i, i ? "neighbour" : "gate", i ? 100 - percent : percent);
    }
    for (unsigned i = 0; i < 2; i++)
        t_join(child[i]);
    return 0;
}
