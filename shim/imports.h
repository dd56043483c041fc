/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that another process, or another API, made and this one has open: IPC handles, external memory. It is its maker's charge. Here it is
 * remembered with its size and device, so that no free of it refunds anything, and so that what the driver's figure for this process has of it is
 * not charged a second time.
 *
 * When the maker lets go of it first, it is this process that holds it: then the driver's figure grows by it, and the next reading of the gap
 * charges that. A figure that counts opened memory from the start, which is tried at the first opening, does not show that moment. */
#ifndef SOFTSLICE_SHIM_IMPORTS_H
#define SOFTSLICE_SHIM_IMPORTS_H

#include <stdbool.h>

#include "process.h"

/* An opening; lives on the wrapper's stack. */
struct opening {
    struct membership *membership; /* NULL: nothing to remember */
    uint64_t owner, endings;
    int device;
    bool tried;  /* the figure was read before it */
    bool marked; /* readings of the gap are off until it is entered */
    uint64_t figure, own;
};
void opening_begin(struct opening *opening);

/* `key`, a pointer or handle, is open once more. `bytes` of the current context's device, or 0: a pointer, of which the driver tells both. */
void opening_end(struct opening *opening, CUresult result, uint64_t key, uint64_t bytes);

/* The same around cuMemImportFromShareableHandle and, of what that gave, the first cuMemMap, which tells its `bytes` (0: not known yet). Nothing is
 * entered: shim/virtual.c has the handle. Whether the driver's figure counts such memory. */
void sharing_begin(struct opening *opening);
bool sharing_end(struct opening *opening, CUresult result, int device, uint64_t bytes);

/* A closing: one opening less before the driver is asked, and one more if it refuses. */
struct closing {
    struct membership *membership;
    struct record count, size;
    bool counted, last;
};
void closing_begin(struct closing *closing, uint64_t key);
void closing_end(struct closing *closing, CUresult result);

/* A context ended, and with it what was opened in it. */
void imports_drop(struct membership *membership, uint64_t owner);

/* Bytes of a quota device that are open here, each once however often it was opened. Looks at all of them. */
uint64_t imports_bytes(unsigned device);

#endif
