/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of any process of the machine: kept out of its driver, its HBM given back to the GPU, taken again, let in again.
 *
 * None of these functions takes the process' own lock: a process may do it to itself. */
#include <string.h>
#include <time.h>

#include "sim.h"

/* The process named `pid`, machine locked; NULL: unlocked, and no such process. */
static struct sim_proc *process_lock(int pid)
{
    struct sim_process_id self = sim_process_reader();
    struct sim_machine *m = sim->machine;

    sim_machine_lock(m);
    sim_reap(m);
    for (unsigned int row = 0; row < m->procs_high; row++)
        if (m->proc[row].state == SIM_PROC_LIVE && sim_process_seen(&self, &m->proc[row].id) == pid)
            return &m->proc[row];
    sim_machine_unlock(m);
    return NULL;
}

static CUresult done(CUresult r)
{
    sim_machine_unlock(sim->machine);
    return r;
}

static void set(struct sim_proc *p, CUprocessState state)
{
    __atomic_store_n(&p->checkpoint, (uint32_t)state, __ATOMIC_SEQ_CST);
}

/* Machine locked: nobody is in its driver, and the GPUs have done what it asked for. */
static bool quiet(struct sim_proc *p)
{
    bool quiet = !__atomic_load_n(&p->inside, __ATOMIC_SEQ_CST);

    for (unsigned int gpu = 0; gpu < sim->machine->set.gpus; gpu++) {
        sim_timeline_advance(sim->machine, gpu, sim_now_ns());
        quiet &= p->client[gpu].served_ns >= p->client[gpu].submitted_ns;
    }
    return quiet;
}

CUresult cuCheckpointProcessLock(int pid, CUcheckpointLockArgs *args)
{
    uint64_t until = args && args->timeoutMs ? sim_now_ns() + args->timeoutMs * UINT64_C(1000000) : UINT64_MAX;
    struct timespec ts = {.tv_nsec = 200000};
    struct sim_proc *p;

    ENTER();
    p = process_lock(pid);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->checkpoint != CU_PROCESS_STATE_RUNNING)
        return done(CUDA_ERROR_ILLEGAL_STATE);
    set(p, CU_PROCESS_STATE_LOCKED);
    while (!quiet(p)) {
        if (sim_now_ns() >= until) {
            set(p, CU_PROCESS_STATE_RUNNING);
            return done(CUDA_ERROR_NOT_READY);
        }
        sim_machine_unlock(sim->machine);
        nanosleep(&ts, NULL);
        p = process_lock(pid);
        if (!p)
            return CUDA_ERROR_INVALID_VALUE;
    }
    return done(CUDA_SUCCESS);
}

/* HBM that others hold too does not go to the host (assumed: a real driver supports no checkpoint of such a process). */
CUresult cuCheckpointProcessCheckpoint(int pid, CUcheckpointCheckpointArgs *args)
{
    struct sim_machine *m;
    struct sim_proc *p;

    ENTER();
    (void)args;
    m = sim->machine;
    p = process_lock(pid);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->checkpoint != CU_PROCESS_STATE_LOCKED)
        return done(CUDA_ERROR_ILLEGAL_STATE);
    for (unsigned int i = 0; i < m->objects_high; i++)
        if (m->object[i].id && m->object[i].holds[p - m->proc])
            return done(CUDA_ERROR_NOT_SUPPORTED);
    for (unsigned int gpu = 0; gpu < m->set.gpus; gpu++) {
        struct sim_client *c = &p->client[gpu];

        c->saved = c->used;
        c->saved_contexts = c->contexts;
        c->used = c->contexts = c->resident = 0; /* managed memory comes back when it is prefetched again */
    }
    set(p, CU_PROCESS_STATE_CHECKPOINTED);
    return done(CUDA_SUCCESS);
}

/* Onto the GPUs that it had. Out of memory on one of them leaves it checkpointed (assumed). */
CUresult cuCheckpointProcessRestore(int pid, CUcheckpointRestoreArgs *args)
{
    struct sim_machine *m;
    struct sim_proc *p;

    ENTER();
    m = sim->machine;
    for (unsigned int i = 0; args && i < args->gpuPairsCount; i++)
        if (memcmp(&args->gpuPairs[i].oldUuid, &args->gpuPairs[i].newUuid, sizeof(CUuuid)) != 0)
            return CUDA_ERROR_NOT_SUPPORTED;
    p = process_lock(pid);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->checkpoint != CU_PROCESS_STATE_CHECKPOINTED)
        return done(CUDA_ERROR_ILLEGAL_STATE);
    for (unsigned int gpu = 0; gpu < m->set.gpus; gpu++)
        if (!sim_gpu_fits(m, gpu, p->client[gpu].saved))
            return done(CUDA_ERROR_OUT_OF_MEMORY);
    for (unsigned int gpu = 0; gpu < m->set.gpus; gpu++) {
        struct sim_client *c = &p->client[gpu];

        c->used += c->saved;
        c->contexts += c->saved_contexts;
        c->saved = c->saved_contexts = 0;
    }
    set(p, CU_PROCESS_STATE_LOCKED);
    return done(CUDA_SUCCESS);
}

CUresult cuCheckpointProcessUnlock(int pid, CUcheckpointUnlockArgs *args)
{
    struct sim_proc *p;

    ENTER();
    (void)args;
    p = process_lock(pid);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->checkpoint != CU_PROCESS_STATE_LOCKED)
        return done(CUDA_ERROR_ILLEGAL_STATE);
    set(p, CU_PROCESS_STATE_RUNNING);
    return done(CUDA_SUCCESS);
}

CUresult cuCheckpointProcessGetState(int pid, CUprocessState *state)
{
    struct sim_proc *p;

    ENTER();
    p = state ? process_lock(pid) : NULL;
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    *state = (CUprocessState)p->checkpoint;
    return done(CUDA_SUCCESS);
}

/* "The thread ID of the CUDA restore thread": the driver's own thread. */
CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *tid)
{
    struct sim_proc *p;

    ENTER();
    p = tid ? process_lock(pid) : NULL;
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    *tid = p->thread;
    return done(CUDA_SUCCESS);
}
