/* SPDX-License-Identifier: Apache-2.0 */
/* See neighbour.h: preloaded before libsoftslice.so. */
#define PLACE front
#include "neighbour.h"
