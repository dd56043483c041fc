/* SPDX-License-Identifier: Apache-2.0 */
/* The balance of a tenant's GPU time on one device: what it used, and when it may go on. Times are nanoseconds of the host's monotonic
 * clock, read by the caller. An account is shared by threads and processes without any lock. */
#ifndef SOFTSLICE_SHARE_H
#define SOFTSLICE_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#define SHARE_WHOLE 10000 /* 100 % */

/* How far moments in an account may lie beyond what a caller's `now` allows before they are taken for damage: it may have been held up
 * after it read the clock. */
#define SHARE_DUE_SLACK   UINT64_C(100000000)   /* a caller held up for longer shortens a debt that was at max_stall by as much */
#define SHARE_EDGE_SLACK  UINT64_C(1000000000)  /* ... charges its claim although others may have claimed the same time */
#define SHARE_COUNT_SLACK UINT64_C(60000000000) /* ... counts its wait although others waited too */

/* Zero-filled is a new one. In a file that several processes map; each word is changed by itself, atomically.
 *
 * What a process killed half way through a claim can lose is that claim: nobody is charged for it, or it is counted in `busy` and not
 * owed. With it may go the gap that it left or was taken from, so that others who have not claimed that time yet cannot. Killed in
 * share_throttled() it loses one wait, or its periods. Nothing is left locked or half-written. */
struct share_account {
    uint64_t due;           /* the gate is open from here on */
    uint64_t edge;          /* GPU time up to here is charged, but for the gaps */
    uint64_t busy;          /* GPU time used */
    uint64_t throttled;     /* time in which somebody waited for the balance */
    uint64_t forgiven;      /* GPU time that was used and never paid back, since no stall is longer than max_stall */
    uint64_t nr_periods;    /* periods in which the tenant had work */
    uint64_t nr_throttled;  /* those in which it waited */
    uint64_t periods_until; /* end of the last period in nr_periods */
    uint64_t waited_until;  /* end of the last period in nr_throttled */
    uint64_t throttle_edge; /* waits up to here are counted */
    uint64_t repaired;      /* how often a moment was absurd and was set back: damage, or a clock that jumped */
    uint64_t turns_taken;   /* counted by the gate with share_count(), as are the next ones */
    uint64_t turns_lost;
    uint64_t marks;
    uint64_t reserved_counts[2];
    uint64_t gaps[8]; /* the newest spans before the edge that nobody has claimed yet, packed; 0: none */
    uint64_t awaited; /* when a process last saw that its work takes too long: it may wait for another one's on another device */
    uint32_t bell;    /* futex, of the tenant's first device: that was said of one of them */
    uint32_t reserved_bell;
    uint64_t reserved[6];
};

_Static_assert(sizeof(struct share_account) == 256, "a file format");

/* What a process knows of the share it has now. Filled for each call: a new rate holds from then on, and a debt stays the time that it is. */
struct share {
    struct share_account *account;
    uint64_t burst;     /* GPU time that a tenant which was idle may use at once */
    uint64_t max_stall; /* no stall is longer */
    uint64_t period;    /* of the statistics only; 0: none are kept */
    uint32_t rate;      /* of GPU time, hundredths of a percent. SHARE_WHOLE and above never close; 0 counts as 1 */
    bool never_closes;  /* mode = share: busy time is counted, nothing is owed */
    uint64_t cut;       /* GPU time that was forgiven of what was claimed with this; 0 to begin with */
};

/* This process goes from idle to busy. If no other one of the tenant is busy, what lies before `now` was idle: it cannot be claimed any
 * more. Who goes idle claims its last work before it says so to the others. */
void share_begin(struct share *share, uint64_t now, bool others_busy);

/* Work was on the GPU in (from, until]. Returns what of it was not claimed before: it is busy time now, and has to be earned. `until` counts
 * as `now` at most. Any order; a claim earlier than the newest one is exact to some microseconds as long as the tenant's work
 * left no more than a handful of gaps meanwhile, and never charges a moment twice. */
uint64_t share_claim(struct share *share, uint64_t from, uint64_t until, uint64_t now);

/* Of what was claimed with this very `share`, `ns` were other tenants' slices of the GPU: they count as busy no more, and need not be earned. What was
 * forgiven of the claim is the first that goes: it was not owed. */
void share_return(struct share *share, uint64_t ns);

/* 0: open. Otherwise when, at most max_stall from now. */
uint64_t share_opens(const struct share *share, uint64_t now);

/* When it would be open once `work` ns of GPU time that began at `from` were charged, at most max_stall from now; 0: now. */
uint64_t share_opens_after(const struct share *share, uint64_t from, uint64_t work, uint64_t now);

/* How much GPU time could be used at once without a debt; UINT64_MAX where there never is one. */
uint64_t share_credit(const struct share *share, uint64_t now);

/* A launch waited for the balance in (from, until]. Counts the union over all that wait, and the periods. */
void share_throttled(struct share *share, uint64_t from, uint64_t until);

/* The tenant has work now. Claims and waits say so by themselves. */
void share_period(struct share *share, uint64_t now);

/* What a share in hundredths of a percent weighs where nobody set a weight: its percentage, at least 1. */
static inline uint32_t share_weight(uint32_t share)
{
    uint32_t percent = (share + 50) / 100;

    return percent ? percent : 1;
}

/* Add to a counter of the account; it stays at the largest number. */
void share_count(uint64_t *counter, uint64_t amount);

/* A counter of the account now. */
static inline uint64_t share_read(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

#endif
