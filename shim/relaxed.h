/* SPDX-License-Identifier: Apache-2.0 */
/* Around questions of our own to the driver. While some thread captures a stream, calls such as reading a pool's attribute are refused and
 * spoil the capture, unless the calling thread's mode is relaxed. */
#ifndef SOFTSLICE_SHIM_RELAXED_H
#define SOFTSLICE_SHIM_RELAXED_H

#include "guard.h"

/* The thread's mode before, for relaxed_leave(). A driver without capture modes has nothing to be spoiled. */
static inline CUstreamCaptureMode relaxed_enter(void)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;

    guard_enter();
    called.cuThreadExchangeStreamCaptureMode(&mode);
    return mode;
}

static inline void relaxed_leave(CUstreamCaptureMode mode)
{
    called.cuThreadExchangeStreamCaptureMode(&mode);
    guard_leave();
}

#endif
