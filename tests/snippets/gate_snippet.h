/* SPDX-License-Identifier: Apache-2.0 */
/* Snippets of launches: what the first one takes is charged, so that the second one waits, in virtual time. */
#ifndef TESTS_SNIPPETS_GATE_SNIPPET_H
#define TESTS_SNIPPETS_GATE_SNIPPET_H

#include "snippet.h"

static void launch(CUfunction f);

T_UNUSED static CUstream stream(void)
{
    CUstream made;

    t_cuda(cuStreamCreate(&made, CU_STREAM_NON_BLOCKING));
    return made;
}

/* 20 ms at 10 % are 200 ms, less what an idle tenant may use at once: 8 ms, which are 80. */
static void snippet(void)
{
    CUmodule module;
    CUfunction f;

    t_cuda(cuModuleLoadData(&module, "any image"));
    t_cuda(cuModuleGetFunction(&f, module, "k__20ms"));
    launch(f);
    t_cuda(cuCtxSynchronize());
    uint64_t before = t_now_ms();
    launch(f);
    uint64_t took = t_now_ms() - before;
    t_check(took >= 80 && took <= 250, "a launch in debt took %llu ms", (unsigned long long)took);
}

#endif
