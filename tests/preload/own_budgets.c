/* SPDX-License-Identifier: Apache-2.0 */
/* Without a tenant's name each process has the budget for itself; with one they share it. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_TENANT=all
#include <pthread.h>
#include <sys/mman.h>

#include "../cuda_helper.h"

enum { PROCESSES = 4 };

int main(void)
{
    struct shared {
        pthread_barrier_t barrier;
        uint64_t blocks;
    } *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t limit = t_bytes("SOFTSLICE_VRAM", 0), cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    bool together = getenv("SOFTSLICE_TENANT");
    pthread_barrierattr_t between_processes;
    pid_t child[PROCESSES];

    pthread_barrierattr_init(&between_processes);
    pthread_barrierattr_setpshared(&between_processes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &between_processes, PROCESSES);
    for (int i = 0; i < PROCESSES; i++) {
        if ((child[i] = t_fork()) != 0)
            continue;
        t_context(0);
        pthread_barrier_wait(&shared->barrier);
        while (t_alloc(2 * T_MIB))
            __atomic_fetch_add(&shared->blocks, 1, __ATOMIC_SEQ_CST);
        pthread_barrier_wait(&shared->barrier);
        t_equal(t_total(), limit);
        t_check(t_free() < 2 * T_MIB, "%zu bytes are told to be free, and none is to be had", t_free());
        if (together)
            t_equal(shared->blocks, (limit - PROCESSES * cost) / (2 * T_MIB));
        else
            t_equal(shared->blocks, PROCESSES * ((limit - cost) / (2 * T_MIB)));
        t_equal(t_used(0), PROCESSES * cost + shared->blocks * 2 * T_MIB);
        pthread_barrier_wait(&shared->barrier);
        _exit(0);
    }
    for (int i = 0; i < PROCESSES; i++)
        t_join(child[i]);
    return 0;
}
