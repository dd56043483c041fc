/* SPDX-License-Identifier: Apache-2.0 */
/* Text that grows: what the exporter answers with. */
#ifndef SOFTSLICE_EXPORTER_OUT_H
#define SOFTSLICE_EXPORTER_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zeros is empty. Where memory ran out, `failed` is set and nothing is added any more. */
struct out {
    char *bytes; /* malloc'ed; no 0 at the end */
    size_t length, size;
    bool failed;
};

void out_bytes(struct out *out, const void *bytes, size_t length);
void out_text(struct out *out, const char *text);
void out_print(struct out *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Nanoseconds as seconds, exact: 1.500000000. */
void out_seconds(struct out *out, uint64_t ns);

/* A label of Prometheus' text format, after a comma where it is not the first; nothing where `value` is "". */
void out_label(struct out *out, const char *name, const char *value);

/* A string in JSON. */
void out_json(struct out *out, const char *text);

void out_free(struct out *out);

#endif
