/* SPDX-License-Identifier: Apache-2.0 */
/* Are the addresses that cuGetProcAddress gives those that dlsym gives, for every known symbol?
 * Which names share an address, which does the driver have that the list lacks, and does the
 * selection rule (largest `since` not above the version, per-thread variants apart) hold?
 * Works without a GPU: the look-up needs no cuInit. */
#include "probe.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct symbol {
    const char *base, *name;
    int since, per_thread;
    void *addr;
};

static struct symbol table[] = {
#define SYM(base, name, since, per_thread) {#base, #name, since, per_thread, NULL},
#include "../../sim/symbols.def"
#undef SYM
};
#define NTABLE (sizeof(table) / sizeof(table[0]))

static int driver_version;
static const char *stage;

static void fact(const char *key, const char *text)
{
    char name[64];

    snprintf(name, sizeof(name), "%s.%s", stage, key);
    probe_row(name, "%s", text);
}

static void count(const char *key, unsigned long n)
{
    char text[32];

    snprintf(text, sizeof(text), "%lu", n);
    fact(key, text);
}

static CUresult look_up(const char *base, int version, cuuint64_t flags, void **fn, CUdriverProcAddressQueryResult *status)
{
    *fn = NULL;
    *status = (CUdriverProcAddressQueryResult)-1;
    if (cu.cuGetProcAddress_v2)
        return cu.cuGetProcAddress_v2(base, fn, version, flags, status);
    return cu.cuGetProcAddress(base, fn, version, flags);
}

static const char *name_of(const void *addr)
{
    static char text[64];

    for (size_t i = 0; addr && i < NTABLE; i++) {
        if (table[i].addr == addr)
            return table[i].name;
    }
    snprintf(text, sizeof(text), "%p", addr);
    return text;
}

/* dlsym's address of each symbol against cuGetProcAddress's at the version that introduced it. */
static void identity(void)
{
    CUdriverProcAddressQueryResult status;
    unsigned long same = 0, differ = 0, absent = 0, only_look_up = 0, later = 0;
    char text[256];
    void *fn;

    for (size_t i = 0; i < NTABLE; i++) {
        struct symbol *s = &table[i];

        s->addr = dlsym(probe_libcuda, s->name);
        if (s->since > driver_version) {
            later++;
            if (s->addr)
                fact("newer_than_driver_yet_exported", s->name);
            continue;
        }
        CUresult res = look_up(s->base, s->since, s->per_thread ? 2 : 0, &fn, &status);
        if (!s->addr) {
            absent++;
            fact("not_exported", s->name);
            if (res == CUDA_SUCCESS && fn) {
                only_look_up++;
                fact("not_exported_but_looked_up", s->name);
            }
        } else if (res == CUDA_SUCCESS && fn == s->addr) {
            same++;
        } else {
            differ++;
            snprintf(text, sizeof(text), "%s since %d: %s, status %d, %s", s->name, s->since, probe_result(res), (int)status,
                     name_of(fn));
            fact("differs", text);
        }
    }
    count("known", NTABLE);
    count("introduced_after_this_driver", later);
    count("same_address", same);
    count("different_address", differ);
    count("not_exported_total", absent);
    count("not_exported_but_looked_up_total", only_look_up);
}

/* Whose functions are these: the driver's, or a preloaded library's? */
static void owners(void)
{
    const char *seen[8];
    unsigned long counts[8];
    int n = 0;

    for (size_t i = 0; i < NTABLE; i++) {
        Dl_info info;
        int k = 0;

        if (!table[i].addr || !dladdr(table[i].addr, &info))
            continue;
        while (k < n && strcmp(seen[k], info.dli_fname))
            k++;
        if (k == n && n < 8) {
            seen[n] = info.dli_fname;
            counts[n++] = 0;
        }
        if (k < n)
            counts[k]++;
    }
    for (int k = 0; k < n; k++) {
        const char *slash = strrchr(seen[k], '/');
        char text[256];

        snprintf(text, sizeof(text), "%s %lu", slash ? slash + 1 : seen[k], counts[k]);
        fact("functions_of", text);
    }
}

static void aliases(void)
{
    char text[256];
    unsigned long n = 0;

    for (size_t i = 0; i < NTABLE; i++) {
        for (size_t j = i + 1; table[i].addr && j < NTABLE; j++) {
            if (table[j].addr != table[i].addr)
                continue;
            snprintf(text, sizeof(text), "%s %s", table[i].name, table[j].name);
            fact("same_address_as", text);
            n++;
        }
    }
    count("pairs_that_share_an_address", n);
}

/* The rule: among the variants of the asked kind the largest `since` not above the version. */
static const struct symbol *predict(const char *base, int version, int flags)
{
    const struct symbol *best = NULL;
    int per_thread = 0;

    for (size_t i = 0; flags == 2 && i < NTABLE; i++)
        per_thread |= table[i].per_thread && !strcmp(table[i].base, base);
    for (size_t i = 0; i < NTABLE; i++) {
        const struct symbol *s = &table[i];

        if (strcmp(s->base, base) || s->per_thread != per_thread || s->since > version)
            continue;
        if (!best || s->since > best->since)
            best = s;
    }
    return best;
}

static int distinct_versions(int *v)
{
    int n = 0;

    for (size_t i = 0; i <= NTABLE; i++) {
        int version = i < NTABLE ? table[i].since : driver_version, seen = 0;

        for (int k = 0; k < n; k++)
            seen |= v[k] == version;
        if (!seen && version <= driver_version)
            v[n++] = version;
    }
    return n;
}

static void rule(void)
{
    static int versions[NTABLE + 1];
    int n = distinct_versions(versions);
    unsigned long cells = 0, wrong = 0;
    CUdriverProcAddressQueryResult status;
    char text[256];
    void *fn;

    for (size_t i = 0; i < NTABLE; i++) {
        if (i && !strcmp(table[i].base, table[i - 1].base))
            continue;
        for (int flags = 0; flags < 3; flags++) {
            for (int k = 0; k < n; k++) {
                const struct symbol *want = predict(table[i].base, versions[k], flags);
                CUresult res = look_up(table[i].base, versions[k], (cuuint64_t)flags, &fn, &status);

                cells++;
                if (want ? want->addr == fn : !fn)
                    continue;
                wrong++;
                snprintf(text, sizeof(text), "%s version %d flags %d: expected %s, got %s (%s, %d)", table[i].base, versions[k],
                         flags, want ? want->name : "nothing", fn ? name_of(fn) : "nothing", probe_result(res), (int)status);
                fact("rule_differs", text);
            }
        }
    }
    count("rule_cells", cells);
    count("rule_cells_that_differ", wrong);
}

/* How the odd questions are answered, and what stays in outputs that were not written. */
static void odd(void)
{
    static const struct {
        const char *base;
        int version;
        cuuint64_t flags;
    } ask[] = {{"", 0, 0},
               {"cuMemAlloc_v2", 12000, 0},
               {"cuNoSuchFunction", 12000, 0},
               {"cuMemAlloc", 99000, 0},
               {"cuMemAlloc", 1000, 0},
               {"cuMemAlloc", 0, 0},
               {"cuMemAlloc", -1, 0},
               {"cuMemAlloc", 3020, 3},
               {"cuMemAlloc", 3020, 4},
               {"cuMemcpyAsync", 6050, 2},
               {"cuGetProcAddress", 11030, 0},
               {"cuGetProcAddress", 12000, 0}};
    static char untouched;
    CUdriverProcAddressQueryResult status;
    char text[256];
    void *fn;

    for (size_t i = 0; i < sizeof(ask) / sizeof(ask[0]); i++) {
        fn = &untouched;
        status = (CUdriverProcAddressQueryResult)-1;
        CUresult res = CUDA_ERROR_NOT_FOUND;
        if (cu.cuGetProcAddress_v2)
            res = cu.cuGetProcAddress_v2(ask[i].base, &fn, ask[i].version, ask[i].flags, &status);
        snprintf(text, sizeof(text), "v2(\"%s\", %d, %d): %s, status %d, %s", ask[i].base, ask[i].version, (int)ask[i].flags,
                 probe_result(res), (int)status,
                 fn == &untouched ? "untouched"
                 : fn             ? name_of(fn)
                                  : "NULL");
        fact("answer", text);
        fn = &untouched;
        if (cu.cuGetProcAddress_v2)
            res = cu.cuGetProcAddress_v2(ask[i].base, &fn, ask[i].version, ask[i].flags, NULL);
        snprintf(text, sizeof(text), "v2(\"%s\", %d, %d) without status: %s, %s", ask[i].base, ask[i].version, (int)ask[i].flags,
                 probe_result(res),
                 fn == &untouched ? "untouched"
                 : fn             ? name_of(fn)
                                  : "NULL");
        fact("answer", text);
        fn = &untouched;
        res = CUDA_ERROR_NOT_FOUND;
        if (cu.cuGetProcAddress)
            res = cu.cuGetProcAddress(ask[i].base, &fn, ask[i].version, ask[i].flags);
        snprintf(text, sizeof(text), "v1(\"%s\", %d, %d): %s, %s", ask[i].base, ask[i].version, (int)ask[i].flags,
                 probe_result(res),
                 fn == &untouched ? "untouched"
                 : fn             ? name_of(fn)
                                  : "NULL");
        fact("answer", text);
    }
}

/* The driver's exported names, from its GNU hash table, against the list. */
static void unlisted(void)
{
    struct link_map *map = NULL;
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    const uint32_t *hash = NULL;
    unsigned long exported = 0, unknown = 0;

    if (dlinfo(probe_libcuda, RTLD_DI_LINKMAP, &map) != 0)
        return;
    for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_SYMTAB)
            symbols = (const void *)d->d_un.d_ptr;
        if (d->d_tag == DT_STRTAB)
            strings = (const char *)d->d_un.d_ptr;
        if (d->d_tag == DT_GNU_HASH)
            hash = (const uint32_t *)d->d_un.d_ptr;
    }
    if (!symbols || !strings || !hash) {
        fact("exports", "no GNU hash table");
        return;
    }
    const uint32_t *buckets = hash + 4 + hash[2] * (sizeof(ElfW(Addr)) / 4);
    const uint32_t *chain = buckets + hash[0];

    for (uint32_t b = 0; b < hash[0]; b++) {
        for (uint32_t i = buckets[b]; i; i++) {
            const char *name = strings + symbols[i].st_name;
            size_t k = 0;

            exported++;
            while (k < NTABLE && strcmp(table[k].name, name))
                k++;
            if (k == NTABLE) {
                unknown++;
                fact("exported_but_not_listed", name);
            }
            if (chain[i - hash[1]] & 1)
                break;
        }
    }
    count("exported_total", exported);
    count("exported_but_not_listed_total", unknown);
}

int main(void)
{
    probe_open("identity");
    if (!cu.cuGetProcAddress && !cu.cuGetProcAddress_v2) {
        probe_row("skipped", "the driver has no cuGetProcAddress");
        return 77;
    }
    probe_row("driver_version", "%s", cu.cuDriverGetVersion(&driver_version) ? "unknown" : "known");
    probe_row("driver_version_number", "%d", driver_version);
    stage = "before_init";
    identity();
    owners();
    aliases();
    rule();
    odd();
    unlisted();
    stage = "after_init";
    CUresult res = cu.cuInit(0);
    fact("init", probe_result(res));
    if (res == CUDA_SUCCESS) {
        identity();
        rule();
    }
    return 0;
}
