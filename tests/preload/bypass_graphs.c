/* SPDX-License-Identifier: Apache-2.0 */
/* A way past other limits: graphs with memory nodes, replayed, and many of them, each of which leaves what it allocated. Nothing of that is
 * more than the budget, on the GPU's own figures. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_MEM=4G SOFTSIM_CONTEXT_BYTES=100M
#include "graph_helper.h"

#define GRAPHS 40

int main(void)
{
    CUgraphExec exec[GRAPHS];
    CUdeviceptr pointer[GRAPHS];
    CUstream stream;
    int launched = 0;

    t_context(0);
    stream = g_stream();
    for (int i = 0; i < GRAPHS; i++)
        exec[i] = g_leaving(0, 100 * T_MIB, &pointer[i]);
    for (int i = 0; i < GRAPHS; i++) {
        CUresult result = cuGraphLaunch(exec[i], stream);

        t_check(result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY, "a launch returned %d", (int)result);
        t_cuda(cuStreamSynchronize(stream));
        launched += result == CUDA_SUCCESS;
        t_check(t_used(0) <= T_GIB, "%llu bytes are more than the budget", (unsigned long long)t_used(0));
        g_agree(0);
    }
    t_equal(launched, 9); /* and a context */
    t_check(!t_alloc(100 * T_MIB), "granted what graphs hold");
    for (int i = 0; i < 9; i++)
        t_cuda(cuMemFree(pointer[i]));
    for (int i = 0; i < 1000; i++) {
        t_cuda(cuGraphLaunch(exec[0], stream));
        t_cuda(cuMemFreeAsync(pointer[0], stream));
    }
    t_cuda(cuStreamSynchronize(stream));
    t_check(t_alloc(700 * T_MIB), "what graphs keep was not given back");
    t_check(t_used(0) <= T_GIB, "%llu bytes are more than the budget", (unsigned long long)t_used(0));
    g_agree(0);
    return 0;
}
