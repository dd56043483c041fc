/* SPDX-License-Identifier: Apache-2.0 */
/* cuGetProcAddress by the driver's rules, the table of symbols behind it, and cuGetExportTable. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include <cudaProfiler.h>

#define SYM(base, symbol, since, ptx) extern const char softsim_alt_##symbol[];
#include "symbols.def"
#undef SYM

struct row {
    const char *base;
    const char *symbol;
    int since;
    int per_thread;
    void *address;
    const void *other;
};

#define SYM(base, symbol, since, ptx) {#base, #symbol, since, ptx, (void *)symbol, softsim_alt_##symbol},
static const struct row table[] = {
#include "symbols.def"
};
#undef SYM

extern int (*const sim_stub_of[])(void);

static bool alt_addresses(void)
{
    static int known = -1; /* atomic */
    int alt = __atomic_load_n(&known, __ATOMIC_RELAXED);

    if (alt < 0) {
        const char *text = getenv("SOFTSIM_ALT_ADDRESSES");

        alt = text && strcmp(text, "1") == 0;
        __atomic_store_n(&known, alt, __ATOMIC_RELAXED);
    }
    return alt;
}

/* A driver answers with the newest ABI of the base name that is not newer than what was asked for; in the per-thread view only
 * per-thread symbols count where the base has any. A driver older than a symbol has never heard of it. */
static const struct row *choose(const char *base, unsigned int version, bool per_thread, bool *known)
{
    const struct row *best = NULL;
    bool has_per_thread = false;
    int driver = sim_driver_version();

    *known = false;
    for (size_t i = 0; i < SIM_ARRAY_SIZE(table); i++) {
        if (table[i].since > driver || strcmp(table[i].base, base) != 0)
            continue;
        *known = true;
        has_per_thread |= table[i].per_thread;
    }
    if (!*known)
        return NULL;
    for (size_t i = 0; i < SIM_ARRAY_SIZE(table); i++) {
        const struct row *r = &table[i];

        if (r->since > driver || (unsigned int)r->since > version || r->per_thread != (per_thread && has_per_thread))
            continue;
        if (strcmp(r->base, base) == 0 && (!best || r->since > best->since))
            best = r;
    }
    return best;
}

/* A version above the driver's own, -1 among them, means the newest, and both flags together are accepted (measured on driver files),
 * as the first of them (assumed). */
static CUresult look_up(const char *symbol, void **pfn, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
    const struct row *r;
    bool known;

    if (!symbol || !pfn || flags > (CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM))
        return CUDA_ERROR_INVALID_VALUE;
    r = choose(symbol, (unsigned int)version, flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, &known);
    *pfn = NULL;
    if (r)
        *pfn = alt_addresses() ? (void *)(uintptr_t)r->other : r->address;
    if (status)
        *status = r       ? CU_GET_PROC_ADDRESS_SUCCESS
                  : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                          : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return CUDA_SUCCESS;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *symbolStatus)
{
    ENTER_EARLY();
    return look_up(symbol, pfn, cudaVersion, flags, symbolStatus);
}

/* The first ABI has no status to tell a miss by, so it is an error, which leaves *pfn alone. */
CUresult cuGetProcAddress(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags)
{
    void *found;
    CUresult r;

    ENTER_EARLY();
    r = look_up(symbol, pfn ? &found : NULL, cudaVersion, flags, NULL);
    if (r == CUDA_SUCCESS && !found)
        return CUDA_ERROR_NOT_FOUND;
    if (r == CUDA_SUCCESS)
        *pfn = found;
    return r;
}

/* No private table exists here. The runtime's validity handshake goes through them, and it is not this driver's to answer. */
CUresult cuGetExportTable(const void **ppExportTable, const CUuuid *pExportTableId)
{
    ENTER_EARLY();
    (void)pExportTableId;
    if (ppExportTable)
        *ppExportTable = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

/* With SOFTSIM_LIST=path: the symbols without a model, one a line, when the library is loaded. */
__attribute__((constructor)) static void list_stubs(void)
{
    const char *path = getenv("SOFTSIM_LIST");
    FILE *out = path && *path ? fopen(path, "we") : NULL;

    if (!out)
        return;
    for (size_t i = 0; i < SIM_ARRAY_SIZE(table); i++)
        if (table[i].address == (void *)sim_stub_of[i])
            fprintf(out, "%s\n", table[i].symbol);
    fclose(out);
}
