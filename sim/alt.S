/* SPDX-License-Identifier: Apache-2.0 */
/* A second address for every driver symbol (SOFTSIM_ALT_ADDRESSES): one jump each, softsim_alt_<symbol>. */
#if defined(__x86_64__)
#define JUMP(symbol) jmp symbol
#elif defined(__aarch64__)
#define JUMP(symbol) b symbol
#else
#error "sim/alt.S: x86-64 or aarch64"
#endif

	.text
#define SYM(base, symbol, since, ptx)       \
	.globl softsim_alt_##symbol;        \
	.hidden softsim_alt_##symbol;       \
	.type softsim_alt_##symbol, %function; \
	.p2align 3;                         \
softsim_alt_##symbol: JUMP(symbol);         \
	.size softsim_alt_##symbol, . - softsim_alt_##symbol;
#include "symbols.def"

	.section .note.GNU-stack, "", %progbits
