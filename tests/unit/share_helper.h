/* SPDX-License-Identifier: Apache-2.0 */
/* An account, a clock that the test moves, and dice. */
#ifndef SOFTSLICE_TESTS_SHARE_HELPER_H
#define SOFTSLICE_TESTS_SHARE_HELPER_H

#include <criterion/criterion.h>
#include <string.h>

#include "softslice/share.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define S  UINT64_C(1000000000)

static struct share_account account;
static uint64_t now;
static uint64_t state;

/* A new account with the defaults, at a time that is no multiple of anything. */
static inline struct share fresh(uint32_t rate)
{
    memset(&account, 0, sizeof(account));
    now = 1234567891011;
    state = 88172645463325252u;
    return (struct share){.account = &account, .burst = 8 * MS, .max_stall = 2 * S, .period = 100 * MS, .rate = rate};
}

static inline uint64_t dice(uint64_t sides)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % sides;
}

/* Wait as a launch does. Returns how long. */
static inline uint64_t pass(struct share *share)
{
    uint64_t began = now, opens;

    while ((opens = share_opens(share, now))) {
        cr_assert_gt(opens, now);
        cr_assert_leq(opens, now + share->max_stall);
        share_throttled(share, now, opens);
        now = opens;
    }
    return now - began;
}

/* A kernel with the GPU to itself, claimed as it runs, at the latest every `tick`. Returns what was charged. */
static inline uint64_t kernel(struct share *share, uint64_t length, uint64_t tick)
{
    uint64_t until = now + length, from = now, charged = 0;

    while (now < until) {
        now = now + tick < until ? now + tick : until;
        charged += share_claim(share, from, now, now);
    }
    return charged;
}

#endif
