/* SPDX-License-Identifier: Apache-2.0 */
/* Changing the limit of the tenant that SOFTSLICE_TENANT names, as `softslice set` does, from a test program. It links core/. */
#ifndef TESTS_SET_HELPER_H
#define TESTS_SET_HELPER_H

#include <fcntl.h>

#include "helper.h"
#include "softslice/ledger.h"

/* 0 bytes: no limit. `uuid` NULL: on all devices. 0 or -errno, as ledger_change(). */
T_UNUSED static int t_set_vram(const uint8_t uuid[16], uint64_t bytes)
{
    struct ledger_view before;
    struct ledger_change change = {.vram = true, .limit = bytes ? bytes : LEDGER_NO_LIMIT};
    int directory = open(getenv("SOFTSLICE_STATE_DIR"), O_PATH | O_DIRECTORY | O_CLOEXEC), result;

    t_check(directory >= 0, "SOFTSLICE_STATE_DIR: %s", strerror(errno));
    result = ledger_change(directory, getenv("SOFTSLICE_TENANT"), uuid, &change, &before);
    close(directory);
    return result < 0 ? result : 0;
}

#endif
