/* SPDX-License-Identifier: Apache-2.0 */
/* What `softslice top` shows, without any screen: a row for each tenant and GPU, and what happened between two observations. */
#ifndef SOFTSLICE_CLI_TOP_MODEL_H
#define SOFTSLICE_CLI_TOP_MODEL_H

#include "../observe.h"

/* What rows are sorted by, and a bit of top_row.known for each: what is not known is told as such, and sorts last in either direction. */
enum top_key {
    TOP_TENANT,
    TOP_GPU,
    TOP_PROCESSES,
    TOP_CURRENT,
    TOP_LIMIT, /* known, and LEDGER_NO_LIMIT, where there is none */
    TOP_PEAK,
    TOP_BUSY,
    TOP_THROTTLED,
    TOP_COMPUTE,
    TOP_WEIGHT,
    TOP_REFUSED,
    TOP_NEW,
    TOP_STATE,
    TOP_KEYS
};

/* What is to be said of a row, the gravest first. */
enum top_state {
    TOP_UNREADABLE = 1,
    TOP_OVER = 2,        /* more than its limit, which was lowered */
    TOP_WAS_REFUSED = 4, /* since the observation before */
    TOP_NEAR = 8,        /* less than a tenth of its limit is left */
    TOP_WAS_THROTTLED = 16,
    TOP_SUSPENDED = 32, /* a member is checkpointed */
    TOP_RELEASING = 64, /* a member died, and the driver may not have released its bytes yet */
    TOP_ENDED = 128,    /* nothing of it runs; seen where it was asked for by its name */
    TOP_STATES = 8
};

struct top_row {
    unsigned index; /* of the tenant in the observation */
    const struct observe_tenant *tenant;
    const struct ledger_device_state *device; /* NULL: it uses no GPU yet, or cannot be read */
    const struct observe_gpu *gpu;            /* NULL as well then */
    unsigned known, state;                    /* bits */
    unsigned tag;                             /* a small number that stays the tenant's own while it lives */
    double busy, throttled;                   /* of the time between the observations, 0 to 1 */
    uint64_t refused;                         /* between them */
};

struct top_gpu {
    const struct observe_gpu *gpu;
    unsigned tenants, unlimited;
    uint64_t current, limits, other; /* bytes: of all tenants, their limits added, and of others as far as NVML can tell */
};

struct top_model {
    enum top_key sort;
    bool reverse;
    char filter[128];    /* tenants with this in their names, in either case; "" all */
    struct top_row *row; /* those that match, sorted */
    unsigned rows;
    struct top_gpu *gpu;
    unsigned gpus, tenants, processes;
    double interval; /* seconds between the observations; 0: there is only one */

    struct top_row *all; /* the rest is the model's own */
    unsigned all_rows;
    unsigned *tag, tags;
};

/* Take a new observation; `before` is the one that was taken last, or NULL. Both must stay as they are until the next call. 0 or -ENOMEM, with the model
 * as it was. */
int top_model_update(struct top_model *model, const struct observe *before, const struct observe *now);

/* Filter and sort again, after a change of sort, reverse or filter. */
void top_model_arrange(struct top_model *model);

/* Leave nothing but sort, reverse and filter. */
void top_model_free(struct top_model *model);

/* The name of a key, as --sort takes it, and back (-1: there is none of that name). */
const char *top_key_name(enum top_key key);
int top_key_find(const char *name);

/* Whether a row's tenant and GPU are those of another, perhaps of an earlier observation. */
bool top_row_is(const struct top_row *row, const char *directory, const char *name, const uint8_t uuid[16]);

/* The words for a state, joined by `between`; "ok" for none. Returns `text`. */
#define TOP_STATE_MAX 96
const char *top_state_text(char text[TOP_STATE_MAX], unsigned state, const char *between);

/* ---- a GPU's memory as a bar */

enum top_cell_kind { TOP_CELL_FREE, TOP_CELL_FIRST, TOP_CELL_USED, TOP_CELL_ROOM, TOP_CELL_LIMIT, TOP_CELL_OTHER };

struct top_cell {
    enum top_cell_kind kind;
    unsigned tag; /* of the tenant */
};

/* Divide `width` cells among a GPU's tenants in the order of the observation: what each uses, its room up to its limit, and a mark there; then what others
 * use. The whole is the GPU's memory, or the limits where they come to more. */
void top_model_bar(const struct top_model *model, const struct top_gpu *gpu, struct top_cell *cell, int width);

#endif
