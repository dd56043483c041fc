/* SPDX-License-Identifier: Apache-2.0 */
/* The last five minutes of each tenant on each GPU, in a ring of fixed size. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exporter.h"

#define SAMPLES 150
#define SERIES  256
#define RECENT  5 /* samples that a present rate is taken from */
#define UNKNOWN UINT64_MAX

struct series {
    char *tenant, *directory; /* NULL: this place is free */
    uint8_t uuid[16];
    char gpu[OBSERVE_UUID];
    unsigned idle; /* samples since it was seen last */
    bool compute;  /* what follows was known in the last sample */
    uint64_t clock, busy_ns, throttled_ns, refused_count;
    float busy[SAMPLES], throttled[SAMPLES]; /* NAN: not known */
    uint64_t current[SAMPLES], refused[SAMPLES];
};

static struct series all[SERIES];
static uint64_t moments[SAMPLES]; /* CLOCK_REALTIME, ns */
static unsigned next, filled;     /* the place of the next sample; how many there are */
static uint64_t samples_ever;
static unsigned omitted; /* series that had no place in the last sample */

static bool is_of(const struct series *series, const struct observe_tenant *tenant, const uint8_t uuid[16])
{
    return series->tenant && memcmp(series->uuid, uuid, sizeof(series->uuid)) == 0 && strcmp(series->tenant, tenant->name) == 0 &&
           strcmp(series->directory, tenant->directory) == 0;
}

static struct series *find(const struct observe_tenant *tenant, const uint8_t uuid[16])
{
    for (unsigned i = 0; i < SERIES; i++) {
        if (is_of(&all[i], tenant, uuid))
            return &all[i];
    }
    return NULL;
}

static void forget(struct series *series, unsigned at)
{
    series->busy[at] = series->throttled[at] = NAN;
    series->current[at] = series->refused[at] = UNKNOWN;
}

static void end(struct series *series)
{
    free(series->tenant);
    free(series->directory);
    series->tenant = series->directory = NULL;
}

static struct series *begin(const struct observe *seen, const struct observe_tenant *tenant, const uint8_t uuid[16])
{
    struct series *series = NULL;
    char gpu[OBSERVE_UUID];

    for (unsigned i = 0; i < SERIES && !series; i++)
        series = all[i].tenant ? NULL : &all[i];
    if (!series)
        return NULL;
    series->tenant = strdup(tenant->name);
    series->directory = strdup(tenant->directory);
    if (!series->tenant || !series->directory) {
        end(series);
        return NULL;
    }
    memcpy(series->uuid, uuid, sizeof(series->uuid));
    snprintf(series->gpu, sizeof(series->gpu), "%s", metrics_gpu(seen, uuid, gpu));
    series->clock = 0;
    series->compute = false;
    for (unsigned i = 0; i < SAMPLES; i++)
        forget(series, i);
    return series;
}

/* How much of the time between two samples a counter of time grew. */
static float rate(uint64_t before, uint64_t now, uint64_t time)
{
    double ratio = (double)(now - before) / (double)time;

    return now < before ? NAN : ratio > 1 ? 1 : (float)ratio;
}

static void add(struct series *series, const struct observe_tenant *tenant, const struct ledger_device_state *state, uint64_t clock)
{
    bool known = series->clock && clock > series->clock && series->idle == 1, vram = observe_counts_vram(tenant);
    uint64_t time = clock - series->clock, refused = state->events[LEDGER_EVENT_REFUSED];

    series->idle = 0;
    if (known && series->compute && state->compute) {
        series->busy[next] = rate(series->busy_ns, state->busy, time);
        series->throttled[next] = rate(series->throttled_ns, state->throttled, time);
    }
    if (vram) {
        series->current[next] = state->current;
        if (known && refused >= series->refused_count)
            series->refused[next] = refused - series->refused_count;
    }
    series->clock = clock;
    series->compute = state->compute;
    series->busy_ns = state->busy;
    series->throttled_ns = state->throttled;
    series->refused_count = refused;
}

void history_add(const struct observe *seen, uint64_t when)
{
    moments[next] = when;
    for (unsigned i = 0; i < SERIES; i++) {
        if (!all[i].tenant)
            continue;
        forget(&all[i], next);
        if (++all[i].idle > SAMPLES)
            end(&all[i]);
    }
    omitted = 0;
    for (unsigned t = 0; seen && t < seen->tenants; t++) {
        const struct observe_tenant *tenant = &seen->tenant[t];

        for (unsigned d = 0; !tenant->problem && d < tenant->view.devices; d++) {
            struct series *series = find(tenant, tenant->view.device[d].uuid);

            if (!series)
                series = begin(seen, tenant, tenant->view.device[d].uuid);
            if (series)
                add(series, tenant, &tenant->view.device[d], seen->clock);
            else
                omitted++;
        }
    }
    samples_ever++;
    next = (next + 1) % SAMPLES;
    filled += filled < SAMPLES;
}

bool history_busy(const struct observe_tenant *tenant, const uint8_t uuid[16], double *ratio)
{
    const struct series *series = find(tenant, uuid);
    unsigned count = 0;
    double sum = 0;

    for (unsigned i = 1; series && i <= RECENT && i <= filled; i++) {
        float busy = series->busy[(next + SAMPLES - i) % SAMPLES];

        if (isnan(busy))
            continue;
        sum += (double)busy;
        count++;
    }
    *ratio = count ? sum / count : 0;
    return count;
}

uint64_t history_number(void)
{
    return samples_ever;
}

/* ---- as JSON */

static void write_ratio(struct out *out, float ratio)
{
    if (isnan(ratio))
        out_text(out, "null");
    else
        out_print(out, "%.4f", (double)ratio);
}

static void write_number(struct out *out, uint64_t number)
{
    if (number == UNKNOWN)
        out_text(out, "null");
    else
        out_print(out, "%" PRIu64, number);
}

/* One array of a series, oldest sample first. */
static void write_array(struct out *out, const char *name, const float *ratios, const uint64_t *numbers)
{
    out_print(out, ",\"%s\":[", name);
    for (unsigned i = 0; i < filled; i++) {
        unsigned at = (next + SAMPLES - filled + i) % SAMPLES;

        if (i)
            out_text(out, ",");
        if (ratios)
            write_ratio(out, ratios[at]);
        else
            write_number(out, numbers[at]);
    }
    out_text(out, "]");
}

static void write_series(struct out *out, const struct series *series)
{
    out_text(out, "{\"tenant\":");
    out_json(out, series->tenant);
    out_text(out, ",\"directory\":");
    out_json(out, series->directory);
    out_print(out, ",\"gpu\":\"%s\"", series->gpu);
    write_array(out, "busy", series->busy, NULL);
    write_array(out, "throttled", series->throttled, NULL);
    write_array(out, "current", NULL, series->current);
    write_array(out, "refused", NULL, series->refused);
    out_text(out, "}");
}

void history_json(struct out *out)
{
    bool first = true;

    out_print(out, "{\"interval_seconds\":%u,\"omitted\":%u,\"when\":[", (unsigned)(EXPORTER_SAMPLE / 1000000000), omitted);
    for (unsigned i = 0; i < filled; i++) {
        uint64_t when = moments[(next + SAMPLES - filled + i) % SAMPLES];

        out_print(out, "%s%" PRIu64 ".%03" PRIu64, i ? "," : "", when / 1000000000, when / 1000000 % 1000);
    }
    out_text(out, "],\"series\":[");
    for (unsigned i = 0; i < SERIES; i++) {
        if (!all[i].tenant)
            continue;
        if (!first)
            out_text(out, ",");
        first = false;
        write_series(out, &all[i]);
    }
    out_text(out, "]}\n");
}

void history_free(void)
{
    for (unsigned i = 0; i < SERIES; i++)
        end(&all[i]);
}
