/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual clock and who takes part in it, in one file mapped by all of them.
 *
 * Contract. The lock is robust, and held for some hundred nanoseconds. Each row's `life` is a robust mutex that its thread holds for as
 * long as it takes part, so the kernel tells who is dead. Whoever has the baton may move the clock without the lock, up to `pressing`. */
#ifndef SIM_VIRTUAL_WORLD_H
#define SIM_VIRTUAL_WORLD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define VIRTUAL_ROWS  2048
#define VIRTUAL_MAGIC UINT64_C(0x31656d69745f7476)
#define VIRTUAL_NEVER UINT64_MAX
#define VIRTUAL_STEP  1000 /* ns that pass for who yields, or sleeps for no time */

/* NEW: a thread that was just created; nobody is given the baton until it first waits, so that no time passes before. AWAY: has left, or was
 * found blocked or stopped with the baton. GONE: its process ends, the row is free once the thread is dead. */
enum virtual_state { VIRTUAL_FREE, VIRTUAL_NEW, VIRTUAL_IN, VIRTUAL_AWAY, VIRTUAL_GONE };
enum virtual_wait { VIRTUAL_SLEEPS, VIRTUAL_WAITS_PRIVATE, VIRTUAL_WAITS_SHARED, VIRTUAL_JOINS };

struct virtual_row {
    pthread_mutex_t life;
    uint32_t state;
    uint32_t go;    /* a futex: it has been given the baton */
    uint32_t waits; /* an enum virtual_wait */
    uint32_t woken;
    uint32_t locks; /* it waits for the world's lock */
    int32_t pid, tid;
    uint64_t thread;        /* a pthread_t of the process */
    uint64_t order;         /* among those that are due at one moment: first by this, then by thread */
    uint64_t at;            /* when it can run next */
    uint64_t word;          /* the futex word that it waits on */
    uint32_t blocked_grant; /* w->grants when it was seen blocked, and since when (real time; 0: was not) */
    uint64_t blocked_ns;
    uint64_t blocked_ran; /* how long it had run by then */
};

struct virtual_world {
    uint64_t magic;
    uint64_t bytes;
    pthread_mutex_t lock;
    uint64_t clock;
    uint64_t pressing; /* when anybody else than the holder could run next */
    int32_t holder;    /* the row that has the baton, or -1 */
    uint32_t grants;
    uint32_t needed; /* processes that must have begun */
    uint32_t begun;
    uint32_t started;
    uint32_t rows_high;
    struct virtual_row row[VIRTUAL_ROWS];
};

/* The world, or NULL where time is real; mapped at the first call. */
struct virtual_world *virtual_world(void);
/* Whether waiting is virtual: no more once the process ends. */
bool virtual_waits(void);
/* The world once mapped. */
extern struct virtual_world *virtual_shared;
/* Called once when it was; false: failed. */
bool virtual_prepare(void);

void virtual_lock(struct virtual_world *w);
void virtual_unlock(struct virtual_world *w);
void virtual_robust(pthread_mutex_t *mutex);
/* Lock held: whether a row's thread, one that has a row of its own already, has died. */
bool virtual_dead(struct virtual_row *r);
/* R, S, D, T and so on, of the thread, or of the process' first one where it is not known yet; 0 where it cannot be read. */
char virtual_thread_state(const struct virtual_row *r);
/* How long it has run so far, in ns; 0 where that cannot be told. */
uint64_t virtual_thread_ran(const struct virtual_row *r);
uint64_t virtual_real_now(void);

/* The calling thread can go on at `at`, or earlier if it waits and is woken. Returns whether it was woken. `word` is what it waits on, and
 * the wait ends at once, *changed, when that does not hold `seen` any more. */
bool virtual_wait(uint64_t at, enum virtual_wait how, uint32_t *word, uint32_t seen, bool *changed);
/* Let who waits on a word go on; returns how many. */
unsigned int virtual_wake(enum virtual_wait how, const uint32_t *word, unsigned int most);
/* A row for a thread that is about to be created; NULL: it will take part from its first wait on. The thread then takes it, and its
 * creator says which it is. */
struct virtual_row *virtual_expect(void);
void virtual_born(struct virtual_row *row);
void virtual_named(struct virtual_row *row, uint64_t thread);
void virtual_unborn(struct virtual_row *row);
/* Before a thread is joined: wait until it has ended, or is about to. */
void virtual_join(uint64_t thread);
/* A reading of the clock that passes time for who does nothing else. */
uint64_t virtual_read(void);

#endif
