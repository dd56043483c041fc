/* SPDX-License-Identifier: Apache-2.0 */
/* Snippets of captures: they begin as without the library, and launches into them wait for nothing, in virtual time. */
#ifndef TESTS_SNIPPETS_CAPTURE_SNIPPET_H
#define TESTS_SNIPPETS_CAPTURE_SNIPPET_H

#include "snippet.h"

static void begin_capture(CUstream stream, CUgraph graph);

static void snippet(void)
{
    CUgraph graph, captured;
    CUmodule module;
    CUfunction f;
    CUstream stream;
    size_t nodes;

    t_cuda(cuModuleLoadData(&module, "any image"));
    t_cuda(cuModuleGetFunction(&f, module, "k__20ms"));
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    t_cuda(cuStreamSynchronize(stream));
    begin_capture(stream, graph);
    uint64_t before = t_now_ms();
    for (int i = 0; i < 5; i++)
        t_cuda(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    uint64_t took = t_now_ms() - before;
    t_check(took < 10, "five launches into a capture took %llu ms", (unsigned long long)took);
    t_cuda(cuStreamEndCapture(stream, &captured));
    t_cuda(cuGraphGetNodes(captured, NULL, &nodes));
    t_equal(nodes, 5);
}

#endif
