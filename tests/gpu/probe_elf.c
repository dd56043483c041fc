/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver's libraries say of themselves in their dynamic sections: dependencies, SYMBOLIC
 * and BIND_NOW, what they import from the loader, and which of their own functions they call in a
 * way that a preloaded library of the same names would catch. Needs the files, not a GPU. */
#include "probe.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

struct object {
    const char *strings;
    const ElfW(Sym) * symbols;
    const ElfW(Rela) * plt, *rela;
    size_t nplt, nrela;
};

static const char *label;

static void row(const char *key, const char *value)
{
    char name[128];

    snprintf(name, sizeof(name), "%s.%s", label, key);
    probe_row(name, "%s", value);
}

/* Reads DT_*; glibc has already relocated the addresses in it. */
static void dynamic_section(const ElfW(Dyn) * d, struct object *o)
{
    char text[64];

    memset(o, 0, sizeof(*o));
    for (const ElfW(Dyn) *p = d; p->d_tag != DT_NULL; p++) {
        if (p->d_tag == DT_STRTAB)
            o->strings = (const char *)p->d_un.d_ptr;
    }
    for (; d->d_tag != DT_NULL; d++) {
        switch (d->d_tag) {
        case DT_SYMTAB:
            o->symbols = (const void *)d->d_un.d_ptr;
            break;
        case DT_JMPREL:
            o->plt = (const void *)d->d_un.d_ptr;
            break;
        case DT_PLTRELSZ:
            o->nplt = d->d_un.d_val / sizeof(*o->plt);
            break;
        case DT_RELA:
            o->rela = (const void *)d->d_un.d_ptr;
            break;
        case DT_RELASZ:
            o->nrela = d->d_un.d_val / sizeof(*o->rela);
            break;
        case DT_NEEDED:
            row("needed", o->strings + d->d_un.d_val);
            break;
        case DT_SONAME:
            row("soname", o->strings + d->d_un.d_val);
            break;
        case DT_SYMBOLIC:
            row("symbolic", "DT_SYMBOLIC");
            break;
        case DT_BIND_NOW:
            row("bind_now", "DT_BIND_NOW");
            break;
        case DT_FLAGS:
            snprintf(text, sizeof(text), "0x%lx%s%s", (unsigned long)d->d_un.d_val, d->d_un.d_val & DF_SYMBOLIC ? " SYMBOLIC" : "",
                     d->d_un.d_val & DF_BIND_NOW ? " BIND_NOW" : "");
            row("flags", text);
            break;
        case DT_FLAGS_1:
            snprintf(text, sizeof(text), "0x%lx", (unsigned long)d->d_un.d_val);
            row("flags_1", text);
            break;
        case DT_VERDEF:
            row("versions", "defines symbol versions");
            break;
        default:
            break;
        }
    }
}

/* A relocation against a symbol that the object itself defines is bound by search order: to the
 * preloaded library first, unless the object is SYMBOLIC. */
static unsigned int relocations(const struct object *o, const ElfW(Rela) * r, size_t n, const char *prefix)
{
    unsigned int found = 0;

    for (size_t i = 0; i < n; i++) {
        const ElfW(Sym) *sym = &o->symbols[ELF64_R_SYM(r[i].r_info)];
        const char *name = o->strings + sym->st_name;

        if (!ELF64_R_SYM(r[i].r_info))
            continue;
        if (sym->st_shndx == SHN_UNDEF) {
            if (!strncmp(name, "dl", 2) && (name[2] == 's' || name[2] == 'v' || name[2] == 'o' || name[2] == 'm'))
                row("imports", name);
            if (!strncmp(name, "cu", 2) || !strncmp(name, "nvml", 4))
                row("imports", name);
            continue;
        }
        if (strncmp(name, prefix, strlen(prefix)))
            continue;
        row("calls_itself_through_plt", name);
        found++;
    }
    return found;
}

static void inspect(void *handle, const char *name, const char *prefix)
{
    struct link_map *map = NULL;
    struct object o;
    char count[32];

    label = name;
    if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0) {
        row("missing", "not loaded");
        return;
    }
    row("path", map->l_name);
    dynamic_section(map->l_ld, &o);
    if (!o.symbols || !o.strings) {
        row("missing", "no symbol table");
        return;
    }
    unsigned int n = relocations(&o, o.plt, o.nplt, prefix);
    n += relocations(&o, o.rela, o.nrela, prefix);
    snprintf(count, sizeof(count), "%u", n);
    row("own_preemptible_references", count);
}

int main(void)
{
    probe_open("elf");
    inspect(probe_libcuda, "libcuda", "cu");
    inspect(probe_libnvml, "libnvml", "nvml");
    return 0;
}
