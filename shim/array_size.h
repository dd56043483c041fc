/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory an array of a description takes, as far as the description tells. */
#ifndef SOFTSLICE_SHIM_ARRAY_SIZE_H
#define SOFTSLICE_SHIM_ARRAY_SIZE_H

#include <stdint.h>

#include "cuda_abi.h"

/* Bytes of an array (`levels` 0) or of a mipmapped array's levels, padded as tiled memory is (assumed); UINT64_MAX where they do not fit in 64
 * bits, 0 where the width is 0. A format that is not known counts as the widest there is. */
uint64_t array_size(const CUDA_ARRAY3D_DESCRIPTOR *array, unsigned levels);

#endif
