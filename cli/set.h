/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `softslice set` say to each other. */
#ifndef SOFTSLICE_CLI_SET_H
#define SOFTSLICE_CLI_SET_H

#include "cli.h"
#include "softslice/ledger.h"

enum { SET_REFUSED = 1 }; /* exit status: nothing was changed */

struct set_request {
    const char *tenant, *device_text, *state_dir, *root;
    struct units_device device; /* UNITS_DEVICE_ALL where none was named */
    struct ledger_change change;
    uint64_t percent;        /* of the GPU's memory, in hundredths: change.limit follows from it. 0: bytes were given */
    bool most, most_compute; /* max: the admin's and the GPU's own remain */
    bool help;
};

/* The state directory that the tenant is in: --state-dir's, the one below --root, or the one in use. An O_PATH descriptor with its name in `path`, or
 * -1 with *error and *status set. */
int set_find_directory(const struct set_request *request, char path[PATH_MAX], int *status, struct cli_error *error);

/* Turn NVML's number, where that was given, into a UUID. 0, or the exit status with *error set. */
int set_find_uuid(struct set_request *request, struct cli_error *error);

/* How much memory NVML says that a GPU of the tenant has, whose state directory is `path`; 0 where it cannot be asked or does not show it. */
uint64_t set_physical(const char *path, const char *tenant, const uint8_t uuid[16]);

/* What holds for the tenant on a GPU by its ledger and by the admin's file of its state directory, where `softslice cdi` has made one. False: it cannot be
 * read. */
bool set_held(const char *path, const char *tenant, const uint8_t uuid[16], struct ledger_device_state *held);

#endif
