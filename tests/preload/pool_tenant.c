/* SPDX-License-Identifier: Apache-2.0 */
/* Pools of several processes of one tenant: what one has given back at a synchronisation, or leaves when it ends, another can have at once; a
 * forked child holds nothing of its parent's pools; and memory that a dead member is still giving back is waited for. */
// unemulated: rests on MADV_WIPEONFORK, which the emulator does not pass to the kernel
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=pools SOFTSIM_CONTEXT_BYTES=100M -- shares
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=pools SOFTSIM_CONTEXT_BYTES=100M -- forks
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=pools SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MEM=1G SOFTSIM_RELEASE_DELAY_MS=300 -- dies
#include "../pool_helper.h"

static const size_t block = 800 << 20;
static int to_child[2], to_parent[2];

static void say(const int pipe[2])
{
    t_check(write(pipe[1], "x", 1) == 1, "write");
}

static void hear(const int pipe[2])
{
    char byte;

    t_check(read(pipe[0], &byte, 1) == 1, "the other process is gone");
}

/* Every synchronisation counts. */
static void synchronise(int how, CUstream stream)
{
    CUevent event;

    switch (how) {
    case 0:
        t_cuda(cuStreamSynchronize(stream));
        break;
    case 1:
        t_cuda(cuCtxSynchronize());
        break;
    default:
        t_cuda(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
        t_cuda(cuEventRecord(event, stream));
        t_cuda(cuEventSynchronize(event));
        t_cuda(cuEventDestroy(event));
    }
}

static void other(void)
{
    CUstream stream;

    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (int how = 0; how < 3; how++) {
        hear(to_child);
        CUdeviceptr pointer = t_draw(NULL, block, stream);
        t_check(pointer, "what another process had given back was refused");
        t_cuda(cuMemFreeAsync(pointer, stream));
        synchronise(how, stream);
        say(to_parent);
    }
    hear(to_child);
    t_check(t_draw(NULL, block, stream), "what another process had given back was refused");
    say(to_parent);
    pause();
}

static void shares(void)
{
    CUstream stream;
    pid_t child;

    t_check(!pipe(to_child) && !pipe(to_parent), "pipe");
    child = t_fork();
    if (child == 0)
        other();
    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (int how = 0; how < 3; how++) {
        CUdeviceptr pointer = t_draw(NULL, block, stream);

        t_check(pointer, "what another process had given back was refused");
        t_cuda(cuMemFreeAsync(pointer, stream));
        synchronise(how, stream);
        say(to_child);
        hear(to_parent);
    }
    say(to_child);
    hear(to_parent);
    t_check(!t_draw(NULL, block, stream), "a block was granted that another process holds");
    t_check(!t_alloc(block), "a block was granted that another process's pool holds");
    t_check(!kill(child, SIGKILL) && waitpid(child, NULL, 0) == child, "kill");
    t_check(t_draw(NULL, block, stream), "what a dead process's pool held was refused");
}

static void forks(void)
{
    CUdeviceptr pointer, more = T_UNTOUCHED;
    CUstream stream;
    pid_t child;

    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    pointer = t_draw(NULL, block, stream);
    uint64_t left = t_free();
    child = t_fork();
    if (child == 0) {
        alarm(20);
        t_check(cuMemAllocAsync(&more, block, stream) != CUDA_SUCCESS && more == T_UNTOUCHED, "a child uses its parent's pool");
        t_check(cuMemFreeAsync(pointer, stream) != CUDA_SUCCESS, "a child freed its parent's block");
        t_check(cuStreamSynchronize(stream) != CUDA_SUCCESS, "a child synchronised its parent's stream");
        _exit(0);
    }
    t_join(child);
    t_equal(t_free(), left);
    t_at_rest(0);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_at_rest(0);
    t_check(t_free() > left, "what the parent freed is still charged");
}

static void dies(void)
{
    CUstream stream;
    pid_t child;

    t_check(!pipe(to_child) && !pipe(to_parent), "pipe");
    child = t_fork();
    if (child == 0) {
        t_context(0);
        t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
        t_check(t_draw(NULL, block, stream), "the first block was refused");
        say(to_parent);
        pause();
    }
    hear(to_parent);
    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    t_check(!kill(child, SIGKILL) && waitpid(child, NULL, 0) == child, "kill");
    t_check(t_draw(NULL, block, stream), "a block was refused while a dead process's memory was on its way back");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "shares";

    if (*what == 's')
        shares();
    else if (*what == 'f')
        forks();
    else
        dies();
    return 0;
}
