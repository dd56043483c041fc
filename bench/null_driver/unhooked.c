/* SPDX-License-Identifier: Apache-2.0 */
/* The same functions under names that no hook knows: what a call costs by itself, in the same process at the same moment. */
#define NAME(symbol) unhooked_##symbol
#include "entries.h"
