/* SPDX-License-Identifier: Apache-2.0 */
/* Snippets of NVML: likewise, but NVML has no cuGetProcAddress. The tenant has one member, this process, and one context. */
#ifndef TESTS_SNIPPETS_NVML_SNIPPET_H
#define TESTS_SNIPPETS_NVML_SNIPPET_H

#include "../../shim/nvml_abi.h"
#define SNIPPET_LIBRARY "libnvidia-ml.so.1"
#define SNIPPET_ROADS   BY_VERSION
#include "snippet.h"

/* The simulated GPU's NVML is handed devices as programs are. */
T_UNUSED static nvmlDevice_t nvml_gpu(unsigned gpu)
{
    return t_nvml_device(gpu);
}

/* A list of processes by its function: this one alone, with what it is charged; and the protocol of too little room. */
#define EXPECT_ONE(symbol, type)                                                                                                   \
    do {                                                                                                                           \
        unsigned count_ = 0;                                                                                                       \
        type list_[8];                                                                                                             \
        t_result(CALL(symbol)(nvml_gpu(0), &count_, NULL), NVML_ERROR_INSUFFICIENT_SIZE);                                          \
        t_equal(count_, 1);                                                                                                        \
        count_ = 8;                                                                                                                \
        t_result(CALL(symbol)(nvml_gpu(0), &count_, list_), NVML_SUCCESS);                                                         \
        t_equal(count_, 1);                                                                                                        \
        t_equal(list_[0].pid, getpid());                                                                                           \
        t_equal(list_[0].usedGpuMemory, charged_on(0));                                                                            \
    } while (0)

#define EXPECT_NONE(symbol, type)                                                                                                  \
    do {                                                                                                                           \
        unsigned count_ = 8;                                                                                                       \
        type list_[8];                                                                                                             \
        t_result(CALL(symbol)(nvml_gpu(0), &count_, list_), NVML_SUCCESS);                                                         \
        t_equal(count_, 0);                                                                                                        \
    } while (0)

#endif
