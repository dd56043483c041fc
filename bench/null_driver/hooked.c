/* SPDX-License-Identifier: Apache-2.0 */
/* The names that programs and hooks know. */
#define NAME(symbol) symbol
#include "entries.h"
