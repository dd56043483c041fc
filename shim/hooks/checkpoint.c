/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of this process or another member of the tenant: its memory leaves the GPU and comes back. Any process may do that to any other,
 * so what changes is the other's slot in the ledger. A process that is no member is the driver's business. */
#include "../guard.h"
#include "../meter.h"
#include "../process.h"
#include "../real.h"

/* The membership if `pid` is a member of the same tenant, else NULL. Before the driver is called: who has the number then is who is meant. */
static struct membership *member_of(int pid, struct ledger_peer *peer)
{
    struct membership *m = process_membership(NULL);

    return m && pid > 0 && ledger_find(&m->quota.ledger, (uint32_t)pid, peer) == 0 ? m : NULL;
}

CUresult cuCheckpointProcessCheckpoint(int pid, CUcheckpointCheckpointArgs *args)
{
    struct ledger_peer peer;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuCheckpointProcessCheckpoint(pid, args);
    struct membership *m = member_of(pid, &peer);
    guard_enter();
    CUresult result = real.cuCheckpointProcessCheckpoint(pid, args);
    guard_leave();
    if (m && result == CUDA_SUCCESS)
        ledger_suspend(&m->quota.ledger, &peer);
    return result;
}

/* Count it again. Below 0: the budget has no room. */
static int resume(struct membership *m, const struct ledger_peer *peer)
{
    struct ledger_refusal refusal;
    int result = quota_resume(&m->quota, peer, &refusal);

    if (result < 0 && refusal.device < m->quota.devices && meters_give_back(m, refusal.device))
        result = quota_resume(&m->quota, peer, &refusal);
    if (result < 0 && refusal.device < m->quota.devices)
        quota_refuse(&m->quota, refusal.device, refusal.bytes, QUOTA_RESTORED);
    return result;
}

/* Whether another caller has restored it meanwhile, which makes ours fail. */
static bool is_restored(int pid)
{
    CUprocessState state;

    return called.cuCheckpointProcessGetState(pid, &state) == CUDA_SUCCESS && state != CU_PROCESS_STATE_CHECKPOINTED;
}

CUresult cuCheckpointProcessRestore(int pid, CUcheckpointRestoreArgs *args)
{
    struct ledger_peer peer;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuCheckpointProcessRestore(pid, args);
    struct membership *m = member_of(pid, &peer);
    int resumed = m ? resume(m, &peer) : 0;
    if (resumed < 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    guard_enter();
    CUresult result = real.cuCheckpointProcessRestore(pid, args);
    if (result != CUDA_SUCCESS && resumed && !is_restored(pid))
        ledger_suspend(&m->quota.ledger, &peer);
    guard_leave();
    return result;
}

/* From here on it runs, also where it was restored on a road that we do not see. */
CUresult cuCheckpointProcessUnlock(int pid, CUcheckpointUnlockArgs *args)
{
    struct ledger_peer peer;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuCheckpointProcessUnlock(pid, args);
    struct membership *m = member_of(pid, &peer);
    guard_enter();
    CUresult result = real.cuCheckpointProcessUnlock(pid, args);
    guard_leave();
    if (m && result == CUDA_SUCCESS)
        ledger_resume_anyway(&m->quota.ledger, &peer);
    return result;
}
