/* SPDX-License-Identifier: Apache-2.0 */
/* A mutex of four bytes on a futex. Zero is unlocked, so memory that is wiped at fork holds no lock; pthread's would pull in newer
 * symbols of glibc and knows nothing of that. For sections of nanoseconds: never hold one across a callback or a driver call. */
#ifndef SOFTSLICE_CORE_LOCK_H
#define SOFTSLICE_CORE_LOCK_H

#include <errno.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOCK_FREE, LOCK_HELD, LOCK_CONTENDED };

static inline bool lock_try(uint32_t *lock)
{
    uint32_t expected = LOCK_FREE;

    return __atomic_compare_exchange_n(lock, &expected, LOCK_HELD, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* A futex call that fails (the value changed, a signal came) only means "look again"; errno belongs to the program. */
static inline void lock_futex(uint32_t *lock, int operation, uint32_t value)
{
    int saved = errno;

    syscall(SYS_futex, lock, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
    errno = saved;
}

static inline void lock_take(uint32_t *lock)
{
    if (lock_try(lock))
        return;
    for (unsigned i = 0; i < 64; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
        if (__atomic_load_n(lock, __ATOMIC_RELAXED) == LOCK_FREE && lock_try(lock))
            return;
    }
    while (__atomic_exchange_n(lock, LOCK_CONTENDED, __ATOMIC_ACQUIRE) != LOCK_FREE)
        lock_futex(lock, FUTEX_WAIT, LOCK_CONTENDED);
}

static inline void lock_give(uint32_t *lock)
{
    if (__atomic_exchange_n(lock, LOCK_FREE, __ATOMIC_RELEASE) == LOCK_CONTENDED)
        lock_futex(lock, FUTEX_WAKE, 1);
}

#endif
