/* SPDX-License-Identifier: Apache-2.0 */
/* Physical allocations and their budget: what hooks/vmm.c and hooks/multicast.c have in common. */
#ifndef SOFTSLICE_SHIM_VIRTUAL_H
#define SOFTSLICE_SHIM_VIRTUAL_H

#include "process.h"

/* A cuMemCreate between asking and keeping; lives on the wrapper's stack. */
struct creating {
    struct membership *membership; /* NULL: the driver answers by itself */
    int device;                    /* PROCESS_NO_DEVICE: not on a GPU, costs nothing */
    unsigned attempt;
    bool trial;      /* not reserved, for the driver will refuse in its own words; if it does not, we do */
    uint64_t bytes;  /* whole granules */
    uint64_t asleep; /* of these, charged already: shim/asleep.h */
    struct quota_charge charge;
};

/* Ask for `size` on the device of prop->location. CUDA_SUCCESS: call the driver, then creating_end(). Else the answer for the program. */
CUresult creating_begin(struct creating *creating, size_t size, const CUmemAllocationProp *prop, unsigned long long flags);

/* Whether the driver's CUDA_ERROR_OUT_OF_MEMORY is worth asking again. */
bool creating_again(struct creating *creating, CUresult result);

/* Keep the charge under `handle` if the driver made it. False, with the charge given back: release it and answer CUDA_ERROR_OUT_OF_MEMORY. */
bool creating_end(struct creating *creating, CUresult result, uint64_t handle);

/* A handle that costs this process nothing was made (a multicast object, PROCESS_NO_DEVICE) or came from another process (imported). False: no
 * host memory for it; release it. */
bool virtual_enter(CUmemGenericAllocationHandle handle, int device);

/* An array ended whose record in process_handles() has this number as its bytes: it holds nothing any more. */
void virtual_drop(uint64_t number);

/* How this process's physical allocations are used, with the refund of those that end. False: there are none, only forward. */
bool virtual_use(struct phys_use *use);

#endif
