/* SPDX-License-Identifier: Apache-2.0 */
/* What is charged is what the GPU did, or a little less where kernels of several kinds are mixed: for kernels in one stream or in several in turn, short
 * ones and long ones and both, launched as fast as the program can or with pauses in which the GPU has nothing to do, below a share and after it was
 * idle. Launches are few between two waits, so that what lies between the last mark and the end counts. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// run: SOFTSLICE_COMPUTE=100% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- bursts
// run: SOFTSLICE_COMPUTE=100% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- bursts
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

/* Kernels that no other test of this process knows. */
static void find(const struct way *way, unsigned number, CUfunction kernel[3])
{
    char name[64];

    for (unsigned i = 0; i < way->kernels; i++) {
        snprintf(name, sizeof(name), "way%u_%u__%uus", number, i, way->us[i]);
        kernel[i] = gate_kernel(name);
    }
}

static void check(const struct way *way, unsigned number)
{
    CUfunction kernel[3];
    uint64_t launched = 0;

    find(way, number, kernel);
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

/* In bursts of so many launches with pauses between them, which the GPU is idle for in part, and nobody ever waits: of most launches the library does not
 * know when they were made. What they took is charged, and no pause, but for one that is shorter than the work behind it may be. */
static void check_bursts(const struct way *way, unsigned number, unsigned burst)
{
    CUfunction kernel[3];
    uint64_t launched = 0;

    find(way, number, kernel);
    uint64_t before = gate_account(0).busy;
    for (unsigned i = 0; launched < 2 * WORK; i++) {
        unsigned which = i / way->streams % way->kernels;

        gate_launch(kernel[which], stream[i % way->streams]);
        launched += way->us[which] * US;
        if (i % burst == burst - 1)
            usleep(way->pause_us);
    }
    usleep(200000);
    double charged = 100.0 * (double)(gate_account(0).busy - before) / (double)launched;
    t_check(charged > 88 && charged < 125,
            "%u streams, %u kernels of %u us (%u kinds), then %u us: %.2f %% of what the GPU did was charged", way->streams, burst,
            way->us[0], way->kernels, way->pause_us, charged);
}

/* A batch is launched before the one before it is waited for, which was done long ago, and half of the next one after that. */
static void check_double(void)
{
    CUfunction kernel = gate_kernel("double__20us");
    CUevent event[2];
    uint64_t work = 0;

    for (int i = 0; i < 2; i++) {
        t_cuda(cuEventCreate(&event[i], CU_EVENT_DISABLE_TIMING));
        t_cuda(cuEventRecord(event[i], stream[0]));
    }
    uint64_t before = gate_account(0).busy;
    for (int batch = 0; batch < 300; batch++, work += 24 * 20 * US) {
        for (int i = 0; i < 12; i++)
            gate_launch(kernel, stream[0]);
        t_cuda(cuEventSynchronize(event[(batch + 1) % 2]));
        for (int i = 0; i < 12; i++)
            gate_launch(kernel, stream[0]);
        t_cuda(cuEventRecord(event[batch % 2], stream[0]));
        usleep(1500);
    }
    usleep(200000);
    gate_percent(gate_account(0).busy - before, work, 100, 5);
}

int main(int argc, char **argv)
{
    static const unsigned bursts[] = {5, 12, 35}, pauses[] = {1500, 4000, 10000};
    static const struct {
        unsigned us[3], kernels;
    } kinds[] = {{{20}, 1}, {{100}, 1}, {{250}, 1}, {{20, 300, 50}, 3}, {{3000, 20, 20}, 3}};
    unsigned number = 0;

    t_context(0);
    for (unsigned i = 0; i < STREAMS; i++)
        stream[i] = gate_stream();
    bool in_bursts = argc > 1 && strcmp(argv[1], "bursts") == 0;
    if (in_bursts)
        check_double();
    for (unsigned k = 0; in_bursts && k < sizeof(kinds) / sizeof(kinds[0]); k++)
        for (unsigned streams = 1; streams <= STREAMS; streams *= 2)
            for (unsigned b = 0; b < 3; b++)
                for (unsigned p = 0; p < 3; p++) {
                    struct way way = {.kernels = kinds[k].kernels, .streams = streams, .pause_us = pauses[p]};

                    memcpy(way.us, kinds[k].us, sizeof(way.us));
                    check_bursts(&way, number++, bursts[b]);
                }
    for (unsigned k = 0; !in_bursts && k < sizeof(kinds) / sizeof(kinds[0]); k++)
        for (unsigned streams = 1; streams <= STREAMS; streams++)
            for (unsigned pause = 0; pause <= 70; pause += 35) {
                struct way way = {.kernels = kinds[k].kernels, .streams = streams, .pause_us = pause};

                memcpy(way.us, kinds[k].us, sizeof(way.us));
                check(&way, number++);
            }
    return 0;
}
