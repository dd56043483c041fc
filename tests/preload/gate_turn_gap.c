/* SPDX-License-Identifier: Apache-2.0 */
/* A program that waits for each kernel is let keep its turn from one to the next, though another tenant waits: what it waited for the turn is not taken for
 * a pause of its own. */
// run: SOFTSLICE_WEIGHT=100 LD_PRELOAD="$LIB $SIM/libvirtualtime.so"
// unsanitized: virtual time is preloaded too
// unemulated: it is in virtual time
#include <stdio.h>

#include "gate_helper.h"

#define KERNELS 400

/* Of 1 ms each, in a tenant of its own. */
static void waits_for_each(void)
{
    t_context(0);
    CUfunction kernel = gate_kernel("k__1ms");
    CUstream stream = gate_stream();

    for (unsigned i = 0; i < KERNELS; i++) {
        gate_launch(kernel, stream);
        t_cuda(cuStreamSynchronize(stream));
    }
    unsigned long long turns = (unsigned long long)gate_account(0).turns_taken;
    printf("%llu turns for %u kernels\n", turns, KERNELS);
    t_check(turns > KERNELS / 20, "%llu turns: did it have a neighbour?", turns);
    t_check(turns < KERNELS / 5, "%llu turns: it loses them while it still has work", turns);
}

static void never_waits(void)
{
    t_context(0);
    CUfunction kernel = gate_kernel("k__1ms");
    CUstream stream = gate_stream();

    for (unsigned i = 0; i < 2 * KERNELS; i++)
        gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
}

/* A program of its own, as number `order` of two in virtual time. */
static void become(char **argv, unsigned order, const char *tenant)
{
    setenv("SOFTSIM_VIRTUAL", "2", 1);
    setenv("SOFTSIM_VIRTUAL_ORDER", order ? "2" : "1", 1);
    setenv("SOFTSLICE_TENANT", tenant, 1);
    execv("/proc/self/exe", (char *[]){argv[0], (char *)tenant, NULL});
    t_fail("exec: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    pid_t child[2];

    if (argc > 1) {
        if (strcmp(argv[1], "gate") == 0)
            waits_for_each();
        else
            never_waits();
        return 0;
    }
    for (unsigned i = 0; i < 2; i++) {
        child[i] = t_fork();
        if (child[i] == 0)
            become(argv, i, i ? "neighbour" : "gate");
    }
    for (unsigned i = 0; i < 2; i++)
        t_join(child[i]);
    return 0;
}
