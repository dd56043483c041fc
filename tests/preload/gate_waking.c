/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that waits for its kernels wakes up a while after each is done. That is no time of the GPU's: it is not charged, whether the kernels are
 * shorter than the waking or longer, always the same or not, in one stream or in several. Nor is less charged than the GPU did. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_WAKE_NS=40000
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_WAKE_NS=5000
// run: SOFTSLICE_COMPUTE=100% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_WAKE_NS=0
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_helper.h"

static CUstream stream[2];

/* One or two launches of each of two kernels in turn, and a wait. */
static void check(const char *first, const char *second, uint64_t first_ns, uint64_t second_ns, unsigned streams, bool context)
{
    CUfunction kernel[2] = {gate_kernel(first), gate_kernel(second)};
    uint64_t before = 0, work = 0;

    for (unsigned k = 0; k < 1200; k++) {
        if (k == 200) { /* it is known by then how long waking up takes */
            before = gate_account(0).busy;
            work = 0;
        }
        for (unsigned i = 0; i < streams; i++, work += k % 2 ? second_ns : first_ns)
            gate_launch(kernel[k % 2], stream[i]);
        if (context)
            t_cuda(cuCtxSynchronize());
        for (unsigned i = 0; i < streams && !context; i++)
            t_cuda(cuStreamSynchronize(stream[i]));
    }
    double charged = 100.0 * (double)(gate_account(0).busy - before) / (double)work;
    printf("%s and %s in %u streams%s: charged %.2f %%\n", first, second, streams, context ? ", for the context" : "", charged);
    gate_percent(gate_account(0).busy - before, work, 102, 7);
}

static void rest(void *argument)
{
    (void)argument;
    usleep(180);
}

/* Now and then a wait takes longer since something else comes behind the kernel: what is taken for waking up is not taken off all the others. */
static void check_others_doing(void)
{
    CUfunction kernel = gate_kernel("others__190us");

    for (unsigned offset = 0; offset < 17; offset++) {
        uint64_t before = gate_account(0).busy, work = 0;

        for (unsigned k = 0; k < 680; k++, work += 190 * US) {
            gate_launch(kernel, stream[0]);
            if (k % 17 == offset)
                t_cuda(cuLaunchHostFunc(stream[0], rest, NULL));
            t_cuda(cuStreamSynchronize(stream[0]));
        }
        t_check(gate_account(0).busy - before > work / 100 * 97, "charged %.2f %%",
                100.0 * (double)(gate_account(0).busy - before) / (double)work);
    }
}

/* What is launched after a pause, in one of two streams, and waited for: the pause is not charged, though nobody looked when it began. */
static void check_pause(void)
{
    CUfunction kernel = gate_kernel("pause__20us");
    uint64_t before = 0, work = 0;

    for (unsigned k = 0; k < 120; k++, work += 11 * 20 * US) {
        if (k == 20) {
            before = gate_account(0).busy;
            work = 0;
        }
        for (unsigned i = 0; i < 10; i++)
            gate_launch(kernel, stream[i % 2]);
        usleep(4500);
        gate_launch(kernel, stream[0]);
        t_cuda(cuCtxSynchronize());
    }
    printf("after a pause: charged %.2f %%\n", 100.0 * (double)(gate_account(0).busy - before) / (double)work);
    gate_percent(gate_account(0).busy - before, work, 105, 15);
}

int main(void)
{
    t_context(0);
    stream[0] = gate_stream();
    stream[1] = gate_stream();
    for (int context = 0; context < 2; context++)
        for (unsigned streams = 1; streams <= 2; streams++) {
            check("k__20us", "k__20us", 20 * US, 20 * US, streams, context);
            check("k__20us", "k__100us", 20 * US, 100 * US, streams, context);
            check("k__500us", "k__500us", 500 * US, 500 * US, streams, context);
            check("k__1ms", "k__3ms", MS, 3 * MS, streams, context);
        }
    check_others_doing();
    check_pause();
    return 0;
}
