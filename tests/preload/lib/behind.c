/* SPDX-License-Identifier: Apache-2.0 */
/* See neighbour.h: preloaded after libsoftslice.so. */
#define PLACE behind
#include "neighbour.h"
