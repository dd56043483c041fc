/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints on the simulated GPU: of another process and of oneself; the HBM that they free and take again. */
#include "helper.h"
#include <cuda.h>

static CUdeviceptr use_gpu(void)
{
    CUcontext ctx;
    CUdeviceptr p;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    t_cuda(cuMemAlloc(&p, 200 * T_MIB));
    return p;
}

static CUprocessState state(pid_t pid)
{
    CUprocessState s;

    t_cuda(cuCheckpointProcessGetState(pid, &s));
    return s;
}

/* Allocates and frees, and counts what it did in shared memory. */
static void work(int out)
{
    CUdeviceptr p;
    char byte = 1;

    use_gpu();
    for (;;) {
        t_cuda(cuMemAlloc(&p, 2 * T_MIB));
        t_cuda(cuMemFree(p));
        if (write(out, &byte, 1) != 1)
            _exit(1);
    }
}

static void check_other(void)
{
    CUdeviceptr p, q;
    int pipes[2], tid;
    CUcontext ctx;
    char bytes[65536];
    pid_t child;

    t_check(pipe(pipes) == 0, "pipe: %s", strerror(errno));
    child = t_fork();
    if (child == 0) {
        close(pipes[0]);
        work(pipes[1]);
    }
    close(pipes[1]);
    t_check(read(pipes[0], bytes, 1) == 1, "the child said nothing");
    t_cuda(cuInit(0));
    t_result(cuCheckpointProcessLock(1, NULL), CUDA_ERROR_INVALID_VALUE);
    t_equal(state(child), CU_PROCESS_STATE_RUNNING);
    t_result(cuCheckpointProcessCheckpoint(child, NULL), CUDA_ERROR_ILLEGAL_STATE);
    t_result(cuCheckpointProcessUnlock(child, NULL), CUDA_ERROR_ILLEGAL_STATE);
    t_cuda(cuCheckpointProcessGetRestoreThreadId(child, &tid));
    t_check(tid > 0 && tid != child, "the restore thread is %d", tid);

    for (int round = 0; round < 20; round++) {
        t_cuda(cuCheckpointProcessLock(child, NULL));
        t_result(cuCheckpointProcessLock(child, NULL), CUDA_ERROR_ILLEGAL_STATE);
        t_equal(state(child), CU_PROCESS_STATE_LOCKED);
        t_check(t_used(0) == 300 * T_MIB || t_used(0) == 302 * T_MIB, "%llu bytes are used", (unsigned long long)t_used(0));
        t_cuda(cuCheckpointProcessCheckpoint(child, NULL));
        t_equal(state(child), CU_PROCESS_STATE_CHECKPOINTED);
        t_equal(t_used(0), 0);
        t_result(cuCheckpointProcessUnlock(child, NULL), CUDA_ERROR_ILLEGAL_STATE);
        t_cuda(cuCheckpointProcessRestore(child, NULL));
        t_check(t_used(0) == 300 * T_MIB || t_used(0) == 302 * T_MIB, "%llu bytes are used", (unsigned long long)t_used(0));
        t_cuda(cuCheckpointProcessUnlock(child, NULL));
        t_check(read(pipes[0], bytes, sizeof(bytes)) > 0, "the child died"); /* it goes on */
    }

    /* Somebody else takes the room meanwhile. */
    t_cuda(cuCheckpointProcessLock(child, NULL));
    t_cuda(cuCheckpointProcessCheckpoint(child, NULL));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    t_cuda(cuMemAlloc(&p, 800 * T_MIB));
    t_result(cuMemAlloc(&q, 200 * T_MIB), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuCheckpointProcessRestore(child, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(state(child), CU_PROCESS_STATE_CHECKPOINTED);
    t_cuda(cuMemFree(p));
    t_cuda(cuCheckpointProcessRestore(child, NULL));
    t_cuda(cuCheckpointProcessCheckpoint(child, NULL));
    t_equal(t_used(0), 100 * T_MIB);
    kill(child, SIGKILL); /* as a checkpoint it leaves nothing */
    waitpid(child, NULL, 0);
    t_equal(t_used(0), 100 * T_MIB);
    t_result(cuCheckpointProcessRestore(child, NULL), CUDA_ERROR_INVALID_VALUE);
}

static void check_self(void)
{
    CUdeviceptr p = use_gpu();
    unsigned value = 7;
    CUmodule m;
    CUfunction f;
    CUcheckpointLockArgs soon = {.timeoutMs = 1};

    t_cuda(cuMemsetD32(p, 7, 1));
    t_cuda(cuModuleLoadData(&m, ""));
    t_cuda(cuModuleGetFunction(&f, m, "long__500ms"));
    t_cuda(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    t_result(cuCheckpointProcessLock(getpid(), &soon), CUDA_ERROR_NOT_READY);
    t_equal(state(getpid()), CU_PROCESS_STATE_RUNNING);
    t_cuda(cuCtxSynchronize());
    t_cuda(cuCheckpointProcessLock(getpid(), NULL));
    t_cuda(cuCheckpointProcessCheckpoint(getpid(), NULL));
    t_equal(t_used(0), 0);
    t_cuda(cuCheckpointProcessRestore(getpid(), NULL));
    t_cuda(cuCheckpointProcessUnlock(getpid(), NULL));
    t_cuda(cuMemcpyDtoH(&value, p, 4));
    t_equal(value, 7);
    t_equal(t_used(0), 300 * T_MIB);
}

static void in_child(void (*check)(void))
{
    pid_t child = t_fork();

    if (child == 0) {
        check();
        fflush(stdout);
        _exit(0);
    }
    t_join(child);
}

int main(void)
{
    setenv("SOFTSIM_MEM", "1G", 1);
    setenv("SOFTSIM_CONTEXT_BYTES", "100M", 1);
    in_child(check_other);
    in_child(check_self);
    return 0;
}
