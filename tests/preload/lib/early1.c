/* SPDX-License-Identifier: Apache-2.0 */
/* See early.h. */
#define RESULT early1_result
#include "early.h"
