/* SPDX-License-Identifier: Apache-2.0 */
/* The exported dlsym's C half, and the way past it. */
#ifndef SOFTSLICE_SHIM_DLSYM_H
#define SOFTSLICE_SHIM_DLSYM_H

#define DLSYM_HIDDEN __attribute__((visibility("hidden")))

/* The next dlsym after ours: another hook library's or glibc's. For real handles only; never for RTLD_NEXT on somebody's behalf. */
void *dlsym_real(void *handle, const char *name);

/* Where the exported dlsym jumps to with what is not ours to answer. */
extern void *(*dlsym_next)(void *handle, const char *name)DLSYM_HIDDEN;

/* An answer for the exported dlsym: in two registers, so that "the symbol is not there" (NULL, decided) differs from "ask the real one". */
struct dlsym_answer {
    void *address;
    long decided;
};

/* What a look-up of `name` by code at `caller` gets. Never waits for another thread but as the loader itself does. */
struct dlsym_answer dlsym_filter(void *handle, const char *name, void *caller) DLSYM_HIDDEN;

#endif
