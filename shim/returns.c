/* SPDX-License-Identifier: Apache-2.0 */
/* Which threads are giving memory back. */
#include "returns.h"

__thread unsigned returns_slot;

static unsigned threads; /* that ever gave memory back */

unsigned returns_new_slot(void)
{
    returns_slot = 1 + __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED) % PROCESS_RETURNS;
    return returns_slot;
}

bool returns_busy(uint64_t *seen)
{
    const struct process_returns *returns = process_returns();
    unsigned used = __atomic_load_n(&threads, __ATOMIC_SEQ_CST);
    bool busy = false;

    *seen = 0;
    for (unsigned i = 0; i < used && i < PROCESS_RETURNS; i++) {
        uint32_t count = __atomic_load_n(&returns[i].count, __ATOMIC_SEQ_CST);

        busy |= count & 1;
        *seen += count;
    }
    return busy;
}
