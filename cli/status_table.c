/* SPDX-License-Identifier: Apache-2.0 */
/* What `softslice status` prints for people: GPUs, tenants, processes, each a table whose columns are as wide as what stands in them. */
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "cdi.h"
#include "status.h"

#define COLUMNS    11
#define CELL       OBSERVE_TEXT
#define WIDTH_MOST 64 /* a tenant's name has 63 characters; a longer text moves the rest of its line */
#define UNKNOWN    "-"

/* A table is printed twice: the first time to nowhere, to learn how wide its columns are. */
struct table {
    bool measuring, colors, ascii;
    unsigned columns, right; /* bits: columns of numbers */
    unsigned width[COLUMNS];
};

enum color { PLAIN, BOLD, WARN, BAD };
static const char *const escapes[] = {"", "\033[1m", "\033[33m", "\033[31m"};

struct row {
    char cell[COLUMNS][CELL];
    enum color color[COLUMNS];
};

static unsigned width_of(const char *text)
{
    wchar_t wide[CELL];
    size_t length = mbstowcs(wide, text, CELL);
    int width = length == (size_t)-1 ? -1 : wcswidth(wide, length);

    return width < 0 ? (unsigned)strlen(text) : (unsigned)width;
}

static void print_cell(const struct table *table, const struct row *row, unsigned column)
{
    unsigned width = width_of(row->cell[column]), pad = width < table->width[column] ? table->width[column] - width : 0;
    bool right = table->right >> column & 1, last = column + 1 == table->columns, colored = table->colors && row->color[column];

    printf("%s%*s%s%s%s%*s", column ? "  " : "", right ? (int)pad : 0, "", colored ? escapes[row->color[column]] : "",
           row->cell[column], colored ? "\033[0m" : "", right || last ? 0 : (int)pad, "");
}

static void put_row(struct table *table, const struct row *row)
{
    if (!table->measuring) {
        for (unsigned i = 0; i < table->columns; i++)
            print_cell(table, row, i);
        putchar('\n');
        return;
    }
    for (unsigned i = 0; i < table->columns; i++) {
        unsigned width = width_of(row->cell[i]);

        if (width > table->width[i] && width <= WIDTH_MOST)
            table->width[i] = width;
    }
}

static void put_head(struct table *table, const char *const *titles)
{
    struct row row = {0};

    for (unsigned i = 0; i < table->columns; i++) {
        snprintf(row.cell[i], CELL, "%s", titles[i]);
        row.color[i] = BOLD;
    }
    put_row(table, &row);
}

static void put_line(const struct table *table, enum color color, const char *text)
{
    if (!table->measuring)
        printf("%s%s%s\n", table->colors ? escapes[color] : "", text, table->colors ? "\033[0m" : "");
}

/* ---- cells */

/* What is there and too little for two digits is not shown as nothing. */
static void gib(char *cell, uint64_t bytes)
{
    double value = (double)bytes / (double)(UINT64_C(1) << 30);

    snprintf(cell, CELL, "%s%.2f GiB", bytes && value < 0.01 ? "<" : "", bytes && value < 0.01 ? 0.01 : value);
}

static void percent(char *cell, double share)
{
    snprintf(cell, CELL, "%.1f%%", 100 * share);
}

/* What people see of a GPU in nvidia-smi, or the beginning of its UUID. */
static void gpu_cell(const struct observe *seen, const uint8_t uuid[16], char *cell)
{
    const struct observe_gpu *gpu = observe_find_gpu(seen, uuid);

    if (gpu && gpu->index >= 0)
        snprintf(cell, CELL, "%d", gpu->index);
    else if (gpu)
        snprintf(cell, CELL, "%.12s", gpu->uuid_text);
    else
        snprintf(cell, CELL, UNKNOWN);
}

/* ---- GPUs */

static void put_gpus(struct table *table, const struct observe *before, const struct observe *seen)
{
    static const char *const titles[] = {"GPU", "NAME", "UUID", "USED", "TOTAL"};

    (void)before;
    table->columns = 5;
    table->right = 1 << 3 | 1 << 4;
    put_head(table, titles);
    for (unsigned i = 0; i < seen->gpus; i++) {
        const struct observe_gpu *gpu = &seen->gpu[i];
        struct row row = {0};

        gpu_cell(seen, gpu->uuid, row.cell[0]);
        observe_text(row.cell[1], CELL, *gpu->name ? gpu->name : UNKNOWN, table->ascii);
        snprintf(row.cell[2], CELL, "%s", gpu->uuid_text);
        snprintf(row.cell[3], CELL, UNKNOWN);
        snprintf(row.cell[4], CELL, UNKNOWN);
        if (gpu->total) {
            gib(row.cell[3], gpu->used);
            gib(row.cell[4], gpu->total);
        }
        put_row(table, &row);
    }
}

/* ---- tenants */

enum { TENANT, GPU, CURRENT, LIMIT, PEAK, SHARE, BUSY, THROTTLED, PROCESSES, REFUSED, WEIGHT };

static void fill_vram(struct row *row, const struct ledger_device_state *state)
{
    bool limited = state->limit != LEDGER_NO_LIMIT;

    gib(row->cell[CURRENT], state->current);
    if (limited)
        gib(row->cell[LIMIT], state->limit);
    else
        snprintf(row->cell[LIMIT], CELL, "none");
    gib(row->cell[PEAK], state->peak);
    snprintf(row->cell[REFUSED], CELL, "%llu", (unsigned long long)state->events[LEDGER_EVENT_REFUSED]);
    if (limited && (double)state->current >= 0.9 * (double)state->limit)
        row->color[CURRENT] = WARN;
    if (state->events[LEDGER_EVENT_REFUSED])
        row->color[REFUSED] = BAD;
}

static void fill_compute(struct row *row, const struct observe *before, const struct observe *seen,
                         const struct observe_tenant *tenant, unsigned device)
{
    unsigned share = tenant->view.device[device].share;
    double busy, throttled;

    snprintf(row->cell[WEIGHT], CELL, "%u", observe_weight(&tenant->view.device[device]));
    snprintf(row->cell[SHARE], CELL, "%.*f%%", share % 10 ? 2 : share % 100 ? 1 : 0, share / 100.0);
    if (!before || !observe_rate(before, seen, tenant, device, &busy, &throttled))
        return;
    percent(row->cell[BUSY], busy);
    percent(row->cell[THROTTLED], throttled);
    if (throttled >= 0.5)
        row->color[THROTTLED] = WARN;
}

/* One row for each of its GPUs, or one without. */
static void put_tenant(struct table *table, const struct observe *before, const struct observe *seen,
                       const struct observe_tenant *tenant)
{
    unsigned devices = tenant->view.devices;

    for (unsigned i = 0; i < (devices ? devices : 1); i++) {
        struct row row = {0};

        for (unsigned column = GPU; column < COLUMNS; column++)
            snprintf(row.cell[column], CELL, UNKNOWN);
        observe_text(row.cell[TENANT], CELL, tenant->name, table->ascii);
        snprintf(row.cell[PROCESSES], CELL, "%u", tenant->view.members);
        if (devices) {
            gpu_cell(seen, tenant->view.device[i].uuid, row.cell[GPU]);
            if (observe_counts_vram(tenant))
                fill_vram(&row, &tenant->view.device[i]);
            if (tenant->view.device[i].compute)
                fill_compute(&row, before, seen, tenant, i);
        }
        put_row(table, &row);
    }
}

static void put_unreadable(struct table *table, const struct observe_tenant *tenant)
{
    char name[CELL], line[3 * CELL];
    unsigned width = width_of(observe_text(name, sizeof(name), tenant->name, table->ascii)), most = table->width[TENANT];

    if (table->measuring && width > most && width <= WIDTH_MOST)
        table->width[TENANT] = width;
    snprintf(line, sizeof(line), "%s%*s  cannot be read: %s", name, width < most ? (int)(most - width) : 0, "", tenant->reason);
    put_line(table, WARN, line);
}

/* Where the next tenants are, if that is not the same for all: `place` is where the one before is. */
static void put_place(struct table *table, const struct observe *seen, const struct observe_tenant *tenant, const char **place)
{
    bool places = seen->directories && *seen->directories && seen->directories[1], same = *place == tenant->directory;
    const char *const labels[] = {tenant->namespace, tenant->pod, tenant->container};
    char clean[2 * PATH_MAX], line[2 * PATH_MAX + 3 * OBSERVE_LABEL + 8];
    size_t length;

    *place = tenant->directory;
    if (same || !(places || *tenant->pod || *tenant->namespace || *tenant->container))
        return;
    observe_text(clean, sizeof(clean), tenant->directory, table->ascii);
    length = (size_t)snprintf(line, sizeof(line), "%s", clean);
    for (unsigned i = 0, told = 0; i < 3; i++) {
        if (*labels[i])
            length += (size_t)snprintf(line + length, sizeof(line) - length, "%s%s", told++ ? "/" : ": ", labels[i]);
    }
    put_line(table, PLAIN, line);
}

static bool any_weight(const struct observe *seen)
{
    for (unsigned i = 0; i < seen->tenants; i++) {
        for (unsigned j = 0; !seen->tenant[i].problem && j < seen->tenant[i].view.devices; j++) {
            if (seen->tenant[i].view.device[j].compute && seen->tenant[i].view.device[j].weight)
                return true;
        }
    }
    return false;
}

static void put_tenants(struct table *table, const struct observe *before, const struct observe *seen)
{
    static const char *const titles[] = {"TENANT", "GPU",       "VRAM",      "LIMIT",   "PEAK",  "SHARE",
                                         "BUSY",   "THROTTLED", "PROCESSES", "REFUSED", "WEIGHT"};
    const char *place = NULL;

    table->columns = any_weight(seen) ? COLUMNS : WEIGHT;
    table->right = ~3U;
    put_head(table, titles);
    for (unsigned i = 0; i < seen->tenants; i++) {
        const struct observe_tenant *tenant = &seen->tenant[i];

        put_place(table, seen, tenant, &place);
        if (tenant->problem)
            put_unreadable(table, tenant);
        else
            put_tenant(table, before, seen, tenant);
    }
}

/* ---- processes */

static void put_member(struct table *table, const struct observe *seen, const struct observe_tenant *tenant,
                       const struct observe_member *member)
{
    unsigned devices = observe_counts_vram(tenant) ? tenant->view.devices : 0;

    for (unsigned i = 0; i < (devices ? devices : 1); i++) {
        struct row row = {0};

        for (unsigned column = 0; column < COLUMNS; column++)
            snprintf(row.cell[column], CELL, UNKNOWN);
        observe_text(row.cell[0], CELL, tenant->name, table->ascii);
        if (member->host_pid)
            snprintf(row.cell[1], CELL, "%u", member->host_pid);
        snprintf(row.cell[2], CELL, "%u", member->pid);
        if (*member->command)
            observe_text(row.cell[3], CELL, member->command, table->ascii);
        snprintf(row.cell[4], CELL, "%s", member->dead ? "dead" : member->suspended ? "checkpointed" : "running");
        if (devices) {
            gpu_cell(seen, tenant->view.device[i].uuid, row.cell[5]);
            gib(row.cell[6], member->device[i].committed);
            gib(row.cell[7], member->device[i].spilled);
        }
        put_row(table, &row);
    }
}

static void put_members(struct table *table, const struct observe *before, const struct observe *seen)
{
    static const char *const titles[] = {"TENANT", "PID", "INNER PID", "COMMAND", "STATE", "GPU", "VRAM", "SPILLED"};
    const char *place = NULL;

    (void)before;
    table->columns = 8;
    table->right = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 7;
    put_head(table, titles);
    for (unsigned i = 0; i < seen->tenants; i++) {
        if (seen->tenant[i].members)
            put_place(table, seen, &seen->tenant[i], &place);
        for (unsigned j = 0; j < seen->tenant[i].members; j++)
            put_member(table, seen, &seen->tenant[i], &seen->tenant[i].member[j]);
    }
}

/* ---- the whole */

static void print_table(void (*put)(struct table *, const struct observe *, const struct observe *), const struct observe *before,
                        const struct observe *seen)
{
    const char *terminal = getenv("TERM"), *none = getenv("NO_COLOR");
    struct table table = {.ascii = strcmp(nl_langinfo(CODESET), "UTF-8") != 0};

    table.colors = isatty(STDOUT_FILENO) && !(none && *none) && terminal && strcmp(terminal, "dumb") != 0;
    table.measuring = true;
    put(&table, before, seen);
    table.measuring = false;
    put(&table, before, seen);
}

void status_table(const struct observe *before, const struct observe *seen, bool containers)
{
    char clean[2 * PATH_MAX];
    bool members = false;

    setlocale(LC_CTYPE, "");
    for (unsigned i = 0; i < seen->tenants; i++)
        members |= seen->tenant[i].members > 0;
    if (seen->gpus) {
        print_table(put_gpus, before, seen);
        putchar('\n');
    }
    if (seen->tenants)
        print_table(put_tenants, before, seen);
    else if (seen->directories && *seen->directories && !seen->directories[1])
        printf("No tenants in %s%s\n", observe_text(clean, sizeof(clean), *seen->directories, true),
               containers ? "; containers have theirs: --root " CDI_ROOT : ".");
    else
        puts("No tenants.");
    if (members) {
        putchar('\n');
        print_table(put_members, before, seen);
    }
}
