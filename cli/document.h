/* SPDX-License-Identifier: Apache-2.0 */
/* Building the JSON documents that the commands print. json-c tells that it is out of memory by NULL from its makers, and by a status from what adds: here
 * the first failure is kept in `*failed`, and what could not be added is put. */
#ifndef SOFTSLICE_CLI_DOCUMENT_H
#define SOFTSLICE_CLI_DOCUMENT_H

#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>

#include "observe.h"

/* Takes `value`, which may be NULL as its maker left it. */
static inline void document_put(bool *failed, struct json_object *object, const char *key, struct json_object *value)
{
    if (value && object && json_object_object_add(object, key, value) == 0)
        return;
    json_object_put(value);
    *failed = true;
}

static inline void document_append(bool *failed, struct json_object *array, struct json_object *value)
{
    if (value && array && json_object_array_add(array, value) == 0)
        return;
    json_object_put(value);
    *failed = true;
}

/* JSON's readers seldom have more than 63 bits; what is larger counts for that. */
static inline struct json_object *document_number(uint64_t value)
{
    return json_object_new_int64(value > INT64_MAX ? INT64_MAX : (int64_t)value);
}

/* A name, a path or a sentence, of whatever bytes: as observe_text() has it. */
static inline struct json_object *document_text(const char *value)
{
    char clean[2 * PATH_MAX];

    return json_object_new_string(observe_text(clean, sizeof(clean), value, false));
}

/* A moment, in ns of CLOCK_REALTIME, as RFC 3339 has it in UTC. NULL too where no date is as far off. */
static inline struct json_object *document_time(uint64_t when)
{
    time_t seconds = (time_t)(when / UINT64_C(1000000000));
    char date[64], whole[96];
    struct tm parts;

    if (!gmtime_r(&seconds, &parts) || !strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts))
        return NULL;
    snprintf(whole, sizeof(whole), "%s.%09uZ", date, (unsigned)(when % UINT64_C(1000000000)));
    return json_object_new_string(whole);
}

#endif
