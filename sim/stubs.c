/* SPDX-License-Identifier: Apache-2.0 */
/* Every symbol of the driver API, weak and answering NOT_SUPPORTED: where another file models the function, the linker takes that one.
 *
 * cuda.h is not included, so one prototype serves all; the caller cleans up the arguments in the C ABIs of Linux. */
#include <stddef.h>

#define NOT_SUPPORTED 801

/* The assembly statement keeps compilers from folding equal functions into one address. */
#define SYM(base, symbol, since, ptx)                                                                                              \
    static __attribute__((noinline)) int stub_##symbol(void)                                                                       \
    {                                                                                                                              \
        __asm__ volatile("" : : "i"(__LINE__));                                                                                    \
        return NOT_SUPPORTED;                                                                                                      \
    }                                                                                                                              \
    int symbol(void) __attribute__((weak, visibility("default"), alias("stub_" #symbol)));
#include "symbols.def"
#undef SYM

/* The stub of each row of symbols.def: a symbol with this address has no model. */
extern int (*const sim_stub_of[])(void);
#define SYM(base, symbol, since, ptx) stub_##symbol,
int (*const sim_stub_of[])(void) = {
#include "symbols.def"
};
