/* SPDX-License-Identifier: Apache-2.0 */
/* What loaded objects define, read from their own tables: no call of the dynamic linker's, so that it can be asked while its list of
 * objects is locked, and nothing is kept or dropped by asking. */
#ifndef SOFTSLICE_SHIM_DEFINED_H
#define SOFTSLICE_SHIM_DEFINED_H

#include <link.h>

/* The definition of `name` in an object at `base` with dynamic section `dynamic`, not in what it depends on; NULL if there is none. */
void *defined_in(ElfW(Addr) base, const ElfW(Dyn) * dynamic, const char *name);

/* The first definition of `name` in an object that was loaded after the one that holds the address `after`. Holds the dynamic linker's
 * lock of its list meanwhile, which dlopen and dlclose take only to change that. */
void *defined_after(const void *after, const char *name);

#endif
