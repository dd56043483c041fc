/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the driver's own functions. */
#include "real.h"

#include <dlfcn.h>
#include <stddef.h>

#include "dlsym.h"
#include "libc_versions.h"
#include "resolve.h"

static CUresult missing(void)
{
    return CUDA_ERROR_NOT_FOUND;
}

struct real_called called = {
#define CALLED(symbol)      .symbol = (__typeof__(&symbol))(void (*)(void))missing,
#define CALLED_NVML(symbol) .symbol = (__typeof__(&symbol))(void (*)(void))missing,
#include "called.def"
};

static const struct {
    const char *name;
    size_t offset;
    enum real_library library;
} called_rows[] = {
#define CALLED(symbol)      {#symbol, offsetof(struct real_called, symbol), REAL_CUDA},
#define CALLED_NVML(symbol) {#symbol, offsetof(struct real_called, symbol), REAL_NVML},
#include "called.def"
};

static const char *const sonames[] = {[REAL_CUDA] = "libcuda.so.1", [REAL_NVML] = "libnvidia-ml.so.1"};
static int bound[2]; /* set after the last store of real_bind() */

static void **slot(unsigned index)
{
    return (void **)&real + index;
}

static void store(void **to, void *function)
{
    __atomic_store_n(to, function, __ATOMIC_RELEASE);
}

static void real_bind(enum real_library library, void *handle)
{
    for (unsigned i = 0; i < resolve_rows; i++) {
        if (resolve_row[i].library != library)
            continue;
        void *function = dlsym_real(handle, resolve_row[i].symbol);
        /* A library of that name that only hands out our own exports would send every call round in a circle. */
        if (!function || function == hook_wrappers[i])
            function = (void *)missing;
        store(slot(i), function);
    }
    for (size_t i = 0; i < sizeof(called_rows) / sizeof(called_rows[0]); i++) {
        if (called_rows[i].library != library)
            continue;
        void *function = dlsym_real(handle, called_rows[i].name);
        if (function)
            store((void **)((char *)&called + called_rows[i].offset), function);
    }
    __atomic_store_n(&bound[library], 1, __ATOMIC_RELEASE);
}

static bool load(enum real_library library, int mode)
{
    if (__atomic_load_n(&bound[library], __ATOMIC_ACQUIRE))
        return true;
    /* The handle is kept: pointers into the library are handed out for ever. */
    void *handle = dlopen(sonames[library], RTLD_LAZY | RTLD_LOCAL | mode);
    if (!handle)
        return false;
    real_bind(library, handle);
    return true;
}

bool real_load(enum real_library library)
{
    return load(library, RTLD_NOLOAD);
}

bool real_load_nvml(void)
{
    static int absent;

    /* Once: each look goes through all of the search path, and what dlerror() has to tell this thread is the program's. */
    if (__atomic_load_n(&absent, __ATOMIC_RELAXED))
        return __atomic_load_n(&bound[REAL_NVML], __ATOMIC_ACQUIRE);
    if (load(REAL_NVML, 0))
        return true;
    dlerror();
    __atomic_store_n(&absent, 1, __ATOMIC_RELAXED);
    return false;
}

void *real_lookup(unsigned index)
{
    return real_load(resolve_row[index].library) ? __atomic_load_n(slot(index), __ATOMIC_ACQUIRE) : (void *)missing;
}

void *real_address(unsigned index)
{
    if (!real_load(resolve_row[index].library))
        return NULL;
    void *function = __atomic_load_n(slot(index), __ATOMIC_ACQUIRE);
    return function == (void *)missing ? NULL : function;
}
