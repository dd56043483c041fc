/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual time for programs on the simulated GPU: what build/sim/libvirtualtime.so, preloaded, offers beyond what it stands in for.
 *
 * Time stands still while anybody runs, and jumps to the earliest sleeper when all sleep. Of all threads of all processes that take
 * part, one runs at a time: the one that has the baton. A thread takes part from its first virtual sleep or wait until it ends.
 *
 * A thread that is about to wait for another in a way that is not virtual (for a child, a pipe, a mutex that is long held) says so
 * with virtual_leave() and virtual_enter(), or everybody waits for more than a second of real time until it is found to block.
 * AddressSanitizer's runtime, preloaded before it, gets on with it; ThreadSanitizer's does not. */
#ifndef SIM_VIRTUAL_H
#define SIM_VIRTUAL_H

#include <stdint.h>

/* The virtual clock, in nanoseconds of CLOCK_MONOTONIC; 0: time is not virtual. Reading it passes no time. */
uint64_t virtual_now(void);
/* The calling thread works for so long: virtual time passes, other threads may run meanwhile. Nothing where time is not virtual. */
void virtual_spend(uint64_t ns);
/* The calling thread asks whether something has happened yet: where it does only that, time passes for it too. */
void virtual_poll(void);
/* The calling thread gives the baton up until it enters again. What it does in between takes no virtual time. Entering counts as the
 * beginning of its process. */
void virtual_leave(void);
void virtual_enter(void);

#endif
