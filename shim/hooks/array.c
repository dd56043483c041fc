/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays and mipmapped arrays. What one takes is told by no argument. A twin of it without memory is, where the device can make one, so it
 * is made, asked and destroyed first; else the description has to do. */
#include "../array_size.h"
#include "../bucket.h"
#include "../context.h"
#include "../guard.h"
#include "../relaxed.h"
#include "../take.h"

/* Arrays that take nothing when they are made: what is mapped into them later is charged where it was made, and held until they end. */
#define WITHOUT_MEMORY (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)

/* A creation between asking and keeping. */
struct making {
    struct membership *membership; /* NULL: nothing to charge */
    uint64_t owner, endings, bytes;
    unsigned device, attempt;
    bool small; /* in `bucket`, else in `charge` */
    bool empty; /* without memory: what is mapped into it later is told from the record's number */
    bool whole; /* and is mapped into all of it */
    bool trial; /* not reserved, for the driver will refuse in its own words; if it does not, we do */
    struct quota_charge charge;
    struct bucket bucket;
};

/* Ask the driver about the twin. CUDA_SUCCESS with its size; else why there is none. */
static CUresult ask_twin(const CUDA_ARRAY3D_DESCRIPTOR *description, unsigned levels, CUdevice device, uint64_t *bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR twin = *description;
    CUDA_ARRAY_MEMORY_REQUIREMENTS needs = {0};
    CUmipmappedArray mipmap;
    CUarray array;
    CUresult result;
    int offered = 0;

    result = called.cuDeviceGetAttribute(&offered, CU_DEVICE_ATTRIBUTE_DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED, device);
    if (result != CUDA_SUCCESS || !offered)
        return CUDA_ERROR_NOT_SUPPORTED;
    twin.Flags |= CUDA_ARRAY3D_DEFERRED_MAPPING;
    CUstreamCaptureMode mode = relaxed_enter();
    if (levels && (result = real.cuMipmappedArrayCreate(&mipmap, &twin, levels)) == CUDA_SUCCESS) {
        result = called.cuMipmappedArrayGetMemoryRequirements(&needs, mipmap, device);
        real.cuMipmappedArrayDestroy(mipmap);
    } else if (!levels && (result = real.cuArray3DCreate_v2(&array, &twin)) == CUDA_SUCCESS) {
        result = called.cuArrayGetMemoryRequirements(&needs, array, device);
        real.cuArrayDestroy(array);
    }
    relaxed_leave(mode);
    *bytes = needs.size;
    return result == CUDA_SUCCESS && !needs.size ? CUDA_ERROR_UNKNOWN : result;
}

/* Reserve what it takes. False: over the budget. */
static bool reserve(struct making *making, const CUDA_ARRAY3D_DESCRIPTOR *description, unsigned levels)
{
    struct membership *m = making->membership;
    const struct quota_device *device = &m->quota.device[making->device];
    uint64_t exact;

    making->bytes = array_size(description, levels);
    making->small = slabs_is_small(making->bytes, device->granule);
    if (making->small)
        return bucket_begin(m, &making->bucket, making->owner, making->device, making->bytes);
    CUresult twin = ask_twin(description, levels, m->device[making->device], &exact);
    if (twin == CUDA_SUCCESS)
        making->bytes = exact;
    /* More than the card has, or nothing that the driver makes: its refusal is more to the point than ours. */
    making->trial = making->bytes > device->id.physical ||
                    (twin == CUDA_ERROR_INVALID_VALUE &&
                     !quota_try_reserve(&m->quota, &making->charge, making->device, making->bytes, QUOTA_ARRAY));
    return making->trial || making->charge.bytes || take_reserve(m, &making->charge, making->device, making->bytes, QUOTA_ARRAY);
}

/* CUDA_SUCCESS: call the driver, then making_end(). Else the answer for the program. `description` NULL: the driver will refuse. */
static CUresult making_begin(struct making *making, const CUDA_ARRAY3D_DESCRIPTOR *description, unsigned levels)
{
    CUresult why = CUDA_SUCCESS;
    int device;

    *making = (struct making){0};
    struct membership *m = process_membership(&why);
    if (!m && why == CUDA_ERROR_OPERATING_SYSTEM)
        return why;
    making->endings = context_endings();
    if (m && description && description->Width && context_current(m, &making->owner, &device)) {
        making->membership = m;
        making->device = (unsigned)device;
        making->empty = description->Flags & WITHOUT_MEMORY;
        making->whole = description->Flags & CUDA_ARRAY3D_DEFERRED_MAPPING;
    }
    guard_enter();
    if (making->membership && !making->empty && !reserve(making, description, levels)) {
        guard_leave();
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

static bool making_again(struct making *making, CUresult result)
{
    return result == CUDA_ERROR_OUT_OF_MEMORY && making->membership && !making->trial && !making->empty &&
           quota_retry_oom(&making->membership->quota, making->device, &making->attempt);
}

/* Keep the charge under `handle` if the driver made it. False: destroy it and answer CUDA_ERROR_OUT_OF_MEMORY. */
static bool making_end(struct making *making, CUresult result, const void *handle)
{
    struct membership *m = making->membership;
    struct record record = {.key = (uint64_t)(uintptr_t)handle, .context = making->owner};

    guard_leave();
    if (!m)
        return true;
    if (result != CUDA_SUCCESS) {
        if (making->small)
            bucket_cancel(m, &making->bucket);
        else
            quota_cancel(&m->quota, &making->charge);
        return true;
    }
    if (making->trial) {
        quota_refuse(&m->quota, making->device, making->bytes, QUOTA_ARRAY);
        return false;
    }
    if (making->empty)
        record = (struct record){.key = record.key,
                                 .context = making->owner,
                                 .bytes = process_new_owner(), /* virtual_drop() */
                                 .device = (uint16_t)making->device,
                                 .family = QUOTA_VMM,
                                 .small = making->whole};
    else if (making->small)
        bucket_keep(m, &making->bucket, &record);
    else
        quota_keep(&m->quota, &making->charge, 0, &record);
    return take_enter(m, process_handles(), &record, making->endings);
}

/* A creation: the output is ours until it is kept, and the program's value stands in it for the driver to leave alone. */
#define CREATE(symbol, handle_type, parameters, description, levels, undo, given, ours)                                            \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct making making;                                                                                                      \
        handle_type made = pHandle ? *pHandle : NULL;                                                                              \
        CUresult result;                                                                                                           \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol given;                                                                                              \
        if ((result = making_begin(&making, pHandle && array ? description : NULL, levels)) != CUDA_SUCCESS)                       \
            return result;                                                                                                         \
        do                                                                                                                         \
            result = real.symbol ours;                                                                                             \
        while (making_again(&making, result));                                                                                     \
        if (!making_end(&making, result, made)) {                                                                                  \
            real.undo(made);                                                                                                       \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                                       \
        }                                                                                                                          \
        if (pHandle)                                                                                                               \
            *pHandle = made;                                                                                                       \
        return result;                                                                                                             \
    }

/* The program's description, as the widest of its forms. */
#define FLAT                                                                                                                       \
    (&(CUDA_ARRAY3D_DESCRIPTOR){                                                                                                   \
        .Width = array->Width, .Height = array->Height, .Format = array->Format, .NumChannels = array->NumChannels})
#define SOLID                                                                                                                      \
    (&(CUDA_ARRAY3D_DESCRIPTOR){.Width = array->Width,                                                                             \
                                .Height = array->Height,                                                                           \
                                .Depth = array->Depth,                                                                             \
                                .Format = array->Format,                                                                           \
                                .NumChannels = array->NumChannels,                                                                 \
                                .Flags = array->Flags})

CREATE(cuArrayCreate_v2, CUarray, (CUarray * pHandle, const CUDA_ARRAY_DESCRIPTOR *array), FLAT, 0, cuArrayDestroy,
       (pHandle, array), (pHandle ? &made : NULL, array))
CREATE(cuArrayCreate, CUarray, (CUarray * pHandle, const CUDA_ARRAY_DESCRIPTOR_v1 *array), FLAT, 0, cuArrayDestroy,
       (pHandle, array), (pHandle ? &made : NULL, array))
CREATE(cuArray3DCreate_v2, CUarray, (CUarray * pHandle, const CUDA_ARRAY3D_DESCRIPTOR *array), SOLID, 0, cuArrayDestroy,
       (pHandle, array), (pHandle ? &made : NULL, array))
CREATE(cuArray3DCreate, CUarray, (CUarray * pHandle, const CUDA_ARRAY3D_DESCRIPTOR_v1 *array), SOLID, 0, cuArrayDestroy,
       (pHandle, array), (pHandle ? &made : NULL, array))
CREATE(cuMipmappedArrayCreate, CUmipmappedArray,
       (CUmipmappedArray * pHandle, const CUDA_ARRAY3D_DESCRIPTOR *array, unsigned int levels), SOLID, levels ? levels : 1,
       cuMipmappedArrayDestroy, (pHandle, array, levels), (pHandle ? &made : NULL, array, levels))

#define DESTROY(symbol, handle_type)                                                                                               \
    CUresult symbol(handle_type handle)                                                                                            \
    {                                                                                                                              \
        struct give give;                                                                                                          \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol(handle);                                                                                            \
        give_begin_handle(&give, handle);                                                                                          \
        CUresult result = real.symbol(handle);                                                                                     \
        give_end(&give, result);                                                                                                   \
        return result;                                                                                                             \
    }

DESTROY(cuArrayDestroy, CUarray)
DESTROY(cuMipmappedArrayDestroy, CUmipmappedArray)
