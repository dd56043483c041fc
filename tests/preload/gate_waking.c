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
    return 0;
}
