/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of `softslice cdi` share: budgets, the directory on the host that containers' files are in, and CDI specs.
 *
 * Of each budget a container gets, as mounts and nothing else (what a user sets, clears or runs as cannot change them):
 *
 *     /etc/ld.so.preload              the library's path                     ROOT/NAME/.etc/ld.so.preload      read-only
 *     /etc/softslice                  the admin's file with the limits       ROOT/NAME/.etc/softslice          read-only
 *     CDI_LIBRARY                     the library                            where it is on the host           read-only
 *     /run/softslice                  its state directory                    ROOT/NAME                         read-only
 *     /run/softslice/NAME             its ledger's folder                    ROOT/NAME/NAME                    read-write
 *     /run/softslice/turns            everybody's entries of turns           ROOT/turns                        read-only
 *     /run/softslice/turns/NAME.turns its own entry                          ROOT/turns/NAME.turns             read-write */
#ifndef SOFTSLICE_CLI_CDI_H
#define SOFTSLICE_CLI_CDI_H

#include <sys/types.h>

#include "cli.h"
#include "softslice/ini.h"

#define CDI_ROOT      "/run/softslice/containers"
#define CDI_DIRECTORY "/var/run/cdi" /* for what is gone after a reboot, as ROOT is */
#define CDI_VENDOR    "softslice.io"
#define CDI_CLASS     "slice"

/* Where a container has them. */
#define CDI_LIBRARY "/usr/local/lib/softslice/" CLI_LIBRARY
#define CDI_PRELOAD "/etc/ld.so.preload"
#define CDI_ETC     "/etc/softslice"
#define CDI_STATE   "/run/softslice"

#define CDI_TURNS       "turns" /* of ROOT, and the place in a state directory where it is mounted: no budget can be called so */
#define CDI_LABELS      "labels.ini" /* of NAME, beside the ledger's folder */
#define CDI_BUDGETS_MAX 4096

/* One tenant: the name of its device, and its limits as lines of an ini's [softslice] section and [gpu] sections after it. */
struct cdi_budget {
    char name[CONFIG_TENANT_MAX];
    char limits[2048];
};

struct cdi_budgets {
    struct cdi_budget *budget;
    unsigned count;
};

/* Append an empty budget. NULL with *error set: a bad name, one that is there already, too many. `said_by` begins the message. */
struct cdi_budget *cdi_add(struct cdi_budgets *budgets, const char *name, const char *said_by, struct cli_error *error);

/* Whether it can be the name of a CDI device and of a tenant. */
bool cdi_is_name(const char *name);

/* Add a line to budget->limits. -1 with *error set: there are too many. */
int cdi_limit(struct cdi_budget *budget, struct cli_error *error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- cdi_slices.c */

#define CDI_AMOUNT_MAX (INI_LINE_MAX + 1)

/* A [slice NAME] section. */
struct cdi_slice {
    struct cdi_budget budget;                           /* all limits; its name is NAME, which nobody has checked */
    char vram[CDI_AMOUNT_MAX], compute[CDI_AMOUNT_MAX]; /* of them, as they stand there; "": not said */
    bool weighted;                                      /* a weight is among them */
    unsigned line, replicas;                            /* 0: not said */
};

/* Sets *error where the slice cannot be taken. */
typedef void cdi_slice_found(void *context, const struct cdi_slice *slice, const char *path, struct cli_error *error);

/* Go through the [slice NAME] sections of a file; `path` is for messages. How many there are, or -1 with *error set. */
int cdi_slices_read(struct ini_file *file, const char *path, cdi_slice_found *found, void *context, struct cli_error *error);

/* The budgets of all of them, one for each replica. 0, or -1 with *error set; a file without any is an error. */
int cdi_slices(struct cdi_budgets *budgets, const char *path, struct cli_error *error);

/* ---- cdi_root.c: ROOT */

struct cdi_root {
    int fd;
    char path[PATH_MAX]; /* without symbolic links */
};

/* Open it, and keep other `softslice cdi` out until it is closed. Made where it is missing and `make` is set; else -1 and *error, as for one that
 * is not ours alone, or whose place another user could give to another one. */
int cdi_root_open(struct cdi_root *root, const char *path, bool make, struct cli_error *error);

/* ---- cdi_host.c: what is in it */

/* The ini that a container with this budget gets, as memory to free. NULL: no memory. */
char *cdi_ini(const struct cdi_budget *budget);

/* Whether the library would understand that. 0, or -1 with *error set. */
int cdi_check(const struct cdi_budget *budget, struct cli_error *error);

/* Make all files of a budget; what is there is replaced. `spec` is noted as the file that its device will be in; NULL: not known. */
int cdi_host_make(const struct cdi_root *root, const struct cdi_budget *budget, const char *spec, struct cli_error *error);

/* Remove them. */
int cdi_host_remove(const struct cdi_root *root, const char *name, struct cli_error *error);

/* The spec that was noted; false: none was. */
bool cdi_host_spec(const struct cdi_root *root, const char *name, char spec[PATH_MAX]);

/* How many processes of a budget live, or -errno. */
int cdi_host_processes(const struct cdi_root *root, const char *name);

/* ---- cdi_mounts.c: what a container gets */

#define CDI_MOUNTS 7

struct cdi_mount {
    char host[PATH_MAX], container[PATH_MAX];
    bool writable, runs; /* runs: code is loaded from it */
};

/* The mounts of a container with the budget `name`, in the order in which they have to be made. */
void cdi_mounts(struct cdi_mount mount[CDI_MOUNTS], const char *root, const char *name, const char *library);

/* ---- cdi_files.c */

/* Write `text` to `name`, whole or not at all. 0 or -errno. */
int cdi_write(int directory, const char *name, const char *text, size_t length, mode_t mode);

/* Make or take a directory that is ours, with this mode. Its number, or -errno; -EPERM: it is somebody else's. */
int cdi_folder(int directory, const char *name, mode_t mode);

/* Remove a file, or a directory with all that is in it. 0 or -errno; what is not there is removed. */
int cdi_delete(int directory, const char *name);

/* ---- cdi_spec.c: a spec in memory */

struct json_object;
struct cdi_spec {
    struct json_object *object;
    char path[PATH_MAX]; /* "": none */
    bool changed;
};

/* Read the spec `path`. Where there is no such file and `kind` is not NULL, an empty one of that kind. -1 with *error set: it cannot be read or is no spec,
 * it is of another kind. */
int cdi_spec_open(struct cdi_spec *spec, const char *path, const char *kind, struct cli_error *error);
void cdi_spec_close(struct cdi_spec *spec);

/* Put a budget's device in, in the place of one of that name that is ours. With `gpu`, the edits of that device of the spec come first. */
int cdi_spec_put(struct cdi_spec *spec, const struct cdi_root *root, const char *name, const char *gpu, const char *library,
                 struct cli_error *error);

/* Take out the device of that name if it is ours. */
void cdi_spec_drop(struct cdi_spec *spec, const char *name);
bool cdi_spec_has(const struct cdi_spec *spec, const char *name);
const char *cdi_spec_kind(const struct cdi_spec *spec);

/* Write it to spec->path, or remove the file where no device is left; to standard output where the path is "". */
int cdi_spec_write(const struct cdi_spec *spec, struct cli_error *error);

/* ---- the commands beside `generate` */

int cdi_list(const char *root, struct cli_error *error);

/* Print the mounts of a budget that is there as options of an engine's command, one a line. */
int cdi_print_mounts(const char *root, const char *name, const char *engine, const char *library, struct cli_error *error);
int cdi_remove(const char *root, char **names, bool force, struct cli_error *error);

#endif
