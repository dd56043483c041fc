/* SPDX-License-Identifier: Apache-2.0 */
/* Rows for tenants and GPUs out of observations: rates, order, and how a GPU's memory is divided. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define KNOWN(key) (1u << (key))

static const char *const key_names[TOP_KEYS] = {"tenant",    "gpu",     "processes", "current", "limit", "peak", "busy",
                                                "throttled", "compute", "weight",    "refused", "new",   "state"};

const char *top_key_name(enum top_key key)
{
    return key_names[key];
}

int top_key_find(const char *name)
{
    for (int i = 0; i < TOP_KEYS; i++) {
        if (strcasecmp(name, key_names[i]) == 0)
            return i;
    }
    return -1;
}

const char *top_state_text(char text[TOP_STATE_MAX], unsigned state, const char *between)
{
    static const char *const words[TOP_STATES] = {"unreadable", "over limit", "refused",   "near limit",
                                                  "throttled",  "suspended",  "releasing", "ended"};
    size_t used = 0;

    strcpy(text, "ok");
    for (unsigned i = 0; i < TOP_STATES; i++) {
        if (state >> i & 1)
            used += (size_t)snprintf(text + used, TOP_STATE_MAX - used, "%s%s", used ? between : "", words[i]);
    }
    return text;
}

bool top_row_is(const struct top_row *row, const char *directory, const char *name, const uint8_t uuid[16])
{
    static const uint8_t none[16];

    return strcmp(row->tenant->name, name) == 0 && strcmp(row->tenant->directory, directory) == 0 &&
           memcmp(row->device ? row->device->uuid : none, uuid, 16) == 0;
}

/* ---- rows */

static void add(uint64_t *sum, uint64_t bytes)
{
    if (__builtin_add_overflow(*sum, bytes, sum))
        *sum = UINT64_MAX;
}

/* The tenant of an observation that is `tenant` of another. Both are in the same order, so the next one is looked at first. */
static const struct observe_tenant *find_tenant(const struct observe *seen, const struct observe_tenant *tenant, unsigned *next)
{
    for (unsigned i = 0; seen && i < seen->tenants; i++) {
        unsigned at = (*next + i) % seen->tenants;

        if (strcmp(seen->tenant[at].name, tenant->name) == 0 && strcmp(seen->tenant[at].directory, tenant->directory) == 0) {
            *next = at + 1;
            return &seen->tenant[at];
        }
    }
    return NULL;
}

static const struct ledger_device_state *find_device(const struct observe_tenant *tenant, const uint8_t uuid[16])
{
    for (unsigned i = 0; tenant && !tenant->problem && i < tenant->view.devices; i++) {
        if (memcmp(tenant->view.device[i].uuid, uuid, 16) == 0)
            return &tenant->view.device[i];
    }
    return NULL;
}

/* How much of the time between two observations a counter of nanoseconds grew by. Work is counted when it is known to be done, so a little of it may
 * be of before, and one that went back is another tenant's of that name. */
static bool share_of(uint64_t before, uint64_t now, uint64_t elapsed, double *share)
{
    if (now < before || !elapsed)
        return false;
    *share = (double)(now - before) / (double)elapsed;
    if (*share > 1)
        *share = 1;
    return true;
}

static void take_rates(struct top_row *row, const struct ledger_device_state *before, uint64_t elapsed)
{
    const struct ledger_device_state *now = row->device;

    if (!before || !elapsed)
        return;
    if (row->known & KNOWN(TOP_REFUSED) && now->events[LEDGER_EVENT_REFUSED] >= before->events[LEDGER_EVENT_REFUSED]) {
        row->refused = now->events[LEDGER_EVENT_REFUSED] - before->events[LEDGER_EVENT_REFUSED];
        row->known |= KNOWN(TOP_NEW);
    }
    if (!now->compute || !before->compute)
        return;
    row->known |= share_of(before->busy, now->busy, elapsed, &row->busy) ? KNOWN(TOP_BUSY) : 0;
    row->known |= share_of(before->throttled, now->throttled, elapsed, &row->throttled) ? KNOWN(TOP_THROTTLED) : 0;
}

static void take_states(struct top_row *row, unsigned device)
{
    const struct ledger_device_state *now = row->device;

    if (row->known & KNOWN(TOP_CURRENT) && now->limit != LEDGER_NO_LIMIT) {
        if (now->current > now->limit)
            row->state |= TOP_OVER;
        else if (now->current >= now->limit - now->limit / 10)
            row->state |= TOP_NEAR;
    }
    if (row->known & KNOWN(TOP_NEW) && row->refused)
        row->state |= TOP_WAS_REFUSED;
    if (row->known & KNOWN(TOP_THROTTLED) && row->throttled > 0)
        row->state |= TOP_WAS_THROTTLED;
    for (unsigned i = 0; row->tenant->member && i < row->tenant->members; i++) {
        const struct observe_member *member = &row->tenant->member[i];

        row->state |= member->suspended ? TOP_SUSPENDED : 0;
        row->state |= member->dead && member->device[device].committed ? TOP_RELEASING : 0;
    }
}

static void take_device(struct top_row *row, unsigned device, const struct ledger_device_state *before, uint64_t elapsed)
{
    row->known |= KNOWN(TOP_GPU);
    if (observe_counts_vram(row->tenant))
        row->known |= KNOWN(TOP_CURRENT) | KNOWN(TOP_LIMIT) | KNOWN(TOP_PEAK) | KNOWN(TOP_REFUSED);
    row->known |= row->device->compute ? KNOWN(TOP_COMPUTE) | KNOWN(TOP_WEIGHT) : 0;
    take_rates(row, before, elapsed);
    take_states(row, device);
}

static void make_rows(struct top_model *model, const struct observe *before, const struct observe *now, const unsigned *tag)
{
    uint64_t elapsed = before && now->clock > before->clock ? now->clock - before->clock : 0;
    unsigned next = 0;

    model->all_rows = 0;
    for (unsigned i = 0; i < now->tenants; i++) {
        const struct observe_tenant *tenant = &now->tenant[i], *old = find_tenant(before, tenant, &next);
        struct top_row row = {.index = i, .tenant = tenant, .tag = tag[i], .known = KNOWN(TOP_TENANT) | KNOWN(TOP_STATE)};

        row.known |= tenant->problem ? 0 : KNOWN(TOP_PROCESSES);
        row.state = tenant->problem ? TOP_UNREADABLE : tenant->view.members ? 0 : TOP_ENDED;
        if (tenant->problem || !tenant->view.devices)
            model->all[model->all_rows++] = row;
        for (unsigned j = 0; !tenant->problem && j < tenant->view.devices; j++) {
            struct top_row *made = &model->all[model->all_rows++];

            *made = row;
            made->device = &tenant->view.device[j];
            made->gpu = observe_find_gpu(now, made->device->uuid);
            take_device(made, j, find_device(old, made->device->uuid), elapsed);
        }
    }
}

static unsigned count_rows(const struct observe *seen)
{
    unsigned count = 0;

    for (unsigned i = 0; i < seen->tenants; i++)
        count += seen->tenant[i].problem || !seen->tenant[i].view.devices ? 1 : seen->tenant[i].view.devices;
    return count;
}

/* Who was there keeps the tag; others get the lowest ones that are free. */
static void give_tags(const struct top_model *model, const struct observe *before, const struct observe *now, unsigned *tag,
                      bool *taken)
{
    unsigned next = 0, lowest = 0;

    for (unsigned i = 0; i < now->tenants; i++) {
        const struct observe_tenant *old = find_tenant(before, &now->tenant[i], &next);
        unsigned at = old ? (unsigned)(old - before->tenant) : 0;

        tag[i] = old && at < model->tags ? model->tag[at] : UINT_MAX;
        if (tag[i] < now->tenants)
            taken[tag[i]] = true;
    }
    for (unsigned i = 0; i < now->tenants; i++) {
        if (tag[i] != UINT_MAX)
            continue;
        while (taken[lowest])
            lowest++;
        tag[i] = lowest++;
    }
}

/* Whether a row's bytes are some of a GPU's. */
static bool is_counted(const struct top_row *row, const struct top_gpu *gpu)
{
    return row->gpu == gpu->gpu && row->known & KNOWN(TOP_CURRENT);
}

static void sum_gpus(struct top_model *model, const struct observe *now)
{
    model->gpus = 0;
    for (unsigned i = 0; i < now->gpus; i++) {
        struct top_gpu *gpu = &model->gpu[model->gpus];

        model->gpus++;
        memset(gpu, 0, sizeof(*gpu));
        gpu->gpu = &now->gpu[i];
        for (unsigned j = 0; j < model->all_rows; j++) {
            const struct top_row *row = &model->all[j];

            if (!is_counted(row, gpu))
                continue;
            gpu->tenants++;
            add(&gpu->current, row->device->current);
            if (row->device->limit == LEDGER_NO_LIMIT)
                gpu->unlimited++;
            else
                add(&gpu->limits, row->device->limit);
        }
        if (gpu->gpu->total && gpu->gpu->used > gpu->current)
            gpu->other = gpu->gpu->used - gpu->current;
    }
}

static void count_tenants(struct top_model *model, const struct observe *now)
{
    model->tenants = now->tenants;
    model->processes = 0;
    for (unsigned i = 0; i < now->tenants; i++)
        model->processes += now->tenant[i].problem ? 0 : now->tenant[i].view.members;
}

int top_model_update(struct top_model *model, const struct observe *before, const struct observe *now)
{
    unsigned count = count_rows(now);
    struct top_row *all = calloc(count + 1, sizeof(*all)), *row = calloc(count + 1, sizeof(*row));
    struct top_gpu *gpu = calloc(now->gpus + 1, sizeof(*gpu));
    unsigned *tag = calloc(now->tenants + 1, sizeof(*tag));
    bool *taken = calloc((size_t)now->tenants + 1, sizeof(*taken));
    bool made = all && row && gpu && tag && taken;

    if (made) {
        give_tags(model, before, now, tag, taken);
        top_model_free(model);
        model->all = all;
        model->row = row;
        model->gpu = gpu;
        model->tag = tag;
        model->tags = now->tenants;
        model->interval = before && now->clock > before->clock ? (double)(now->clock - before->clock) / 1e9 : 0;
        make_rows(model, before, now, tag);
        sum_gpus(model, now);
        count_tenants(model, now);
        top_model_arrange(model);
    } else {
        free(all);
        free(row);
        free(gpu);
        free(tag);
    }
    free(taken);
    return made ? 0 : -ENOMEM;
}

void top_model_free(struct top_model *model)
{
    free(model->all);
    free(model->row);
    free(model->gpu);
    free(model->tag);
    model->all = model->row = NULL;
    model->gpu = NULL;
    model->tag = NULL;
    model->rows = model->all_rows = model->gpus = model->tags = model->tenants = model->processes = 0;
    model->interval = 0;
}

/* ---- order */

static int compare_numbers(double a, double b)
{
    return (a > b) - (a < b);
}

static int compare_words(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_names(const struct top_row *a, const struct top_row *b)
{
    int order = strcmp(a->tenant->name, b->tenant->name);

    if (order == 0)
        order = strcmp(a->tenant->directory, b->tenant->directory);
    if (order == 0 && a->gpu && b->gpu)
        order = compare_words((uintptr_t)a->gpu, (uintptr_t)b->gpu); /* in the order of the observation */
    return order ? order : compare_words((uintptr_t)a->device, (uintptr_t)b->device);
}

/* The gravest of the states first, so less where an earlier bit is set. */
static uint64_t state_rank(unsigned state)
{
    uint64_t rank = 0;

    for (unsigned i = 0; i < TOP_STATES; i++)
        rank |= (uint64_t)(state >> i & 1) << (TOP_STATES - 1 - i);
    return rank;
}

/* Names upwards, figures downwards. */
static int compare_key(enum top_key key, const struct top_row *a, const struct top_row *b)
{
    const struct ledger_device_state *x = a->device, *y = b->device;

    switch (key) {
    case TOP_TENANT:
        return compare_names(a, b);
    case TOP_GPU:
        return compare_words((uintptr_t)a->gpu, (uintptr_t)b->gpu);
    case TOP_PROCESSES:
        return compare_words(b->tenant->view.members, a->tenant->view.members);
    case TOP_CURRENT:
        return compare_words(y->current, x->current);
    case TOP_LIMIT:
        return compare_words(y->limit, x->limit);
    case TOP_PEAK:
        return compare_words(y->peak, x->peak);
    case TOP_BUSY:
        return compare_numbers(b->busy, a->busy);
    case TOP_THROTTLED:
        return compare_numbers(b->throttled, a->throttled);
    case TOP_COMPUTE:
        return compare_words(y->share, x->share);
    case TOP_WEIGHT:
        return compare_words(observe_weight(y), observe_weight(x));
    case TOP_REFUSED:
        return compare_words(y->events[LEDGER_EVENT_REFUSED], x->events[LEDGER_EVENT_REFUSED]);
    case TOP_NEW:
        return compare_words(b->refused, a->refused);
    case TOP_STATE:
        return compare_words(state_rank(b->state), state_rank(a->state));
    case TOP_KEYS:
        break;
    }
    return 0;
}

static int compare_rows(const void *first, const void *second, void *context)
{
    const struct top_model *model = context;
    const struct top_row *a = first, *b = second;
    bool has_a = a->known & KNOWN(model->sort), has_b = b->known & KNOWN(model->sort);
    int order;

    if (has_a != has_b)
        return has_a ? -1 : 1;
    order = has_a ? compare_key(model->sort, a, b) : 0;
    if (model->reverse)
        order = -order;
    return order ? order : compare_names(a, b);
}

void top_model_arrange(struct top_model *model)
{
    model->rows = 0;
    for (unsigned i = 0; i < model->all_rows; i++) {
        const struct top_row *row = &model->all[i];

        if (*model->filter && !strcasestr(row->tenant->name, model->filter))
            continue;
        model->row[model->rows++] = *row;
    }
    qsort_r(model->row, model->rows, sizeof(*model->row), compare_rows, model);
}

/* ---- a GPU's memory */

/* The end of what is already divided, in cells. */
static int edge(double bytes, double whole, int width)
{
    int at = whole > 0 ? (int)(bytes / whole * width + 0.5) : 0;

    return at > width ? width : at;
}

/* One tenant's part: cells from..until are its allotment, those up to `used` are in use. */
static void divide(struct top_cell *cell, int from, int used, int until, bool limited, bool any, unsigned tag)
{
    if (any && used <= from && until > from)
        used = from + 1;
    for (int i = from; i < until; i++)
        cell[i] = (struct top_cell){i >= used ? TOP_CELL_ROOM : i == from ? TOP_CELL_FIRST : TOP_CELL_USED, tag};
    if (limited && (used < until || until - from >= 3))
        cell[until - 1].kind = TOP_CELL_LIMIT;
}

static double allotment(const struct ledger_device_state *device)
{
    return (double)(device->limit == LEDGER_NO_LIMIT || device->limit < device->current ? device->current : device->limit);
}

void top_model_bar(const struct top_model *model, const struct top_gpu *gpu, struct top_cell *cell, int width)
{
    double whole = 0, done = 0;
    bool few = gpu->tenants <= (unsigned)width / 4; /* then each that has something is shown, however little */
    int at = 0, until;

    memset(cell, 0, (size_t)width * sizeof(*cell));
    for (unsigned i = 0; i < model->all_rows; i++)
        whole += is_counted(&model->all[i], gpu) ? allotment(model->all[i].device) : 0;
    whole += (double)gpu->other;
    if (whole < (double)gpu->gpu->total)
        whole = (double)gpu->gpu->total;
    for (unsigned i = 0; i < model->all_rows; i++) {
        const struct ledger_device_state *device = model->all[i].device;

        if (!is_counted(&model->all[i], gpu))
            continue;
        until = edge(done + allotment(device), whole, width);
        if (until <= at && device->current && few && at < width)
            until = at + 1;
        divide(cell, at, edge(done + (double)device->current, whole, width), until, device->limit != LEDGER_NO_LIMIT,
               device->current > 0, model->all[i].tag);
        done += allotment(device);
        at = until > at ? until : at;
    }
    until = edge(done + (double)gpu->other, whole, width);
    for (; at < until; at++)
        cell[at].kind = TOP_CELL_OTHER;
}
