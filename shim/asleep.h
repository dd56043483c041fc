/* SPDX-License-Identifier: Apache-2.0 */
/* keep_asleep = on: what a process released of its virtual memory, while it keeps the addresses, stays charged as a reservation of its own. A
 * program that sleeps so (vLLM's sleep mode, torch_memory_saver) takes waking up for granted; another tenant's process must not have taken it. */
#ifndef SOFTSLICE_SHIM_ASLEEP_H
#define SOFTSLICE_SHIM_ASLEEP_H

#include "process.h"

/* Whether the setting is on. */
bool asleep_wanted(void);

/* An allocation ended that was mapped at `address` last: keep its charge. False: it could not be remembered, refund it. Called under the lock of
 * the physical allocations. */
bool asleep_keep(int device, uint64_t address, uint64_t bytes);

/* Use up to `bytes` of what is kept for a new allocation; they are charged already. Returns how many: asleep_used()
 * when the driver has made it, asleep_return() if it refuses. */
uint64_t asleep_use(int device, uint64_t bytes);
void asleep_used(int device, uint64_t bytes);
void asleep_return(int device, uint64_t bytes);

/* What is charged on a device and not taken from the driver, and what may or may not have been taken already. */
uint64_t asleep_bytes(int device, uint64_t *waking);

/* Something is mapped again at an address: what was kept for it has been used. */
void asleep_woken(uint64_t address, uint64_t size);

/* The addresses were freed: what was kept for them, and is not used, goes back to the budget. */
void asleep_forget(struct membership *membership, uint64_t address, uint64_t size);

#endif
