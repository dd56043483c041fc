/* SPDX-License-Identifier: Apache-2.0 */
/* What is charged is what the GPU did, or a little less where kernels of several kinds are mixed: for kernels in one stream or in several in turn, short
 * ones and long ones and both, launched as fast as the program can or with pauses in which the GPU has nothing to do, below a share and after it was
 * idle. Launches are few between two waits, so that what lies between the last mark and the end counts. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// run: SOFTSLICE_COMPUTE=100% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: it runs in virtual time, which is preloaded
// unemulated: it is in virtual time, and takes minutes in an emulator
#include "gate_helper.h"

#define STREAMS 8
#define WORK    (80 * MS)

struct way {
    unsigned us[3]; /* of the kernels, in turn */
    unsigned kernels, streams, pause_us;
};

static CUstream stream[STREAMS];

static void check(const struct way *way, unsigned number)
{
    CUfunction kernel[3];
    char name[64];
    uint64_t launched = 0;

    for (unsigned i = 0; i < way->kernels; i++) {
        snprintf(name, sizeof(name), "way%u_%u__%uus", number, i, way->us[i]);
        kernel[i] = gate_kernel(name);
    }
    uint64_t before = gate_account(0).busy;
    for (unsigned i = 0; launched < WORK; i++) {
        unsigned which = i / way->streams % way->kernels;

        gate_launch(kernel[which], stream[i % way->streams]);
        launched += way->us[which] * US;
        if (way->pause_us && i % way->streams == way->streams - 1)
            usleep(way->pause_us);
    }
    t_cuda(cuCtxSynchronize());
    usleep(50000);
    double charged = 100.0 * (double)(gate_account(0).busy - before) / (double)launched;
    t_check(charged > 94.5 && charged < 103,
            "%u streams, kernels of %u us (%u kinds), %u us between: %.2f %% of what the GPU did was charged", way->streams,
            way->us[0], way->kernels, way->pause_us, charged);
}

int main(void)
{
    static const struct {
        unsigned us[3], kernels;
    } kinds[] = {{{20}, 1}, {{100}, 1}, {{250}, 1}, {{20, 300, 50}, 3}, {{3000, 20, 20}, 3}};
    unsigned number = 0;

    t_context(0);
    for (unsigned i = 0; i < STREAMS; i++)
        stream[i] = gate_stream();
    for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        for (unsigned streams = 1; streams <= STREAMS; streams++)
            for (unsigned pause = 0; pause <= 70; pause += 35) {
                struct way way = {.kernels = kinds[k].kernels, .streams = streams, .pause_us = pause};

                memcpy(way.us, kinds[k].us, sizeof(way.us));
                check(&way, number++);
            }
    return 0;
}
