/* SPDX-License-Identifier: Apache-2.0 */
/* Launches as a program makes them, and what became of them: by its own clock, and by its tenant's account in the ledger, which is called "gate". In
 * virtual time both are exact. */
#ifndef TESTS_PRELOAD_GATE_HELPER_H
#define TESTS_PRELOAD_GATE_HELPER_H

#include <fcntl.h>
#include <pthread.h>

#include "cuda_helper.h"
#include "softslice/ledger.h"
#include "virtual_helper.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define S  UINT64_C(1000000000)

/* A kernel of the current context: on the simulated GPU it takes as long as its name says, k__250us. */
T_UNUSED static CUfunction gate_kernel(const char *name)
{
    CUmodule module;
    CUfunction function;

    t_cuda(cuModuleLoadData(&module, "any image"));
    t_cuda(cuModuleGetFunction(&function, module, name));
    return function;
}

T_UNUSED static CUresult gate_try(CUfunction function, CUstream stream)
{
    return cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
}

/* Returns how long the call took. */
T_UNUSED static uint64_t gate_launch(CUfunction function, CUstream stream)
{
    uint64_t before = v_clock(CLOCK_MONOTONIC);

    t_cuda(gate_try(function, stream));
    return v_clock(CLOCK_MONOTONIC) - before;
}

T_UNUSED static CUstream gate_stream(void)
{
    CUstream stream;

    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    return stream;
}

/* Until all that this process launched on the current context's device is done: the simulated GPU runs it in its order, whatever the stream, but forgets a
 * stream that is destroyed when it waits for a context. */
T_UNUSED static void gate_drain(CUfunction kernel)
{
    CUstream stream = gate_stream();

    gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuStreamDestroy(stream));
}

/* A device of tenant "gate" as anybody outside sees it. Zeros where there is no such tenant. */
T_UNUSED static struct ledger_device_state gate_account(unsigned gpu)
{
    static struct ledger_view view;
    int directory = open(getenv("SOFTSLICE_STATE_DIR"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    t_check(directory >= 0, "%s: %s", getenv("SOFTSLICE_STATE_DIR"), strerror(errno));
    int error = ledger_read(directory, "gate", &view);
    close(directory);
    t_check(error == 0 && gpu < view.devices, "no ledger of a tenant gate, or no device %u in it: %d", gpu, error);
    return view.device[gpu];
}

/* `part` of `whole` is `percent`, give or take `points`. */
#define gate_percent(part, whole, percent, points)                                                                                 \
    do {                                                                                                                           \
        double percent_ = 100.0 * (double)(part) / (double)(whole);                                                                \
        t_check(percent_ >= (percent) - (points) && percent_ <= (percent) + (points), "%s is %.2f %% of %s, expected %g +- %g",    \
                #part, percent_, #whole, (double)(percent), (double)(points));                                                     \
    } while (0)

/* A thread of its own in `context`; waited for as virtual time wants it. */
struct gate_thread {
    CUcontext context;
    void (*run)(void *argument);
    void *argument;
    pthread_t id;
};

T_UNUSED static void *gate_run(void *argument)
{
    struct gate_thread *thread = argument;

    if (thread->context)
        t_cuda(cuCtxSetCurrent(thread->context));
    thread->run(thread->argument);
    return NULL;
}

T_UNUSED static void gate_start(struct gate_thread *thread, CUcontext context, void (*run)(void *), void *argument)
{
    *thread = (struct gate_thread){.context = context, .run = run, .argument = argument};
    t_equal(pthread_create(&thread->id, NULL, gate_run, thread), 0);
}

T_UNUSED static void gate_join(struct gate_thread *thread)
{
    v_leave();
    t_equal(pthread_join(thread->id, NULL), 0);
    v_enter();
}

#endif
