/* SPDX-License-Identifier: Apache-2.0 */
/* A way past other limiters: two processes that check at the same moment both find room, and what one of them then gets beyond the limit is not
 * remembered and cannot be freed. Here one gets it and the other is refused, by whichever call, and it is freed. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=hami SOFTSIM_CONTEXT_BYTES=40M
#include <pthread.h>
#include <sys/mman.h>

#include "../cuda_helper.h"

enum { PROCESSES = 2, ROUNDS = 300, KINDS = 4 };

#define SIZE (600 * T_MIB) /* room for one */

static struct shared {
    pthread_barrier_t barrier;
    unsigned granted[ROUNDS];
} * shared;

static CUresult take(int kind, CUdeviceptr *pointer, CUarray *array)
{
    size_t pitch;

    switch (kind) {
    case 0:
        return cuMemAlloc(pointer, SIZE);
    case 1:
        return cuMemAllocPitch(pointer, &pitch, T_MIB, SIZE / T_MIB, 16);
    case 2:
        return cuMemAllocManaged(pointer, SIZE, CU_MEM_ATTACH_GLOBAL);
    default:
        return cuArrayCreate(array, &(CUDA_ARRAY_DESCRIPTOR){15360, 10240, CU_AD_FORMAT_FLOAT, 1});
    }
}

static void process(void)
{
    t_context(0);
    for (int round = 0; round < ROUNDS; round++) {
        CUdeviceptr pointer = T_UNTOUCHED;
        CUarray array = NULL;

        pthread_barrier_wait(&shared->barrier);
        CUresult result = take(round % KINDS, &pointer, &array);
        if (result != CUDA_SUCCESS)
            t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
        else
            __atomic_fetch_add(&shared->granted[round], 1, __ATOMIC_SEQ_CST);
        pthread_barrier_wait(&shared->barrier);
        t_check(shared->granted[round] == 1, "round %d: %u of two processes were granted what is there once", round,
                shared->granted[round]);
        t_equal(t_free(), T_GIB - 2 * 40 * T_MIB - SIZE);
        pthread_barrier_wait(&shared->barrier);
        if (result == CUDA_SUCCESS)
            t_cuda(round % KINDS == 3 ? cuArrayDestroy(array) : cuMemFree(pointer));
        pthread_barrier_wait(&shared->barrier);
        t_equal(t_free(), T_GIB - 2 * 40 * T_MIB);
    }
    _exit(0);
}

int main(void)
{
    pthread_barrierattr_t between_processes;
    pid_t child[PROCESSES];

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    t_check(shared != MAP_FAILED, "mmap");
    pthread_barrierattr_init(&between_processes);
    pthread_barrierattr_setpshared(&between_processes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &between_processes, PROCESSES);
    for (int i = 0; i < PROCESSES; i++)
        if ((child[i] = t_fork()) == 0)
            process();
    /* One that fails leaves the other waiting. */
    int status;
    pid_t first = waitpid(-1, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        kill(first == child[0] ? child[1] : child[0], SIGKILL);
        t_fail("a child ended with wait status 0x%x", (unsigned)status);
    }
    t_join(first == child[0] ? child[1] : child[0]);
    return 0;
}
