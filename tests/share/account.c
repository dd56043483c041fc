/* SPDX-License-Identifier: Apache-2.0 */
/* What a tenant's account of its first GPU says, as one line of JSON: account STATE_DIRECTORY TENANT. Reads it though nobody lives any more. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "ledger_internal.h"
#include "ledger_layout.h"

int main(int argc, char **argv)
{
    struct ledger_header header;
    struct ledger_compute compute;
    const struct share_account *a = &compute.account;
    int dir = argc == 3 ? open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC) : -1, file;

    if (dir < 0)
        return 2;
    file = ledger_open(dir, argv[2], O_RDONLY | O_CLOEXEC, &header);
    if (file < 0 || !header.compute_offset || !header.devices ||
        pread(file, &compute, sizeof(compute), (off_t)header.compute_offset) != (ssize_t)sizeof(compute))
        return 1;
    printf("{\"busy_ns\": %llu, \"throttled_ns\": %llu, \"forgiven_ns\": %llu, \"nr_periods\": %llu, \"nr_throttled\": %llu, "
           "\"turns_taken\": %llu, \"turns_lost\": %llu, \"marks\": %llu, \"repaired\": %llu}\n",
           (unsigned long long)a->busy, (unsigned long long)a->throttled, (unsigned long long)a->forgiven,
           (unsigned long long)a->nr_periods, (unsigned long long)a->nr_throttled, (unsigned long long)a->turns_taken,
           (unsigned long long)a->turns_lost, (unsigned long long)a->marks, (unsigned long long)a->repaired);
    return 0;
}
