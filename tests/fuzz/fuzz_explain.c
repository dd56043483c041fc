/* SPDX-License-Identifier: Apache-2.0 */
/* A member's account from elsewhere. Input: the file, whose check is put right if its first byte says so. Nothing may crash, and what is taken from it
 * stays within bounds. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_layout.h"
#include "softslice/explain.h"

#define CHECK 128 /* where it stands */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct explain explain;
    static char file[EXPLAIN_FILE_MOST + 8] __attribute__((aligned(8)));
    uint64_t check = 0;

    if (size < 1 || size - 1 > sizeof(file))
        return 0;
    memcpy(file, data + 1, size - 1);
    if (data[0] % 4 && size - 1 >= CHECK + 8) {
        uint64_t length = size - 1;

        memcpy(file + 16, &length, 8);
        memset(file + CHECK, 0, 8);
        check = ledger_checksum(file, CHECK + 8) ^ ledger_checksum(file + CHECK + 8, length - CHECK - 8);
        memcpy(file + CHECK, &check, 8);
    }
    if (explain_parse(file, size - 1, &explain) == 0) {
        if (explain.devices > LEDGER_DEVICES)
            abort();
        for (uint32_t i = 0; i < explain.devices; i++)
            check += explain_charged(&explain.device[i]);
    }
    return 0;
}
