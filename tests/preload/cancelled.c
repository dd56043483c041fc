/* SPDX-License-Identifier: Apache-2.0 */
/* A thread is cancelled while an allocation of its waits for a dead member's memory: the wait is ours, so the thread ends after the call, and
 * nothing stays charged. */
// unsanitized: AddressSanitizer takes the frames of a cancelled thread for ones still in use
// unemulated: rests on MADV_WIPEONFORK and MADV_DONTFORK, which the emulator does not pass to the kernel
// run: SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=cancelled SOFTSIM_MEM=2G SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_RELEASE_DELAY_MS=600
#include <pthread.h>

#include "../cuda_helper.h"

static CUcontext context;
static int waiting;

static void *ask(void *unused)
{
    CUdeviceptr p;

    t_cuda(cuCtxSetCurrent(context));
    __atomic_store_n(&waiting, 1, __ATOMIC_SEQ_CST);
    CUresult result = cuMemAlloc(&p, T_GIB);
    if (result == CUDA_SUCCESS)
        cuMemFree(p);
    pthread_testcancel();
    return unused;
}

int main(void)
{
    int ready[2];
    char byte;
    pthread_t thread;
    void *how;

    t_check(pipe(ready) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        t_context(0);
        t_check(t_alloc(T_GIB), "refused");
        t_check(write(ready[1], "x", 1) == 1, "write");
        pause();
    }
    t_check(read(ready[0], &byte, 1) == 1, "read");
    context = t_context(0);
    size_t before = t_total() - t_free();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    t_check(pthread_create(&thread, NULL, ask, NULL) == 0, "no thread");
    while (!__atomic_load_n(&waiting, __ATOMIC_SEQ_CST))
        ;
    usleep(100000); /* if it has come to its wait by then: else this shows nothing */
    pthread_cancel(thread);
    pthread_join(thread, &how);
    t_check(how == PTHREAD_CANCELED, "the thread was not cancelled");
    t_check(before > T_GIB, "the child held nothing");
    /* The dead are looked for ten times a second. */
    for (int i = 0; i < 100 && t_total() - t_free() != t_bytes("SOFTSIM_CONTEXT_BYTES", 0); i++)
        usleep(20000);
    t_equal(t_total() - t_free(), t_bytes("SOFTSIM_CONTEXT_BYTES", 0));
    return 0;
}
