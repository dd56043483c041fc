/* SPDX-License-Identifier: Apache-2.0 */
/* Streams that live for a launch or two, as a program makes one for each request: their handles come again while marks in the old one are on their
 * way, on this GPU or on another; they are destroyed with work in them, which is the tenant's all the same; and there are more of them than anybody
 * expects. Each keeps to the share, none makes a launch wait for more than its due. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- again
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- short
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- unknown
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_GPUS=2 -- gpus
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- many
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- crowd
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_helper.h"

/* Nobody owes more than a few marks here. */
static void not_long(uint64_t took)
{
    t_check(took < 200 * MS, "a launch took %.1f ms", (double)took / 1e6);
}

/* `count` streams, one after the other, each with `launches` kernels of `us`. Returns how long all that took. */
static uint64_t one_by_one(CUfunction kernel, unsigned count, unsigned launches)
{
    uint64_t begun = v_clock(CLOCK_MONOTONIC);

    for (unsigned i = 0; i < count; i++) {
        CUstream stream = gate_stream();

        for (unsigned k = 0; k < launches; k++)
            not_long(gate_launch(kernel, stream));
        t_cuda(cuStreamDestroy(stream));
    }
    gate_drain(kernel);
    return v_clock(CLOCK_MONOTONIC) - begun;
}

/* The old stream's mark is reached while the new one, with the same handle, has work of its own. */
static void again(void)
{
    uint64_t took = one_by_one(gate_kernel("k__5ms"), 400, 1);

    gate_percent(400 * 5 * MS, took, 50, 3);
}

/* Too little for a mark in each. */
static void short_ones(void)
{
    CUfunction kernel = gate_kernel("k__20us");
    uint64_t took;

    one_by_one(kernel, 10, 100); /* it is known now */
    took = one_by_one(kernel, 10000, 10);
    gate_percent(100000 * 20 * US, took, 50, 3);
}

/* Each is of a function that was never seen. */
static void unknown(void)
{
    uint64_t begun = v_clock(CLOCK_MONOTONIC), work = 0;
    char name[32];

    for (unsigned i = 0; i < 1000; i++) {
        CUstream stream = gate_stream();

        snprintf(name, sizeof(name), "k%u__%uus", i, 100 + i % 7 * 300);
        work += (100 + i % 7 * 300) * US;
        not_long(gate_launch(gate_kernel(name), stream));
        t_cuda(cuStreamDestroy(stream));
    }
    gate_drain(gate_kernel("last__1us"));
    gate_percent(work, v_clock(CLOCK_MONOTONIC) - begun, 50, 3);
}

/* Whether a process says that it has work: one that knows of a mark that is never reached says so for good. */
static void idle(void)
{
    struct timespec second = {.tv_sec = 1};
    uint64_t before, after;

    clock_nanosleep(CLOCK_MONOTONIC, 0, &second, NULL);
    before = gate_account(0).nr_periods + gate_account(1).nr_periods;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &second, NULL);
    after = gate_account(0).nr_periods + gate_account(1).nr_periods;
    t_check(after <= before, "%llu periods with work in a second without any", (unsigned long long)(after - before));
}

/* Streams of two GPUs have each other's handles in turn, while the other's marks are on their way. */
static void gpus(void)
{
    CUcontext context[2];
    CUfunction kernel[2];
    uint64_t begun;

    t_cuda(cuCtxGetCurrent(&context[0]));
    t_cuda(cuCtxCreate(&context[1], NULL, 0, 1));
    for (int i = 0; i < 2; i++) {
        t_cuda(cuCtxSetCurrent(context[i]));
        kernel[i] = gate_kernel("k__2ms");
    }
    begun = v_clock(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < 1000; i++) {
        t_cuda(cuCtxSetCurrent(context[i % 2]));
        CUstream stream = gate_stream();
        not_long(gate_launch(kernel[i % 2], stream));
        t_cuda(cuStreamDestroy(stream));
    }
    for (int i = 0; i < 2; i++) {
        t_cuda(cuCtxSetCurrent(context[i]));
        gate_drain(kernel[i]);
    }
    /* They open and close in one phase, so a GPU has its share at most. */
    uint64_t took = v_clock(CLOCK_MONOTONIC) - begun;
    for (unsigned i = 0; i < 2; i++)
        gate_percent(gate_account(i).busy, 500 * 2 * MS, 100, 2);
    t_check(took >= 1900 * MS && took < 3000 * MS, "1 s of work on each of two GPUs at 50 %% took %.3f s", (double)took / 1e9);
    idle();
}

/* More streams at once than there are places, each used in turn. */
static void many(void)
{
    static CUstream stream[2000];
    CUfunction kernel = gate_kernel("k__100us");
    uint64_t begun;

    for (unsigned i = 0; i < 2000; i++)
        stream[i] = gate_stream();
    begun = v_clock(CLOCK_MONOTONIC);
    /* Each may have some work before its first mark. */
    for (unsigned i = 0; i < 100000; i++)
        t_check(gate_launch(kernel, stream[i % 2000]) < S, "a launch waited for too long");
    gate_drain(kernel);
    /* With so many, what is in flight is known less well. */
    gate_percent(100000 * 100 * US, v_clock(CLOCK_MONOTONIC) - begun, 50, 12);
    for (unsigned i = 0; i < 2000; i++)
        t_cuda(cuStreamDestroy(stream[i]));
    t_equal(one_by_one(kernel, 100, 10) > 0, true);
}

/* So many streams of long kernels: what is in flight on all of them together is not more than max_stall has repaid, for the rest would be forgiven. And of
 * hundreds in turn, most are done when the next is looked at: what each took is not that part of the time. */
static void crowd(void)
{
    CUfunction kernel[] = {gate_kernel("k__1ms"), gate_kernel("k__20ms")};
    const unsigned streams[] = {900, 31}, launches[] = {2000, 400};
    const uint64_t length[] = {MS, 20 * MS};
    static CUstream stream[900];

    for (unsigned i = 0; i < 900; i++)
        stream[i] = gate_stream();
    for (unsigned k = 0; k < 2; k++) {
        if (k)
            gate_drain(kernel[k]); /* it is known now */
        uint64_t begun = v_clock(CLOCK_MONOTONIC);
        for (unsigned i = 0; i < launches[k]; i++)
            gate_launch(kernel[k], stream[i % streams[k]]);
        gate_drain(kernel[k]);
        gate_percent(launches[k] * length[k], v_clock(CLOCK_MONOTONIC) - begun, 10, 3);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } part[] = {{"again", again}, {"short", short_ones}, {"unknown", unknown}, {"gpus", gpus}, {"many", many}, {"crowd", crowd}};

    t_context(0);
    for (size_t i = 0; argc > 1 && i < sizeof(part) / sizeof(part[0]); i++)
        if (strcmp(argv[1], part[i].name) == 0)
            part[i].run();
    return 0;
}
