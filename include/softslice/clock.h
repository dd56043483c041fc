/* SPDX-License-Identifier: Apache-2.0 */
/* The host's monotonic clock, the one that processes in different time namespaces have in common, and sleeping until a moment of it.
 *
 * Everything here goes through libc's clock_gettime() and syscall(SYS_futex, ...), so that a library in front of libc can put a clock of its own
 * in the place of the kernel's. */
#ifndef SOFTSLICE_CLOCK_H
#define SOFTSLICE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_NEVER UINT64_MAX

/* CLOCK_MONOTONIC in ns as the host's first time namespace has it. Any thread, before and after fork; keeps errno. A process that changes
 * its own time namespace while it runs goes on with the offset that it began with. */
uint64_t clock_now(void);

/* Sleep while *word is `seen`, until clock_now() is `until` (CLOCK_NEVER: however long that takes) at most. False where that moment has come; true
 * where there may be something to see: *word differs, somebody woke, a signal came. `shared`: the word is in memory that other processes map too.
 * No cancellation point; keeps errno. */
bool clock_wait(const uint32_t *word, uint32_t seen, uint64_t until, bool shared);

/* clock_wait() for two words at once: one of this process, and one in memory that other processes map too. Where the kernel cannot (before Linux 5.16,
 * or where a filter forbids it) true comes after a second at the latest, so that the caller looks at the other word then. */
bool clock_wait_two(const uint32_t *word, uint32_t seen, const uint32_t *shared, uint32_t shared_seen, uint64_t until);

/* Wake all who sleep on a word. Keeps errno. */
void clock_wake(uint32_t *word, bool shared);

#endif
