/* SPDX-License-Identifier: Apache-2.0 */
/* A program that waits for each launch is charged what its work took, however that changes: most such launches have no mark, an estimate would be wrong where
 * a kernel takes another time with other data. A graph stands for such a kernel: what it launches is exchanged, and it stays the same graph. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- grows
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- alternates
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- mostly
// run: SOFTSLICE_COMPUTE=20% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- shrinks
// run: SOFTSLICE_COMPUTE=20% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- sleeps
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_helper.h"

struct changing {
    CUgraph graph;
    CUgraphNode node;
    CUgraphExec exec;
    CUstream stream;
};

static void set(struct changing *c, CUfunction kernel)
{
    CUDA_KERNEL_NODE_PARAMS params = {
        .func = kernel, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};

    t_cuda(cuGraphExecKernelNodeSetParams(c->exec, c->node, &params));
}

static struct changing make(CUfunction kernel)
{
    struct changing c = {.stream = gate_stream()};
    CUDA_KERNEL_NODE_PARAMS params = {
        .func = kernel, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};

    t_cuda(cuGraphCreate(&c.graph, 0));
    t_cuda(cuGraphAddKernelNode(&c.node, c.graph, NULL, 0, &params));
    t_cuda(cuGraphInstantiate(&c.exec, c.graph, 0));
    return c;
}

static void launch(struct changing *c)
{
    t_cuda(cuGraphLaunch(c->exec, c->stream));
    t_cuda(cuStreamSynchronize(c->stream));
}

/* Launch for `seconds`, each time what `next` says; what the GPU did of the time is what is held to. */
static void run(struct changing *c, double seconds, uint64_t (*next)(struct changing *c, unsigned i), double percent)
{
    uint64_t begun = v_clock(CLOCK_MONOTONIC), work = 0, now;
    unsigned i = 0;

    do {
        work += next(c, i++);
        launch(c);
        now = v_clock(CLOCK_MONOTONIC);
    } while (now - begun < (uint64_t)(seconds * 1e9));
    gate_percent(work, now - begun, percent, 2);
    uint64_t busy = gate_account(0).busy;
    printf("%u launches, %.2f ms of work, %.2f ms charged\n", i, (double)work / 1e6, (double)busy / 1e6);
}

static CUfunction brief, longer;

static uint64_t same(struct changing *c, unsigned i)
{
    (void)c, (void)i;
    return 20 * US;
}

static uint64_t longer_only(struct changing *c, unsigned i)
{
    (void)c, (void)i;
    return 130 * US;
}

static uint64_t in_turns(struct changing *c, unsigned i)
{
    set(c, i % 2 ? longer : brief);
    return (i % 2 ? 130 : 20) * US;
}

/* As many short ones as lie between two measurements, and as many long ones. */
static uint64_t runs_of(struct changing *c, unsigned i)
{
    bool is_long = i / 50 % 2;

    if (i % 50 == 0)
        set(c, is_long ? longer : brief);
    return (is_long ? 130 : 20) * US;
}

static uint64_t napping(struct changing *c, unsigned i)
{
    (void)c;
    if (i % 8 == 0)
        usleep(50);
    return 20 * US;
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    struct changing c;

    t_context(0);
    brief = gate_kernel("k__20us");
    longer = gate_kernel("k__130us");
    c = make(brief);
    if (strcmp(how, "grows") == 0) {
        run(&c, 2, same, 50);
        set(&c, longer);
        run(&c, 5, longer_only, 50);
    } else if (strcmp(how, "alternates") == 0) {
        run(&c, 8, in_turns, 50);
    } else if (strcmp(how, "mostly") == 0) {
        run(&c, 8, runs_of, 50);
    } else if (strcmp(how, "shrinks") == 0) {
        set(&c, longer);
        run(&c, 2, longer_only, 20);
        set(&c, brief);
        run(&c, 5, same, 20);
    } else {
        run(&c, 5, napping, 20);
    }
    return 0;
}
