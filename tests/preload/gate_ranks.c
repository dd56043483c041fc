/* SPDX-License-Identifier: Apache-2.0 */
/* A tenant with a process for each GPU, as launchers of distributed programs start them: after each piece of work a collective spins on every GPU until its
 * parts on all the others are launched, by other processes. Some ranks have less to do and are further ahead when the gate closes; now and then one does
 * something else. A part that others wait for is let through: no step stalls for long, and the tenant gets about its share, alone and beside another tenant,
 * and where each process sees no other GPU than its own. */
// run: SOFTSLICE_COMPUTE=100% SOFTSLICE_TENANT=gate SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 2 100 91
// run: SOFTSLICE_COMPUTE=100% SOFTSLICE_TENANT=gate SOFTSIM_GPUS=4 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 4 100 87
// run: SOFTSLICE_COMPUTE=25% SOFTSLICE_TENANT=gate SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 2 25 21
// run: SOFTSLICE_COMPUTE=25% SOFTSLICE_TENANT=gate SOFTSIM_GPUS=4 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 4 25 17
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate SOFTSIM_GPUS=4 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 4 50 34 beside
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 2 50 34 own-beside
// run: SOFTSLICE_COMPUTE=25% SOFTSLICE_TENANT=gate SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- 2 25 21 own
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_helper.h"

#define STEPS 500
#define AHEAD 8 /* steps that are launched before one is waited for */

struct asked {
    unsigned ranks;
    double share, least; /* in percent: what was asked for, and what has to come of it in work */
};

static void work(int rank, const struct asked *asked)
{
    CUfunction kernel, meet;
    uint64_t begun, longest = 0, took;
    char meeting[32];

    t_context(getenv("CUDA_VISIBLE_DEVICES") ? 0 : rank);
    snprintf(meeting, sizeof(meeting), "meet__all%u__20us", asked->ranks);
    meet = gate_kernel(meeting);
    kernel = gate_kernel(rank ? "k__1ms" : "k__200us");
    CUstream stream = gate_stream();
    begun = v_clock(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t before = v_clock(CLOCK_MONOTONIC);

        gate_launch(kernel, stream);
        gate_launch(meet, stream);
        if (i % AHEAD == 0)
            t_cuda(cuStreamSynchronize(stream));
        if (i % 7 == 0)
            usleep(500 * ((i / 7 + 3 * (unsigned)rank) % 5));
        took = v_clock(CLOCK_MONOTONIC) - before;
        longest = took > longest ? took : longest;
    }
    t_cuda(cuStreamSynchronize(stream));
    took = v_clock(CLOCK_MONOTONIC) - begun;
    printf("rank %d: %.2f %%, longest %.2f ms, charged %.2f %%\n", rank, 100.0 * (double)(STEPS * 1020 * US) / (double)took,
           (double)longest / 1e6, 100.0 * (double)gate_account((unsigned)rank).busy / (double)took);
    t_check(longest < 150 * MS, "a step took %.1f ms", (double)longest / 1e6);
    gate_percent(STEPS * 1020 * US, took, (asked->share + 2 + asked->least) / 2, (asked->share + 2 - asked->least) / 2);
    t_check((double)gate_account((unsigned)rank).busy < (asked->share + 2) / 100 * (double)took, "more was used than the share");
}

static void neighbour(void)
{
    t_context(0);
    CUfunction kernel = gate_kernel("k__1ms");
    CUstream stream = gate_stream();

    for (unsigned i = 0; i < 600; i++)
        gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
}

/* A program of its own, as number `order` of `all` in virtual time. */
static void become(char **argv, unsigned order, unsigned all, const char *role)
{
    char text[16];

    snprintf(text, sizeof(text), "%u", all);
    setenv("SOFTSIM_VIRTUAL", text, 1);
    snprintf(text, sizeof(text), "%u", order + 1);
    setenv("SOFTSIM_VIRTUAL_ORDER", text, 1);
    setenv("SOFTSIM_GROUP", "ranks", 1);
    snprintf(text, sizeof(text), "%u", order);
    execv("/proc/self/exe", (char *[]){argv[0], argv[1], argv[2], argv[3], (char *)role, text, NULL});
    t_fail("exec: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    struct asked asked;
    pid_t child[8];

    t_check(argc > 3, "how many ranks, what share, and what at least?");
    asked = (struct asked){.ranks = (unsigned)atoi(argv[1]), .share = atof(argv[2]), .least = atof(argv[3])};
    if (argc > 5 && strcmp(argv[4], "rank") == 0) {
        work(atoi(argv[5]), &asked);
        return 0;
    }
    if (argc > 5) {
        neighbour();
        return 0;
    }
    bool own = argc > 4 && strstr(argv[4], "own"), beside = argc > 4 && strstr(argv[4], "beside");
    unsigned all = asked.ranks + beside;
    for (unsigned i = 0; i < all; i++) {
        child[i] = t_fork();
        if (child[i] == 0 && i == asked.ranks)
            setenv("SOFTSLICE_TENANT", "neighbour", 1);
        if (child[i] == 0 && own)
            setenv("CUDA_VISIBLE_DEVICES", i ? "1" : "0", 1);
        if (child[i] == 0)
            become(argv, i, all, i == asked.ranks ? "neighbour" : "rank");
    }
    for (unsigned i = 0; i < all; i++)
        t_join(child[i]);
    return 0;
}
