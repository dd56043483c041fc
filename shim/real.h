/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's and NVML's own functions. Nothing else in softslice reaches them. */
#ifndef SOFTSLICE_SHIM_REAL_H
#define SOFTSLICE_SHIM_REAL_H

#include <stdbool.h>

#include "cuda_abi.h"
#include "nvml_abi.h"

/* What we stand in front of, in the order of the rows (shim/thunks_<arch>.S lays it out). Every member can be called at any time: it
 * binds itself at the first call, and answers CUDA_ERROR_NOT_FOUND where the library that is loaded lacks the function or none is loaded. */
struct real_driver {
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) HOOK_##body(symbol)
#define HOOK_WRAP(symbol)                                           __typeof__(&symbol) symbol;
#define HOOK_FORWARD(symbol)                                        void (*symbol)(void);
#include "hooks.def"
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) HOOK_##body(symbol)
#include "nvml.def"
#undef HOOK_WRAP
#undef HOOK_FORWARD
};
extern struct real_driver real __attribute__((visibility("hidden")));

/* What we call beside that (called.def): bound by real_load() and real_load_nvml(), a function that answers CUDA_ERROR_NOT_FOUND until
 * then and where it is missing. */
struct real_called {
#define CALLED(symbol)      __typeof__(&symbol) symbol;
#define CALLED_NVML(symbol) __typeof__(&symbol) symbol;
#include "called.def"
};
extern struct real_called called __attribute__((visibility("hidden")));

enum real_library { REAL_CUDA, REAL_NVML };

/* Bind every row of `library`, if it is loaded in this process (it is never loaded for the asking). True once bound. Never waits for
 * another thread but as dlopen and dlsym do; every caller stores the same values. */
bool real_load(enum real_library library);

/* The real function of row `index`, for a call that came through its first-call stub. Never NULL. */
void *real_lookup(unsigned index) __attribute__((visibility("hidden")));

/* The address that the driver has for row `index`, NULL where it has none or is not loaded. */
void *real_address(unsigned index);

/* dlopen NVML by name, for our own questions: only once a context exists (a program that never asks must not pay for it). Where it cannot be
 * loaded it is not tried again; a program that loads it itself makes it known. */
bool real_load_nvml(void);

#endif
