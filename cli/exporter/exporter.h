/* SPDX-License-Identifier: Apache-2.0 */
/* The rooms of `softslice exporter`: what was seen last and how it went the last minutes (snapshot.c, history.c), the metrics (metrics.c,
 * hami.c), and the two ways out (http.c, textfile.c).
 *
 * Two threads besides the one that waits for signals: libmicrohttpd's, which answers all requests one after the other, and the sampler. */
#ifndef SOFTSLICE_EXPORTER_H
#define SOFTSLICE_EXPORTER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli.h"
#include "observe.h"
#include "out.h"

#define EXPORTER_ADDRESS "127.0.0.1:9877"
#define EXPORTER_FRESH   UINT64_C(100000000)  /* ns: who asks again within this gets the same */
#define EXPORTER_SAMPLE  UINT64_C(2000000000) /* ns between two samples of the history */

/* What is to be shown, by the command line. */
struct exporter_request {
    struct observe_request observe;
    bool hami;
    bool many; /* several state directories: a tenant's name alone does not tell it */
};

/* ---- snapshot.c */

/* What was seen, and how looking went. */
struct snapshot {
    struct observe seen;
    bool valid;      /* else `error` says why nothing could be seen, and `seen` is empty */
    uint64_t number; /* grows with each look */
    uint64_t took;   /* ns */
    char error[OBSERVE_ERROR_MAX];
};

void snapshot_setup(const struct exporter_request *request);

/* Look, unless that was done within EXPORTER_FRESH. What is returned, and the history, belong to the caller until snapshot_release().
 * NULL after snapshot_end(), with nothing to release. */
const struct snapshot *snapshot_take(void);

/* The same without a look, for the history alone. False after snapshot_end(). */
bool snapshot_hold(void);
void snapshot_release(void);

/* Add to the history what there is now. */
void snapshot_sample(void);

/* Nobody gets a snapshot any more. False where somebody who looks has not come back for two seconds: a driver that hangs. */
bool snapshot_end(void);

/* ---- history.c; between snapshot_take() or snapshot_hold() and snapshot_release() */

/* The next sample; NULL: nothing is known of this moment. */
void history_add(const struct observe *seen, uint64_t when);

void history_json(struct out *out);

/* Grows with each sample. */
uint64_t history_number(void);

/* The share of the last ten seconds in which a tenant was busy on a GPU, 0 to 1. False: not known. */
bool history_busy(const struct observe_tenant *tenant, const uint8_t uuid[16], double *ratio);

void history_free(void);

/* ---- metrics.c, hami.c */

/* All of it in Prometheus' text format. */
void metrics_write(struct out *out, const struct snapshot *snapshot, const struct exporter_request *request);

/* What status calls a GPU; `text` is room for it. */
const char *metrics_gpu(const struct observe *seen, const uint8_t uuid[16], char text[OBSERVE_UUID]);

/* `# HELP`, `# TYPE`. */
void metrics_family(struct out *out, const char *name, const char *type, const char *help);

/* The same under the names that HAMi gives it. `labels` are those of each tenant that HAMi does not have. */
void hami_write(struct out *out, const struct observe *seen, char *const *labels);

/* ---- http.c */

/* Listen on `address` (ADDR:PORT). 0, or -1 with *error set. `url` receives where that is. */
int http_begin(const char *address, const struct exporter_request *request, char url[128], struct cli_error *error);
void http_end(void);

/* ---- textfile.c */

/* Replace `path` by what `out` has, at once and as a whole. 0, or -1 with *error set. */
int textfile_write(const char *path, const struct out *out, struct cli_error *error);

#endif
