/* SPDX-License-Identifier: Apache-2.0 */
/* The balance of GPU time in virtual time: what a tenant gets, what it is forgiven, and what it does with absurd words. */
#include "softslice/share.h"

#include <criterion/criterion.h>
#include <string.h>

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define S  UINT64_C(1000000000)

static struct share_account account;

static struct share fresh(uint32_t rate)
{
    memset(&account, 0, sizeof(account));
    return (struct share){.account = &account, .burst = 8 * MS, .max_stall = 2 * S, .period = 100 * MS, .rate = rate};
}

static uint64_t state = 88172645463325252u;

static uint64_t dice(uint64_t sides)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % sides;
}

/* Kernel after kernel as soon as the gate is open, each claimed when it ends, for `length` from *now on. Returns the busy time. */
static uint64_t saturate(struct share *share, uint64_t *now, uint64_t length, const uint64_t *kernels, unsigned count)
{
    uint64_t end = *now + length, busy = 0;

    while (*now < end) {
        uint64_t opens = share_opens(share, *now), from, kernel = kernels[dice(count)];

        if (opens) {
            cr_assert_leq(opens, *now + share->max_stall);
            share_throttled(share, *now, opens);
            *now = opens;
        }
        from = *now;
        *now += kernel;
        busy += share_claim(share, from, *now, *now);
    }
    return busy;
}

Test(share, a_tenant_that_always_has_work_gets_its_share)
{
    static const uint64_t kernels[] = {20 * US, 100 * US, 333 * US, 1 * MS, 7 * MS, 20 * MS, 31 * MS, 100 * MS};
    static const uint32_t rates[] = {1000, 2500, 5000, 7500, 9000, 3333, 9999};

    for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
        for (unsigned mix = 1; mix < 256; mix += mix < 8 ? 1 : 1 + dice(9)) {
            struct share share = fresh(rates[i]);
            uint64_t now = 1000 * S, from, busy, some[8];
            unsigned n = 0;

            for (unsigned bit = 0; bit < 8; bit++)
                if (mix >> bit & 1)
                    some[n++] = kernels[bit];
            saturate(&share, &now, S, some, n); /* the burst is used up */
            from = share_opens(&share, now) ? share_opens(&share, now) : now;
            now = from;
            busy = saturate(&share, &now, 10 * S, some, n);
            if (share_opens(&share, now))
                now = share_opens(&share, now);
            cr_assert_float_eq((double)busy / (double)(now - from), rates[i] / 1e4, 0.001, "%u, mix %#x: %f", rates[i], mix,
                               (double)busy / (double)(now - from));
            cr_assert_eq(account.forgiven, 0);
            cr_assert_eq(account.repaired, 0);
        }
}
