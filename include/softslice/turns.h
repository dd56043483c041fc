/* SPDX-License-Identifier: Apache-2.0 */
/* Turns: tenants that share a GPU and can see each other have it alone for a few milliseconds each. Design, section 7; the protocol is described
 * on top of core/turns.c, the files in core/turns_layout.h.
 *
 * Every tenant has one file in <state directory>/turns that only its own processes write; all read all of them, and who is next follows from what
 * is in them and the clock. No call reads a clock: `now` is the host's monotonic clock in ns (softslice/clock.h), the same for all
 * tenants of a machine. Devices are numbers below the `devices` of turns_join(), in the order in which their UUIDs were given there.
 *
 * A caller with work asks until the turn is its own, launches, asks turns_demand() at each mark whether it must go, lets what is in flight drain
 * and releases. It also releases when it has had nothing on the GPU for a while (some 200 us: a program that launches and waits would lose
 * the turn after each kernel else; what it holds idle while others wait is charged). */
#ifndef SOFTSLICE_TURNS_H
#define SOFTSLICE_TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TURNS_DEVICES   32
#define TURNS_PEERS     64 /* other tenants that one process looks at; more than these share the GPU without turns */
#define TURNS_PROCESSES 64 /* of one tenant that are told apart; more than these count as one */
#define TURNS_ERROR_MAX 256

#define TURNS_QUANTUM    UINT64_C(4000000) /* what 0 in the settings stands for, ns */
#define TURNS_GRACE      UINT64_C(1000000)
#define TURNS_MINIMUM    UINT64_C(1000000)
#define TURNS_CREDIT     UINT64_C(20000000)
#define TURNS_WEIGHT     100 /* of a tenant for which nobody set one */
#define TURNS_WEIGHT_MAX 10000

enum turns_mode { TURNS_CAP, TURNS_SHARE };

/* 0 is the default, everywhere. */
struct turns_settings {
    uint64_t quantum; /* how long a turn lasts while somebody waits; the least of holder's and waiters' counts; 1 ms to 1 s */
    uint64_t grace;   /* how long who is next may take to claim, before the one behind it may */
    uint64_t minimum; /* a turn is not cut shorter than this, whoever waits */
    uint64_t credit;  /* so much GPU time, times its part of the weights, may a tenant that was idle have before the others */
    uint32_t weight[TURNS_DEVICES]; /* 1 to 10000; in mode cap the caller passes the share (in percent) where no weight was set */
    uint32_t share[TURNS_DEVICES];  /* hundredths of a percent: for people */
    enum turns_mode mode;           /* for people */
};

/* A process's handle. All zeros: turns are off, every ask is answered `mine`. It may live in a MADV_WIPEONFORK page: a forked child is off until it joins
 * by itself. No other member than `error` is for callers. */
struct turns {
    struct turns_room *room;
    char error[TURNS_ERROR_MAX]; /* one line for people after a failed turns_join() */
};

/* Take part as a process of `tenant` (the name of its folder in the state directory; a process-own tenant has one too) on `devices` GPUs. Creates the
 * tenant's file where it is missing, and collects those of tenants that ended. 0, or -errno with turns->error: -EACCES, -EROFS (no file, and
 * none can be made), -EPROTO (damaged, or of another major version), -ENOSPC, -EINVAL. The handle is then as it was: off. */
int turns_join(struct turns *turns, int dirfd, const char *tenant, const uint8_t (*uuid)[16], unsigned devices,
               const struct turns_settings *settings, uint64_t now);

/* Give up what this process holds and wants, and stop. No other thread may be in a call, or wait on a word that it was given. */
void turns_leave(struct turns *turns, uint64_t now);

/* Create the file of a tenant that will join from where it cannot: the directory is read-only in its container. `mode` as for open(); the
 * caller sets the owner. 0, also where there is one, or -errno. */
int turns_prepare(int dirfd, const char *tenant, unsigned mode);

/* Live change of a device's weight and share. */
void turns_set_weight(struct turns *turns, unsigned device, uint32_t weight, uint32_t share);

struct turns_answer {
    bool mine; /* all the devices that were asked for */
    uint64_t
        until; /* mine: for how long at most if nothing changes, UINT64_MAX where nobody else wants. Else: ask again then at the latest */
    uint32_t *
        word; /* or when this shared futex word is not `seen` any more; may be NULL. Only for FUTEX_WAIT: who owns the file can take the page away */
    uint32_t seen;
};

/* This process has work for these devices (a bit mask): all or none. Asked again at `until` or sooner for as long as it has; not asking for 100 ms is to want
 * no more. A tenant whose turn is over is not let in again by another of its processes. May make system calls (it looks for newcomers at times), never
 * waits. Any number of threads may ask at once: one that meets another in here is told to come again in a moment. */
struct turns_answer turns_ask(struct turns *turns, uint64_t devices, uint64_t now);

struct turns_demand {
    bool wanted;  /* another tenant wants one of the devices */
    bool must_go; /* launch no more, drain, release: the quantum is over or a waiter is clearly below its share */
    bool
        lost; /* the turn on one of them is not this tenant's any more: it overstayed. Also must_go. While it drains a long kernel and asks
                     * this every 2 ms or so it has 10 quanta, else 2; what was used is reported at the release all the same */
    uint64_t since; /* when the first one began to want, as it says; 0: nobody wants */
    uint64_t until; /* not must_go: when it will have to go if nothing changes, UINT64_MAX where nobody wants */
};

/* Whether the holder has to go. Asked at each mark, at least once a quantum where others are seen: this is also what keeps a turn alive. It maps and opens
 * nothing; cheap enough for a mark (one system call a peer), not for a launch. From any thread. */
struct turns_demand turns_demand(struct turns *turns, uint64_t devices, uint64_t now);

/* How many other tenants had work on the device when this process last asked or was told a demand, as far as turns tell: who holds the turn, where this one
 * lost it to time with work still on the GPU, and who did so. 0 as a rule. The driver then gives each a part of the time. */
unsigned turns_crowd(const struct turns *turns, unsigned device);

/* The short form: turns_demand().wanted, with its `since` where that is not NULL. */
bool turns_wanted(struct turns *turns, uint64_t devices, uint64_t now, uint64_t *since);

/* This process has nothing on these devices any more, or asks no longer; `used` is the GPU time that it had on each since its ask was answered `mine`, of
 * which no other process of the tenant reports a part. The turn goes on to others when the last process of the tenant releases it, and they are woken. Not
 * to be called while another thread of the process is in turns_ask() for the same devices. */
void turns_release(struct turns *turns, uint64_t devices, uint64_t now, uint64_t used);

/* Look for tenants that came and went, if it is time to (whether the folder has changed every 5 ms; into it
 * then, and once a second anyway). From a thread that may make system calls:
 * a holder that does not call it learns of newcomers only when it asks again. False where another thread is at it. */
bool turns_look(struct turns *turns, uint64_t now);

/* No other tenant was seen at the last look, on any GPU: there is nobody for whom a turn would have to be let go soon. False where turns are
 * off. */
bool turns_alone(const struct turns *turns);

/* What became of it: of the tenant, over all its processes and lives of the file's first member. */
struct turns_counts {
    uint64_t taken, lost; /* turns */
    uint64_t used;        /* ns charged */
    unsigned peers;       /* other tenants seen on this device now */
    unsigned ignored;     /* of them, or of those before, such whose entries were damaged or absurd */
};
void turns_counts(const struct turns *turns, unsigned device, struct turns_counts *counts);

/* The next thing that people should know about a peer, once for each of it: damaged or absurd (*damage, which may be NULL), or
 * overstaying, as healthy ones do now and then on a busy machine. False where there is none. Nothing is logged by
 * the calls above. */
bool turns_report(struct turns *turns, char *line, size_t size, bool *damage);

#endif
