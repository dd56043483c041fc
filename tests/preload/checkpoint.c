/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint takes a member's memory out of the budget, whoever makes it, and a restore asks whether it fits again before the driver is
 * asked. A member that dies meanwhile leaves nothing, and a process that is no member changes nothing. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=checkpoint SOFTSIM_CONTEXT_BYTES=64M
#include "../cuda_helper.h"

#if CUDA_VERSION < 12080
int main(void)
{
    t_skip("this cuda.h knows no checkpoints");
}
#else

#    define CONTEXT (64 * T_MIB)
#    define HELD    (600 * T_MIB)

/* What NVML tells to be used: a process that is locked can ask that of itself. */
static uint64_t told_used(void)
{
    unsigned long long memory[3];
    void *nvml = t_library("libnvidia-ml.so.1");

    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(t_nvml_device(0), memory), 0);
    return memory[2];
}

static void checkpoint(pid_t pid)
{
    t_cuda(cuCheckpointProcessLock(pid, NULL));
    t_cuda(cuCheckpointProcessCheckpoint(pid, NULL));
}

static void oneself(void)
{
    CUdeviceptr p = t_alloc(HELD);

    t_check(p, "refused");
    checkpoint(getpid());
    t_equal(t_used(0), 0);
    t_equal(told_used(), 0);
    t_cuda(cuCheckpointProcessRestore(getpid(), NULL));
    t_equal(told_used(), CONTEXT + HELD);
    t_cuda(cuCheckpointProcessUnlock(getpid(), NULL));
    t_equal(t_free(), t_total() - CONTEXT - HELD);
    t_cuda(cuMemFree(p));
    t_equal(t_free(), t_total() - CONTEXT);
}

/* ---- another member */

struct member {
    pid_t pid;
    int in, out;
};

static struct member start(const char *tenant)
{
    struct member member;
    int in[2], out[2];
    char byte;

    t_check(pipe(in) == 0 && pipe(out) == 0, "pipe");
    member.pid = t_fork();
    if (member.pid == 0) {
        dup2(in[0], 10);
        dup2(out[1], 11);
        close(in[1]);
        close(out[0]);
        setenv("SOFTSLICE_TENANT", tenant, 1);
        execl("/proc/self/exe", "checkpoint", "member", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    member.in = in[1];
    member.out = out[0];
    t_check(read(member.out, &byte, 1) == 1, "a member did not come up");
    return member;
}

/* Holds something, and replaces it whenever it is told to. */
static int member_main(void)
{
    CUdeviceptr p;
    char byte;

    t_context(0);
    t_check((p = t_alloc(HELD)), "refused");
    t_check(write(11, "x", 1) == 1, "write");
    while (read(10, &byte, 1) == 1) {
        t_cuda(cuMemFree(p));
        t_check((p = t_alloc(HELD)), "refused what was just freed");
        t_check(write(11, "x", 1) == 1, "write");
    }
    return 0;
}

static void begin(struct member *member)
{
    t_check(write(member->in, "x", 1) == 1, "write");
}

static void await(struct member *member)
{
    char byte;

    t_check(read(member->out, &byte, 1) == 1, "the member failed");
}

static void end(struct member *member)
{
    kill(member->pid, SIGKILL);
    while (waitpid(member->pid, NULL, 0) < 0)
        ;
    close(member->in);
    close(member->out);
}

static void another(void)
{
    struct member member = start("checkpoint");
    uint64_t without = t_total() - CONTEXT, with = without - CONTEXT - HELD;
    CUcheckpointGpuPair pair = {.newUuid = {"elsewhere"}};
    CUcheckpointRestoreArgs remapped = {.gpuPairs = &pair, .gpuPairsCount = 1};

    t_equal(t_free(), with);
    /* What the driver refuses changes nothing. */
    t_result(cuCheckpointProcessCheckpoint(member.pid, NULL), CUDA_ERROR_ILLEGAL_STATE);
    t_result(cuCheckpointProcessRestore(member.pid, NULL), CUDA_ERROR_ILLEGAL_STATE);
    t_result(cuCheckpointProcessUnlock(member.pid, NULL), CUDA_ERROR_ILLEGAL_STATE);
    t_equal(t_free(), with);

    for (int round = 0; round < 5; round++) {
        checkpoint(member.pid);
        t_equal(t_free(), without);
        begin(&member); /* and waits in the driver */
        t_result(cuCheckpointProcessCheckpoint(member.pid, NULL), CUDA_ERROR_ILLEGAL_STATE);
        t_equal(t_free(), without);
        t_result(cuCheckpointProcessRestore(member.pid, &remapped), CUDA_ERROR_NOT_SUPPORTED);
        t_equal(t_free(), without);
        /* The card has room for both, the budget has not. */
        CUdeviceptr p = t_alloc(400 * T_MIB);
        t_check(p, "what a checkpoint freed was refused");
        t_result(cuCheckpointProcessRestore(member.pid, NULL), CUDA_ERROR_OUT_OF_MEMORY);
        t_equal(t_free(), without - 400 * T_MIB);
        t_equal(t_used(0), CONTEXT + 400 * T_MIB);
        t_cuda(cuMemFree(p));
        t_cuda(cuCheckpointProcessRestore(member.pid, NULL));
        t_equal(t_free(), with);
        t_check(!t_alloc(400 * T_MIB), "granted beside what was restored");
        t_cuda(cuCheckpointProcessUnlock(member.pid, NULL));
        await(&member);
        t_equal(t_free(), with);
    }
    checkpoint(member.pid);
    t_equal(t_free(), without);
    end(&member);
    t_equal(t_free(), without);
    t_result(cuCheckpointProcessRestore(member.pid, NULL), CUDA_ERROR_INVALID_VALUE);
    t_equal(t_free(), without);
    CUdeviceptr all = t_alloc(without);
    t_check(all, "a checkpointed member that died is still charged");
    t_cuda(cuMemFree(all));
}

static void stranger(void)
{
    struct member other = start("somebody-else");
    uint64_t before = t_free();

    checkpoint(other.pid);
    t_equal(t_free(), before);
    t_cuda(cuCheckpointProcessRestore(other.pid, NULL));
    t_cuda(cuCheckpointProcessUnlock(other.pid, NULL));
    t_equal(t_free(), before);
    begin(&other);
    await(&other);
    end(&other);
    t_result(cuCheckpointProcessLock(1, NULL), CUDA_ERROR_INVALID_VALUE);
    t_result(cuCheckpointProcessRestore(0, NULL), CUDA_ERROR_INVALID_VALUE);
    t_result(cuCheckpointProcessRestore(-1, NULL), CUDA_ERROR_INVALID_VALUE);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1)
        return member_main();
    t_context(0);
    oneself();
    another();
    stranger();
    return 0;
}
#endif
