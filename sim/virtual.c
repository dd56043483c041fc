/* SPDX-License-Identifier: Apache-2.0 */
/* Who runs next in virtual time, and when that is. */
#include "virtual.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "virtual_syscall.h"
#include "virtual_world.h"

#define PUBLIC    __attribute__((visibility("default")))
#define LOOK_NS   100000000               /* real time after which who waits looks what the holder does */
#define READS     256                     /* readings of the clock in a row after which time passes with each */
#define EPOCH     UINT64_C(1000000000000) /* what the clock shows when a world begins */
#define STAT_SIZE 512

static struct virtual_world *world; /* atomic */
static uint32_t state;              /* atomic: 0 not looked yet, 1 real, 2 virtual */
static bool begun;                  /* this process; with the world's lock held */
static uint64_t order;
static pthread_key_t ending;
static __thread struct virtual_row *self;
static __thread unsigned int reads;

static void lock(struct virtual_world *w)
{
    if (pthread_mutex_lock(&w->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&w->lock);
}

static void unlock(struct virtual_world *w)
{
    pthread_mutex_unlock(&w->lock);
}

static void robust(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;

    memset(mutex, 0, sizeof(*mutex));
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
}

static bool dead(struct virtual_row *r)
{
    int result = pthread_mutex_trylock(&r->life);

    if (result == EOWNERDEAD)
        pthread_mutex_consistent(&r->life);
    if (result == 0 || result == EOWNERDEAD)
        pthread_mutex_unlock(&r->life);
    return result != EBUSY;
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
        if (best != self && dead(best)) {
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

static uint64_t real_now(void)
{
    struct timespec t = {0};

    virtual_raw(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&t, 0, 0, 0, 0);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* R, S, D, T and so on; 0 where it cannot be read. */
static char thread_state(const struct virtual_row *r)
{
    char path[64], text[STAT_SIZE];
    const char *end;
    long size;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", r->pid, r->tid ? r->tid : r->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    end = strrchr(text, ')');
    return end && end[1] ? end[2] : 0;
}

/* A thread whose turn it is, or that has just been created, does not go on: it is dead, stopped, or blocked in a way that is not virtual.
 * False: it runs, or not long enough was looked. */
static bool stuck(struct virtual_world *w, struct virtual_row *r)
{
    char what = thread_state(r);

    if (r->tid ? dead(r) : !what || what == 'Z' || what == 'X') {
        r->state = VIRTUAL_FREE;
        return true;
    }
    if (what == 'R' || !what || !r->tid || r->blocked_grant != w->grants || !r->blocked_ns) {
        r->blocked_grant = w->grants;
        r->blocked_ns = what == 'R' || !what || !r->tid ? 0 : real_now();
        return false;
    }
    if (what != 'T' && what != 't' && real_now() - r->blocked_ns < LOOK_NS)
        return false;
    r->state = VIRTUAL_AWAY;
    return true;
}

/* Lock held: nobody was given the baton for long. */
static void look(struct virtual_world *w)
{
    bool moved = w->holder < 0;

    for (unsigned int i = 0; i < w->rows_high; i++)
        if (w->row[i].state == VIRTUAL_NEW && &w->row[i] != self)
            moved |= stuck(w, &w->row[i]);
    if (w->holder >= 0 && &w->row[w->holder] != self)
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
            unlock(w);
        }
    }
}

static void forget(void *row)
{
    struct virtual_world *w = world;
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
    unlock(w);
}

static void forked(void)
{
    self = NULL;
    begun = false;
    order = 0;
}

/* Lock held: a free row, for a thread of this process. */
static struct virtual_row *row_new(struct virtual_world *w, enum virtual_state how)
{
    for (unsigned int i = 0; i < VIRTUAL_ROWS; i++) {
        struct virtual_row *r = &w->row[i];

        if (r->state != VIRTUAL_FREE && (r->state != VIRTUAL_GONE || !dead(r)))
            continue;
        robust(&r->life);
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
    pthread_mutex_lock(&r->life);
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
    struct virtual_world *w = world;
    struct virtual_row *r;

    lock(w);
    r = row_new(w, VIRTUAL_NEW);
    __atomic_store_n(&w->pressing, 0, __ATOMIC_SEQ_CST);
    unlock(w);
    return r;
}

void virtual_born(struct virtual_row *row)
{
    struct virtual_world *w = world;

    lock(w);
    row_take(row);
    unlock(w);
}

void virtual_named(struct virtual_row *row, uint64_t thread)
{
    struct virtual_world *w = world;

    lock(w);
    if (row->state != VIRTUAL_FREE && row->pid == getpid() && !row->thread)
        row->thread = thread;
    unlock(w);
}

void virtual_unborn(struct virtual_row *row)
{
    struct virtual_world *w = world;

    lock(w);
    row->state = VIRTUAL_FREE;
    unlock(w);
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
    unlock(w);
    return found;
}

void virtual_join(uint64_t thread)
{
    /* Who has the baton: nothing ends between the look and the wait. */
    while (self && world->holder == (int32_t)(self - world->row) && there(world, thread))
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

/* A thread that a living process has just created, and that has nothing of its own yet by which it could be known to live. */
static bool unborn(const struct virtual_row *r)
{
    char what = r->state == VIRTUAL_NEW && !r->tid ? thread_state(r) : 0;

    return what && what != 'Z' && what != 'X';
}

/* The file, its lock held: a world in which nobody takes part any more waits for processes anew; its clock goes on. */
static void renew(struct virtual_world *w, unsigned int needed)
{
    if (w->magic != VIRTUAL_MAGIC) {
        robust(&w->lock);
        w->bytes = sizeof(*w);
        w->clock = EPOCH;
        w->holder = -1;
        __atomic_store_n(&w->magic, VIRTUAL_MAGIC, __ATOMIC_RELEASE);
    }
    lock(w);
    for (unsigned int i = 0; i < w->rows_high; i++) {
        if (w->row[i].state != VIRTUAL_FREE && (unborn(&w->row[i]) || !dead(&w->row[i]))) {
            unlock(w);
            return;
        }
        w->row[i].state = VIRTUAL_FREE;
    }
    w->needed = needed;
    w->holder = -1;
    w->started = 0;
    w->begun = 0;
    unlock(w);
}

static struct virtual_world *map(unsigned int needed)
{
    const char *given = getenv("SOFTSIM_STATE");
    struct virtual_world *w = MAP_FAILED;
    char path[256];
    struct stat st;
    int fd;

    if (given && *given)
        snprintf(path, sizeof(path), "%s.virtual", given);
    else
        snprintf(path, sizeof(path), "/dev/shm/softsim-%u.virtual", (unsigned int)getuid());
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return NULL;
    while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
        ;
    if (fstat(fd, &st) == 0 && (!st.st_size || (uint64_t)st.st_size == sizeof(*w)) &&
        (st.st_size || ftruncate(fd, sizeof(*w)) == 0))
        w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (w != MAP_FAILED)
        renew(w, needed);
    flock(fd, LOCK_UN);
    close(fd);
    return w == MAP_FAILED ? NULL : w;
}

/* A world that cannot be had must not look like one in which time is real. */
static void look_up(void)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    const char *text = getenv("SOFTSIM_VIRTUAL");
    unsigned int needed = text ? (unsigned int)strtoul(text, NULL, 10) : 0;

    pthread_mutex_lock(&once);
    if (!state && needed) {
        world = map(needed);
        if (!world || pthread_key_create(&ending, forget) || pthread_atfork(NULL, NULL, forked)) {
            dprintf(2, "libvirtualtime: no virtual time beside SOFTSIM_STATE: %s\n", strerror(errno));
            abort();
        }
    }
    if (!state)
        __atomic_store_n(&state, needed ? 2 : 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&once);
}

struct virtual_world *virtual_world(void)
{
    uint32_t known = __atomic_load_n(&state, __ATOMIC_ACQUIRE);

    if (!known) {
        int error = errno;

        look_up();
        errno = error;
        known = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
    }
    return known == 2 ? world : NULL;
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
    struct virtual_world *w = world;
    int error = errno;
    bool mine, woken = false;

    reads = 0;
    if (how == VIRTUAL_SLEEPS && alone_until(w, at))
        return false;
    lock(w);
    if (!self && !join(w)) {
        unlock(w);
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
        unlock(w);
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
    unlock(w);
    wait_turn(w);
    self->waits = VIRTUAL_SLEEPS;
    woken = self->woken;
    errno = error;
    return woken;
}

unsigned int virtual_wake(enum virtual_wait how, const uint32_t *word, unsigned int most)
{
    struct virtual_world *w = world;
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
    unlock(w);
    return count;
}

uint64_t virtual_read(void)
{
    struct virtual_world *w = world;

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
    unlock(w);
}

PUBLIC void virtual_enter(void)
{
    struct virtual_world *w = virtual_world();

    if (!w)
        return;
    lock(w);
    begin(w);
    unlock(w);
    virtual_wait(__atomic_load_n(&w->clock, __ATOMIC_SEQ_CST), VIRTUAL_SLEEPS, NULL, 0, NULL);
}

/* The process ends: none of its threads is given the baton any more. */
static void end(void)
{
    struct virtual_world *w = __atomic_load_n(&state, __ATOMIC_ACQUIRE) == 2 ? world : NULL;
    int32_t pid = getpid();

    if (!w)
        return;
    lock(w);
    for (unsigned int i = 0; i < w->rows_high; i++) {
        if (w->row[i].state == VIRTUAL_FREE || w->row[i].pid != pid)
            continue;
        w->row[i].state = VIRTUAL_GONE;
        if (w->holder < 0 || w->holder == (int32_t)i)
            pass(w);
    }
    unlock(w);
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
