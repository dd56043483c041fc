/* SPDX-License-Identifier: Apache-2.0 */
/* Who runs next in virtual time, and when that is. */
#include "virtual.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "virtual_syscall.h"
#include "virtual_world.h"

#define PUBLIC  __attribute__((visibility("default")))
#define LOOK_NS 100000000 /* real time after which who waits looks what the holder does */
#define STUCK_NS                                                                                                                   \
    1000000000 /* real time in which a thread that is blocked has not run: long, for what it waits for may wait for a processor */
#define READS 256 /* readings of the clock in a row after which time passes with each */

static bool begun; /* this process; with the world's lock held */
static uint64_t order;
static pthread_key_t ending;
static bool over; /* atomic: the process ends, and waits in real time */
static __thread struct virtual_row *self;
static __thread unsigned int reads;

/* Who waits for this is not stuck: it waits for those who look at it, and where processors are short that may take long. */
static void lock(struct virtual_world *w)
{
    struct virtual_row *r = self;

    if (r)
        __atomic_store_n(&r->locks, 1, __ATOMIC_SEQ_CST);
    virtual_lock(w);
    if (r)
        __atomic_store_n(&r->locks, 0, __ATOMIC_SEQ_CST);
}

static bool before(const struct virtual_row *a, const struct virtual_row *b)
{
    if (a->at != b->at)
        return a->at < b->at;
    return a->order != b->order ? a->order < b->order : a->tid < b->tid;
}

/* Lock held, nobody has the baton: give it to who is due first, and let time pass until then. */
static void pass(struct virtual_world *w)
{
    w->holder = -1;
    while (w->started) {
        struct virtual_row *best = NULL;
        uint64_t second = VIRTUAL_NEVER;

        for (unsigned int i = 0; i < w->rows_high; i++) {
            struct virtual_row *r = &w->row[i];

            if (r->state == VIRTUAL_NEW)
                return;
            if (r->state != VIRTUAL_IN)
                continue;
            if (!best || before(r, best)) {
                if (best && best->at < second)
                    second = best->at;
                best = r;
            } else if (r->at < second) {
                second = r->at;
            }
        }
        if (!best || best->at == VIRTUAL_NEVER)
            return;
        if (best != self && virtual_dead(best)) {
            best->state = VIRTUAL_FREE;
            continue;
        }
        if (w->clock < best->at)
            __atomic_store_n(&w->clock, best->at, __ATOMIC_SEQ_CST);
        __atomic_store_n(&w->pressing, second, __ATOMIC_SEQ_CST);
        w->grants++;
        __atomic_store_n(&w->holder, (int32_t)(best - w->row), __ATOMIC_SEQ_CST);
        __atomic_store_n(&best->go, 1, __ATOMIC_SEQ_CST);
        if (best != self)
            virtual_raw(SYS_futex, (long)&best->go, FUTEX_WAKE, 1, 0, 0, 0);
        return;
    }
}

/* A thread whose turn it is, or that has just been created, does not go on: it is dead, stopped, or blocked in a way that is not virtual.
 * False: it runs, or not long enough was looked. */
static bool stuck(struct virtual_world *w, struct virtual_row *r)
{
    char what = virtual_thread_state(r);

    if (r->tid ? virtual_dead(r) : !what || what == 'Z' || what == 'X') {
        r->state = VIRTUAL_FREE;
        return true;
    }
    uint64_t ran = virtual_thread_ran(r);
    bool runs = what == 'R' || !what || !r->tid || (__atomic_load_n(&r->locks, __ATOMIC_SEQ_CST) && what != 'T' && what != 't');

    if (runs || r->blocked_grant != w->grants || !r->blocked_ns || r->blocked_ran != ran) {
        r->blocked_grant = w->grants;
        r->blocked_ran = ran;
        r->blocked_ns = runs ? 0 : virtual_real_now();
        return false;
    }
    if (what != 'T' && what != 't' && virtual_real_now() - r->blocked_ns < STUCK_NS)
        return false;
    r->state = VIRTUAL_AWAY;
    return true;
}

/* Lock held: the calling thread has waited long for the baton. */
static void look(struct virtual_world *w)
{
    bool moved = w->holder < 0;

    /* Who gave it the baton was killed before it could say so; or the others thought that it did not wait for it. */
    if (w->holder == (int32_t)(self - w->row)) {
        __atomic_store_n(&self->go, 1, __ATOMIC_SEQ_CST);
        return;
    }
    if (self->state == VIRTUAL_AWAY) {
        self->state = VIRTUAL_IN;
        if (self->at < w->pressing)
            __atomic_store_n(&w->pressing, self->at, __ATOMIC_SEQ_CST);
    }
    for (unsigned int i = 0; i < w->rows_high; i++)
        if (w->row[i].state == VIRTUAL_NEW && &w->row[i] != self)
            moved |= stuck(w, &w->row[i]);
    if (w->holder >= 0)
        moved |= stuck(w, &w->row[w->holder]);
    if (moved && (w->holder < 0 || w->row[w->holder].state != VIRTUAL_IN))
        pass(w);
}

static void wait_turn(struct virtual_world *w)
{
    while (!__atomic_load_n(&self->go, __ATOMIC_SEQ_CST)) {
        struct timespec real = {.tv_nsec = LOOK_NS};

        if (virtual_raw(SYS_futex, (long)&self->go, FUTEX_WAIT, 0, (long)&real, 0, 0) == -ETIMEDOUT) {
            lock(w);
            look(w);
            virtual_unlock(w);
        }
    }
}

static void forget(void *row)
{
    struct virtual_world *w = virtual_shared;
    struct virtual_row *r = row;

    if (!r || r != self)
        return;
    lock(w);
    r->state = VIRTUAL_FREE;
    for (unsigned int i = 0; i < w->rows_high; i++)
        if (w->row[i].state == VIRTUAL_IN && w->row[i].waits == VIRTUAL_JOINS && w->row[i].pid == r->pid) {
            w->row[i].woken = 1;
            w->row[i].at = w->clock;
            if (w->clock < w->pressing)
                __atomic_store_n(&w->pressing, w->clock, __ATOMIC_SEQ_CST);
        }
    self = NULL;
    pthread_mutex_unlock(&r->life);
    if (w->holder < 0 || w->holder == (int32_t)(r - w->row))
        pass(w);
    virtual_unlock(w);
}

static void forked(void)
{
    self = NULL;
    begun = false;
    over = false;
    order = 0;
}

bool virtual_prepare(void)
{
    return pthread_key_create(&ending, forget) == 0 && pthread_atfork(NULL, NULL, forked) == 0;
}

/* Lock held: a free row, for a thread of this process. */
static struct virtual_row *row_new(struct virtual_world *w, enum virtual_state how)
{
    for (unsigned int i = 0; i < VIRTUAL_ROWS; i++) {
        struct virtual_row *r = &w->row[i];

        if (r->state != VIRTUAL_FREE && (r->state == VIRTUAL_NEW || !virtual_dead(r)))
            continue;
        virtual_robust(&r->life);
        r->go = 0;
        r->pid = getpid();
        r->tid = 0;
        r->thread = 0;
        if (!order) {
            const char *given = getenv("SOFTSIM_VIRTUAL_ORDER");

            order = given ? strtoull(given, NULL, 10) : (uint64_t)r->pid;
        }
        r->order = order;
        r->at = VIRTUAL_NEVER;
        r->blocked_ns = 0;
        r->locks = 0;
        r->waits = VIRTUAL_SLEEPS;
        if (w->rows_high < i + 1)
            w->rows_high = i + 1;
        r->state = how;
        return r;
    }
    return NULL;
}

/* Lock held: the row is the calling thread's from now on. */
static void row_take(struct virtual_row *r)
{
    pthread_mutex_trylock(&r->life); /* nobody else has it */
    r->tid = (int32_t)virtual_raw(SYS_gettid, 0, 0, 0, 0, 0, 0);
    r->thread = (uint64_t)pthread_self();
    self = r;
    pthread_setspecific(ending, r);
}

/* Lock held. False where there is no row left: the thread does not sleep at all then. */
static bool join(struct virtual_world *w)
{
    struct virtual_row *r = row_new(w, VIRTUAL_AWAY);

    if (r)
        row_take(r);
    return r != NULL;
}

struct virtual_row *virtual_expect(void)
{
    struct virtual_world *w = virtual_shared;
    struct virtual_row *r;

    lock(w);
    r = row_new(w, VIRTUAL_NEW);
    __atomic_store_n(&w->pressing, 0, __ATOMIC_SEQ_CST);
    virtual_unlock(w);
    return r;
}

void virtual_born(struct virtual_row *row)
{
    struct virtual_world *w = virtual_shared;

    lock(w);
    row_take(row);
    virtual_unlock(w);
}

void virtual_named(struct virtual_row *row, uint64_t thread)
{
    struct virtual_world *w = virtual_shared;

    lock(w);
    if (row->state != VIRTUAL_FREE && row->pid == getpid() && !row->thread)
        row->thread = thread;
    virtual_unlock(w);
}

void virtual_unborn(struct virtual_row *row)
{
    struct virtual_world *w = virtual_shared;

    lock(w);
    row->state = VIRTUAL_FREE;
    virtual_unlock(w);
}

/* Whether a thread of this process takes part still. */
static bool there(struct virtual_world *w, uint64_t thread)
{
    bool found = false;
    int32_t pid = getpid();

    lock(w);
    for (unsigned int i = 0; i < w->rows_high && !found; i++)
        found =
            w->row[i].pid == pid && w->row[i].thread == thread && (w->row[i].state == VIRTUAL_IN || w->row[i].state == VIRTUAL_NEW);
    virtual_unlock(w);
    return found;
}

void virtual_join(uint64_t thread)
{
    /* Who has the baton: nothing ends between the look and the wait. */
    while (self && virtual_shared->holder == (int32_t)(self - virtual_shared->row) && there(virtual_shared, thread))
        virtual_wait(VIRTUAL_NEVER, VIRTUAL_JOINS, NULL, 0, NULL);
}

static void begin(struct virtual_world *w)
{
    if (begun)
        return;
    begun = true;
    if (++w->begun >= w->needed)
        w->started = 1;
}

/* The calling thread has the baton, and nobody else could run before or at that time. */
static bool alone_until(struct virtual_world *w, uint64_t at)
{
    uint64_t now = __atomic_load_n(&w->clock, __ATOMIC_SEQ_CST);

    if (!self || __atomic_load_n(&w->holder, __ATOMIC_SEQ_CST) != (int32_t)(self - w->row) ||
        at >= __atomic_load_n(&w->pressing, __ATOMIC_SEQ_CST))
        return false;
    while (now < at && !__atomic_compare_exchange_n(&w->clock, &now, at, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return true;
}

bool virtual_wait(uint64_t at, enum virtual_wait how, uint32_t *word, uint32_t seen, bool *changed)
{
    struct virtual_world *w = virtual_shared;
    int error = errno;
    bool mine, woken = false;

    reads = 0;
    if (__atomic_load_n(&over, __ATOMIC_SEQ_CST))
        return false;
    if (how == VIRTUAL_SLEEPS && alone_until(w, at))
        return false;
    lock(w);
    if (!self && !join(w)) {
        virtual_unlock(w);
        return false;
    }
    if (self->tid == self->pid)
        begin(w);
    if (word && __atomic_load_n(word, __ATOMIC_SEQ_CST) != seen) {
        /* Who has the baton goes on at once; who comes in waits for its turn first. */
        *changed = true;
        how = VIRTUAL_SLEEPS;
        at = w->clock;
    }
    mine = w->holder == (int32_t)(self - w->row);
    if (mine && changed && *changed) {
        virtual_unlock(w);
        return false;
    }
    self->state = VIRTUAL_IN;
    self->at = at;
    self->waits = how;
    self->word = (uint64_t)(uintptr_t)word;
    self->woken = 0;
    self->go = 0;
    if (mine || w->holder < 0)
        pass(w);
    else if (at < w->pressing)
        __atomic_store_n(&w->pressing, at, __ATOMIC_SEQ_CST);
    virtual_unlock(w);
    wait_turn(w);
    self->waits = VIRTUAL_SLEEPS;
    woken = self->woken;
    errno = error;
    return woken;
}

unsigned int virtual_wake(enum virtual_wait how, const uint32_t *word, unsigned int most)
{
    struct virtual_world *w = virtual_shared;
    unsigned int count = 0;

    lock(w);
    for (unsigned int i = 0; i < w->rows_high && count < most; i++) {
        struct virtual_row *r = &w->row[i];

        if (r->state != VIRTUAL_IN || r->waits != how || r->woken || w->holder == (int32_t)i)
            continue;
        /* Other processes know the word by other addresses. */
        if (how == VIRTUAL_WAITS_PRIVATE && (r->pid != getpid() || r->word != (uint64_t)(uintptr_t)word))
            continue;
        r->woken = 1;
        r->at = w->clock;
        count += how == VIRTUAL_WAITS_PRIVATE;
        if (r->at < w->pressing)
            __atomic_store_n(&w->pressing, r->at, __ATOMIC_SEQ_CST);
    }
    if (w->holder < 0)
        pass(w);
    virtual_unlock(w);
    return count;
}

bool virtual_waits(void)
{
    return virtual_world() && !__atomic_load_n(&over, __ATOMIC_SEQ_CST);
}

uint64_t virtual_read(void)
{
    struct virtual_world *w = virtual_shared;

    if (++reads > READS) {
        virtual_wait(__atomic_load_n(&w->clock, __ATOMIC_SEQ_CST) + VIRTUAL_STEP, VIRTUAL_SLEEPS, NULL, 0, NULL);
        reads = READS;
    }
    return __atomic_load_n(&w->clock, __ATOMIC_SEQ_CST);
}

PUBLIC uint64_t virtual_now(void)
{
    struct virtual_world *w = virtual_world();

    return w ? __atomic_load_n(&w->clock, __ATOMIC_SEQ_CST) : 0;
}

PUBLIC void virtual_spend(uint64_t ns)
{
    struct virtual_world *w = virtual_world();

    if (w && ns)
        virtual_wait(__atomic_load_n(&w->clock, __ATOMIC_SEQ_CST) + ns, VIRTUAL_SLEEPS, NULL, 0, NULL);
}

PUBLIC void virtual_poll(void)
{
    if (virtual_world())
        virtual_read();
}

PUBLIC void virtual_leave(void)
{
    struct virtual_world *w = virtual_world();

    if (!w || !self)
        return;
    lock(w);
    self->state = VIRTUAL_AWAY;
    if (w->holder < 0 || w->holder == (int32_t)(self - w->row))
        pass(w);
    virtual_unlock(w);
}

PUBLIC void virtual_enter(void)
{
    struct virtual_world *w = virtual_world();

    if (!w)
        return;
    lock(w);
    begin(w);
    virtual_unlock(w);
    virtual_wait(__atomic_load_n(&w->clock, __ATOMIC_SEQ_CST), VIRTUAL_SLEEPS, NULL, 0, NULL);
}

/* The process ends: none of its threads is given the baton any more. */
static void end(void)
{
    struct virtual_world *w = __atomic_load_n(&virtual_shared, __ATOMIC_ACQUIRE);
    int32_t pid = getpid();

    if (!w)
        return;
    __atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
    lock(w);
    for (unsigned int i = 0; i < w->rows_high; i++) {
        if (w->row[i].state == VIRTUAL_FREE || w->row[i].pid != pid)
            continue;
        w->row[i].state = VIRTUAL_GONE;
        if (w->holder < 0 || w->holder == (int32_t)i)
            pass(w);
    }
    virtual_unlock(w);
}

PUBLIC void _exit(int status)
{
    end();
    for (;;)
        virtual_raw(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

PUBLIC void _Exit(int status)
{
    _exit(status);
}

__attribute__((destructor)) static void unload(void)
{
    end();
}
