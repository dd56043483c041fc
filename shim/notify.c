/* SPDX-License-Identifier: Apache-2.0 */
/* Who is to be told when the tenant is over its budget. */
#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "../core/compat.h"

#define NOTICES     64
#define WAIT_NS     1000000
#define WAITS       1000 /* a function that is told should return within 10 ms; one that waits for us must not stop us for ever */
#define STATE_FREE  0u
#define STATE_TAKEN 1u /* by the thread that fills it in or takes it out */
#define STATE_LIVE  2u
#define STATE_MASK  3u
#define STATE_CALL  4u /* one for each call under way */

struct notice {
    uint32_t state; /* atomic */
    uint32_t told;  /* atomic: since the tenant was last within its limit */
    CUdevice device;
    CUasyncCallback function;
    void *data;
    CUasyncCallbackHandle handle;
};

static struct notice *published; /* NOTICES of them, zeros in a forked child: what its parent registered is the parent's */
static __thread bool telling __attribute__((tls_model("initial-exec")));

static struct notice *notices(bool make)
{
    struct notice *mine, *known = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
    size_t size = NOTICES * sizeof(*mine);

    if (known || !make)
        return known;
    mine = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mine == MAP_FAILED)
        return NULL;
    if (madvise(mine, size, MADV_WIPEONFORK) != 0 ||
        !__atomic_compare_exchange_n(&published, &known, mine, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        munmap(mine, size);
        return known;
    }
    return mine;
}

/* From one state to another, whatever calls are under way. */
static bool change(struct notice *notice, uint32_t from, uint32_t to)
{
    uint32_t state = __atomic_load_n(&notice->state, __ATOMIC_ACQUIRE);

    while ((state & STATE_MASK) == from)
        if (__atomic_compare_exchange_n(&notice->state, &state, (state & ~STATE_MASK) | to, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return true;
    return false;
}

void notify_register(CUdevice device, CUasyncCallback function, void *data, CUasyncCallbackHandle handle)
{
    struct notice *table = notices(true);

    for (unsigned i = 0; table && i < NOTICES; i++) {
        struct notice *notice = &table[i];
        uint32_t nobody = STATE_FREE;

        /* Without calls under way: one that outlived its registration still reads the entry. */
        if (!__atomic_compare_exchange_n(&notice->state, &nobody, STATE_TAKEN, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        notice->device = device;
        notice->function = function;
        notice->data = data;
        __atomic_store_n(&notice->handle, handle, __ATOMIC_RELAXED);
        __atomic_store_n(&notice->told, 0, __ATOMIC_RELAXED);
        change(notice, STATE_TAKEN, STATE_LIVE);
        return;
    }
}

struct notice *notify_withdraw(CUdevice device, CUasyncCallbackHandle handle)
{
    struct notice *table = notices(false);
    int saved = errno;

    for (unsigned i = 0; table && i < NOTICES; i++) {
        struct notice *notice = &table[i];

        if (__atomic_load_n(&notice->handle, __ATOMIC_RELAXED) != handle || !change(notice, STATE_LIVE, STATE_TAKEN))
            continue;
        if (notice->handle != handle || notice->device != device) { /* another's by now, or of another device */
            change(notice, STATE_TAKEN, STATE_LIVE);
            continue;
        }
        for (int wait = 0; wait < WAITS && __atomic_load_n(&notice->state, __ATOMIC_ACQUIRE) >= STATE_CALL; wait++)
            compat_sleep(WAIT_NS);
        errno = saved;
        return notice;
    }
    return NULL;
}

void notify_restore(struct notice *notice)
{
    change(notice, STATE_TAKEN, STATE_LIVE);
}

void notify_forget(struct notice *notice)
{
    change(notice, STATE_TAKEN, STATE_FREE);
}

bool notify_telling(void)
{
    return telling;
}

static void tell(struct notice *notice, CUdevice device, uint64_t bytes)
{
    CUasyncNotificationInfo info = {.type = CU_ASYNC_NOTIFICATION_TYPE_OVER_BUDGET};
    uint32_t state = __atomic_load_n(&notice->state, __ATOMIC_ACQUIRE);

    do {
        if ((state & STATE_MASK) != STATE_LIVE)
            return;
    } while (!__atomic_compare_exchange_n(&notice->state, &state, state + STATE_CALL, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    if (notice->device != device) {
        ; /* another's */
    } else if (!bytes) {
        __atomic_store_n(&notice->told, 0, __ATOMIC_RELAXED);
    } else if (!__atomic_exchange_n(&notice->told, 1, __ATOMIC_RELAXED)) {
        info.info.overBudget.bytesOverBudget = bytes;
        telling = true;
        notice->function(&info, notice->data, notice->handle);
        telling = false;
    }
    __atomic_fetch_sub(&notice->state, STATE_CALL, __ATOMIC_RELEASE);
}

void notify_over_budget(struct membership *m, unsigned device, uint64_t bytes)
{
    struct notice *table = notices(false);

    for (unsigned i = 0; table && i < NOTICES; i++)
        tell(&table[i], m->device[device], bytes);
}

void notify_look(struct membership *m, unsigned device)
{
    struct notice *table = notices(false);
    uint64_t current, limit;

    if (!table)
        return;
    current = ledger_current(&m->quota.ledger, (unsigned)m->quota.device[device].index);
    limit = quota_limit(&m->quota, device);
    notify_over_budget(m, device, current > limit ? current - limit : 0);
}
