/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the driver's functions has a wrapper, found by name or by address; and what is armed. */
#ifndef SOFTSLICE_SHIM_RESOLVE_H
#define SOFTSLICE_SHIM_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "real.h"

enum resolve_arm { RESOLVE_VRAM = 1, RESOLVE_COMPUTE = 2, RESOLVE_ANY = 3 };

/* One row of hooks.def or nvml.def. */
struct resolve_row {
    const char *base, *symbol;
    int since;
    uint8_t per_thread, arm, library;
};

extern const struct resolve_row resolve_row[];
extern const unsigned resolve_rows;

/* Our exports, in the order of the rows (shim/thunks_<arch>.S). */
extern void *const hook_wrappers[] __attribute__((visibility("hidden")));

/* Whether any of the dimensions in `arm` (enum resolve_arm) is armed: read from the configuration at the first question. */
bool resolve_armed(unsigned arm);

/* The row of the symbol-table name `name`, or -1. Exact: "cudnnCreate" and "curl_easy_init" are nobody's. */
int resolve_name(const char *name);

/* What a program gets that asked for row `index` and was given `address` by the library: the wrapper where the row is armed and the
 * address is the driver's own for that very symbol (or is our export already), else `address`. */
void *resolve_answer(int index, void *address);

/* The same for cuGetProcAddress(`base`, `version`, `flags`), whose answer `address` is some version of `base`: the wrapper of the ABI
 * that the driver chose, whatever version and flags meant. An address of a listed base that matches no row is passed on and counted. */
void *resolve_proc_address(const char *base, void *address, int version, cuuint64_t flags);

/* How many answers of cuGetProcAddress for listed names could not be mapped so far. */
unsigned resolve_unknown(void);

/* Whether the driver's answer for cuMemAlloc can be mapped: without that no budget can hold. */
bool resolve_can_hold(void);

#endif
