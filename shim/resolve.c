/* SPDX-License-Identifier: Apache-2.0 */
/* Finds our wrapper for a driver function, by name or by address. */
#include "resolve.h"

#include <stddef.h>
#include <string.h>

#include "arm.h"
#include "softslice/log.h"

#define VRAM    RESOLVE_VRAM
#define COMPUTE RESOLVE_COMPUTE
#define ANY     RESOLVE_ANY
const struct resolve_row resolve_row[] = {
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) {#base, #symbol, since, per_thread, arm, REAL_CUDA},
#include "hooks.def"
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) {#base, #symbol, since, per_thread, arm, REAL_NVML},
#include "nvml.def"
};
#undef VRAM
#undef COMPUTE
#undef ANY
const unsigned resolve_rows = sizeof(resolve_row) / sizeof(resolve_row[0]);

static unsigned unknown;

bool resolve_armed(unsigned arm)
{
    return arm_dimensions() & arm;
}

int resolve_name(const char *name)
{
    bool cuda = name[0] == 'c' && name[1] == 'u' && name[2] >= 'A' && name[2] <= 'Z';
    bool nvml = name[0] == 'n' && name[1] == 'v' && name[2] == 'm' && name[3] == 'l';

    if (!cuda && !nvml)
        return -1;
    for (unsigned i = 0; i < resolve_rows; i++)
        if (strcmp(resolve_row[i].symbol, name) == 0)
            return (int)i;
    return -1;
}

void *resolve_answer(int index, void *address)
{
    if (!address || !resolve_armed(resolve_row[index].arm))
        return address;
    return address == real_address((unsigned)index) || address == hook_wrappers[index] ? hook_wrappers[index] : address;
}

/* What the driver's rule picks for a base: the newest ABI that is not newer than `version`, among the per-thread variants where those are
 * asked for and exist, else among the others. Decides only between rows that share one address. */
static int newest(const char *base, int version, bool per_thread, const void *address)
{
    int best = -1;

    for (unsigned i = 0; i < resolve_rows; i++) {
        const struct resolve_row *row = &resolve_row[i];
        if (row->library != REAL_CUDA || row->per_thread != per_thread || row->since > version || strcmp(row->base, base) != 0 ||
            real_address(i) != address)
            continue;
        if (best < 0 || row->since > resolve_row[best].since)
            best = (int)i;
    }
    return best;
}

static void *wrapper_of(unsigned index)
{
    return resolve_armed(resolve_row[index].arm) ? hook_wrappers[index] : NULL;
}

/* The driver's answer for one row when asked as the row says. */
static void *asked(const struct resolve_row *row)
{
    cuuint64_t flags = row->per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : CU_GET_PROC_ADDRESS_DEFAULT;
    CUdriverProcAddressQueryResult status;
    void *function = NULL;
    CUresult result = real.cuGetProcAddress_v2(row->base, &function, row->since, flags, &status);

    if (result == CUDA_ERROR_NOT_FOUND && !function) /* a driver before 12.0 has only the first one */
        result = real.cuGetProcAddress(row->base, &function, row->since, flags);
    return result == CUDA_SUCCESS ? function : NULL;
}

void *resolve_proc_address(const char *base, void *address, int version, cuuint64_t flags)
{
    bool per_thread = flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    bool listed = false;
    int match = -1, matches = 0;

    if (!base || !address)
        return address;
    for (unsigned i = 0; i < resolve_rows; i++) {
        if (resolve_row[i].library != REAL_CUDA || strcmp(resolve_row[i].base, base) != 0)
            continue;
        listed = true;
        if (address == hook_wrappers[i])
            return address; /* the driver's own look-ups can be interposed: it is ours already */
        if (address == real_address(i)) {
            match = (int)i;
            matches++;
        }
    }
    if (!listed)
        return address;
    if (matches > 1) {
        int choice = newest(base, version, per_thread, address);
        if (choice < 0)
            choice = newest(base, version, !per_thread, address);
        if (choice >= 0)
            match = choice;
    }
    if (match < 0) {
        /* The driver's two roads give different addresses: ask it for each known ABI of this base the other way. */
        for (unsigned i = 0; i < resolve_rows && match < 0; i++)
            if (resolve_row[i].library == REAL_CUDA && strcmp(resolve_row[i].base, base) == 0 && asked(&resolve_row[i]) == address)
                match = (int)i;
    }
    if (match < 0) {
        if (__atomic_fetch_add(&unknown, 1, __ATOMIC_RELAXED) == 0)
            log_info("the driver's %s for CUDA %d is a version that softslice does not know: passed on", base, version);
        return address;
    }
    void *wrapper = wrapper_of((unsigned)match);
    return wrapper ? wrapper : address;
}

unsigned resolve_unknown(void)
{
    return __atomic_load_n(&unknown, __ATOMIC_RELAXED);
}

bool resolve_can_hold(void)
{
    static const char base[] = "cuMemAlloc";
    int index = resolve_name("cuMemAlloc_v2");
    void *function = asked(&resolve_row[index]);

    if (!function)
        return real_address((unsigned)index) != NULL; /* a driver without cuGetProcAddress: dlsym is the only road */
    return resolve_proc_address(base, function, resolve_row[index].since, 0) == hook_wrappers[index];
}
