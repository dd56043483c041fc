/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that asked the driver to be told when they are over their memory budget are told of ours too. */
#ifndef SOFTSLICE_SHIM_NOTIFY_H
#define SOFTSLICE_SHIM_NOTIFY_H

#include "process.h"

/* Remember what the driver registered. Without room it stays the driver's alone. */
void notify_register(CUdevice device, CUasyncCallback function, void *data, CUasyncCallbackHandle handle);

/* Before the driver unregisters: from the return on, the function is not called any more. Returns what notify_restore() wants if the driver
 * refuses, NULL where the handle is not known; notify_forget() if it did it. */
struct notice *notify_withdraw(CUdevice device, CUasyncCallbackHandle handle);
void notify_restore(struct notice *notice);
void notify_forget(struct notice *notice);

/* Whether this thread is in a function that is being told: it may neither register nor unregister. */
bool notify_telling(void);

/* Tell everybody who registered for the device that the tenant is `bytes` over its limit: each once, until it was not over (0) for a look.
 * Calls the program's functions on this thread, which holds no lock and is in no call of the program's: only for our own thread. */
void notify_over_budget(struct membership *membership, unsigned device, uint64_t bytes);

/* The same with what the ledger says now. Costs nothing where nobody registered. */
void notify_look(struct membership *membership, unsigned device);

#endif
