/* SPDX-License-Identifier: Apache-2.0 */
/* Looks symbols up in the tables of loaded objects. */
#include "defined.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tables {
    const ElfW(Sym) * symbols;
    const char *strings;
    const uint32_t *gnu, *plain; /* DT_GNU_HASH, DT_HASH */
};

/* glibc relocates the pointers of dynamic sections that it can write to, and not those of the vDSO. */
static const void *at(ElfW(Addr) base, ElfW(Addr) pointer)
{
    return (const void *)(pointer < base ? base + pointer : pointer);
}

static bool defines(const struct tables *tables, uint32_t index, const char *name)
{
    const ElfW(Sym) *symbol = &tables->symbols[index];

    return symbol->st_shndx != SHN_UNDEF && symbol->st_value && strcmp(tables->strings + symbol->st_name, name) == 0;
}

/* The index of the symbol, or 0, which is none's. */
static uint32_t find_gnu(const struct tables *tables, const char *name)
{
    const uint32_t *gnu = tables->gnu;
    uint32_t buckets = gnu[0], first = gnu[1], bloom_words = gnu[2], hash = 5381;
    const uint32_t *bucket = (const uint32_t *)((const ElfW(Addr) *)(gnu + 4) + bloom_words), *chain = bucket + buckets;

    for (const char *c = name; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    uint32_t i = buckets ? bucket[hash % buckets] : 0;
    if (i < first)
        return 0;
    for (;; i++) {
        if ((chain[i - first] | 1) == (hash | 1) && defines(tables, i, name))
            return i;
        if (chain[i - first] & 1)
            return 0;
    }
}

/* Objects without the newer table are few and small: no need to know how the older one hashes. */
static uint32_t find_plain(const struct tables *tables, const char *name)
{
    for (uint32_t i = 1; i < tables->plain[1]; i++)
        if (defines(tables, i, name))
            return i;
    return 0;
}

void *defined_in(ElfW(Addr) base, const ElfW(Dyn) * dynamic, const char *name)
{
    struct tables tables = {0};
    uint32_t index = 0;

    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_SYMTAB)
            tables.symbols = at(base, dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == DT_STRTAB)
            tables.strings = at(base, dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == DT_GNU_HASH)
            tables.gnu = at(base, dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == DT_HASH)
            tables.plain = at(base, dynamic->d_un.d_ptr);
    }
    if (!tables.symbols || !tables.strings)
        return NULL;
    if (tables.gnu)
        index = find_gnu(&tables, name);
    else if (tables.plain)
        index = find_plain(&tables, name);
    return index ? (void *)(base + tables.symbols[index].st_value) : NULL;
}

struct search {
    const char *name;
    ElfW(Addr) after;
    bool behind;
    void *found;
};

static int visit(struct dl_phdr_info *info, size_t size, void *opaque)
{
    struct search *search = opaque;
    const ElfW(Dyn) *dynamic = NULL;
    bool holds = false;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];

        if (part->p_type == PT_LOAD && search->after - info->dlpi_addr - part->p_vaddr < part->p_memsz)
            holds = true;
        else if (part->p_type == PT_DYNAMIC)
            dynamic = (const ElfW(Dyn) *)(info->dlpi_addr + part->p_vaddr);
    }
    if (search->behind)
        search->found = defined_in(info->dlpi_addr, dynamic, search->name);
    search->behind |= holds;
    return search->found != NULL;
}

void *defined_after(const void *after, const char *name)
{
    struct search search = {.name = name, .after = (ElfW(Addr))after};

    dl_iterate_phdr(visit, &search);
    return search.found;
}
