/* SPDX-License-Identifier: Apache-2.0 */
/* A process that cannot take turns when it first launches (here: something else has the folder's name) takes them as soon as it can. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=late LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: virtual time is preloaded too
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "gate_helper.h"

int main(void)
{
    char folder[4096], file[4200];
    struct stat status;
    uint64_t start;

    snprintf(folder, sizeof(folder), "%s/turns", getenv("SOFTSLICE_STATE_DIR"));
    snprintf(file, sizeof(file), "%s/late.turns", folder);
    t_check(mknod(folder, S_IFREG | 0600, 0) == 0, "%s", folder);
    t_context(0);
    CUfunction kernel = gate_kernel("k__1ms");
    CUstream stream = gate_stream();

    gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    t_check(unlink(folder) == 0, "the library removed what it did not make");
    start = v_clock(CLOCK_MONOTONIC);
    while (stat(file, &status) != 0) {
        t_check(v_clock(CLOCK_MONOTONIC) - start < 10 * S, "no turns in ten seconds");
        gate_launch(kernel, stream);
    }
    t_cuda(cuStreamSynchronize(stream));
    return 0;
}
