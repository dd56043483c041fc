/* SPDX-License-Identifier: Apache-2.0 */
/* Where a tenant's bytes are, for people. */
#include <stdio.h>
#include <string.h>

#include "explain.h"

const char *explain_size(uint64_t bytes, char text[EXPLAIN_SIZE])
{
    static const char *const units[] = {"KiB", "MiB", "GiB"};
    unsigned shift = 0;

    while (shift < 3 && bytes >> (10 * (shift + 1)))
        shift++;
    if (!shift)
        snprintf(text, EXPLAIN_SIZE, "%llu B", (unsigned long long)bytes);
    else
        snprintf(text, EXPLAIN_SIZE, "%.2f %s", (double)bytes / (double)(UINT64_C(1) << (10 * shift)), units[shift - 1]);
    return text;
}

const char *explain_name(const struct explained_member *member, char name[EXPLAIN_NAME])
{
    uint32_t pid = member->host_pid ? member->host_pid : member->pid;
    char command[sizeof(member->command) * 3];

    if (*member->command)
        snprintf(name, EXPLAIN_NAME, "pid %u (%s)", pid, observe_text(command, sizeof(command), member->command, true));
    else
        snprintf(name, EXPLAIN_NAME, "pid %u", pid);
    return name;
}

static const char *const meaning[EXPLAIN_KINDS] = {
    [EXPLAIN_PLAIN] = "cuMemAlloc, cuMemAllocPitch",
    [EXPLAIN_MANAGED] = "cuMemAllocManaged",
    [EXPLAIN_POOL] = "memory pools, reserved",
    [EXPLAIN_GRAPH] = "graphs' memory, reserved",
    [EXPLAIN_VMM] = "cuMemCreate",
    [EXPLAIN_ASLEEP] = "kept for waking up",
    [EXPLAIN_ARRAY] = "arrays, mipmapped arrays",
    [EXPLAIN_CONTEXT] = "contexts",
    [EXPLAIN_MODULE] = "modules",
    [EXPLAIN_DRIVER] = "contexts, modules, heaps: by the driver",
    [EXPLAIN_ROUNDING] = "rest of shared granules",
    [EXPLAIN_SPILLED] = "on the host",
    [EXPLAIN_IMPORTED] = "opened, charged to its maker",
};

static void print_sums(enum explain_kind kind, const struct explain_sums *sums)
{
    char size[EXPLAIN_SIZE], part[EXPLAIN_SIZE];

    printf("    %-41s %8llu %12s", meaning[kind], (unsigned long long)sums->all.count, explain_size(sums->all.bytes, size));
    for (unsigned i = 0; i < EXPLAIN_CLASSES; i++)
        printf(" %12s", sums->size[i].count ? explain_size(sums->size[i].bytes, part) : "-");
    printf("\n");
}

static void print_line(const char *what, uint64_t bytes)
{
    char size[EXPLAIN_SIZE];

    printf("    %-41s %8s %12s\n", what, "", explain_size(bytes, size));
}

static void print_account(const struct explain_device *device)
{
    static const char *const classes[EXPLAIN_CLASSES] = {"<= 64 KiB", "<= 2 MiB", "<= 64 MiB", "<= 1 GiB", "above"};

    printf("    %-41s %8s %12s", "", "count", "bytes");
    for (unsigned i = 0; i < EXPLAIN_CLASSES; i++)
        printf(" %12s", classes[i]);
    printf("\n");
    for (unsigned kind = 0; kind < EXPLAIN_KINDS; kind++) {
        if (!device->kind[kind].all.count || (kind == EXPLAIN_CONTEXT && !device->kind[kind].all.bytes))
            continue;
        print_sums(kind, &device->kind[kind]);
        if (kind == EXPLAIN_POOL && device->flags & EXPLAIN_POOLS_ASKED)
            print_line("  of that cached", explain_cached(device, EXPLAIN_POOL));
        if (kind == EXPLAIN_POOL && device->orphaned)
            print_line("  of that in destroyed pools", device->orphaned);
        if (kind == EXPLAIN_GRAPH && device->flags & EXPLAIN_GRAPHS_ASKED)
            print_line("  of that cached", explain_cached(device, EXPLAIN_GRAPH));
    }
    if (device->committed > explain_charged(device))
        print_line("not told: it was allocating", device->committed - explain_charged(device));
    if (device->committed < explain_charged(device))
        print_line("told too much: it was freeing", explain_charged(device) - device->committed);
}

static void print_member(const struct explained *explained, const struct explained_member *member, unsigned i)
{
    const struct explain_device *device = explain_answer_of(explained, member, i);
    char name[EXPLAIN_NAME], size[EXPLAIN_SIZE], way[EXPLAIN_SIZE], spilled[EXPLAIN_SIZE];

    printf("\n  %s: %s", explain_name(member, name), explain_size(member->device[i].committed, size));
    if (member->device[i].tentative)
        printf(" and %s on their way", explain_size(member->device[i].tentative, way));
    if (member->device[i].spilled)
        printf(", %s on the host", explain_size(member->device[i].spilled, spilled));
    if (!member->answer)
        printf(" (does not answer: %s)", member->why);
    else if (member->suspended)
        printf(" (checkpointed)");
    printf("\n");
    if (device)
        print_account(device);
}

static bool has_part(const struct explained *explained, const struct explained_member *member, unsigned i)
{
    return member->device[i].committed || member->device[i].tentative || member->device[i].spilled ||
           explain_answer_of(explained, member, i);
}

static void print_sum(const struct explained *explained, unsigned i)
{
    struct explain_device sum = {.flags = 0};
    unsigned members = 0;

    for (unsigned j = 0; j < explained->members; j++) {
        const struct explain_device *device = explain_answer_of(explained, &explained->member[j], i);

        if (!device || explained->member[j].suspended)
            continue;
        explain_add_device(&sum, device);
        members++;
    }
    if (members < 2)
        return;
    printf("\n  all %u that answer\n", members);
    print_account(&sum);
}

static void print_events(const struct ledger_device_state *state)
{
    unsigned long long refused = state->events[LEDGER_EVENT_REFUSED], oom = state->events[LEDGER_EVENT_OOM];

    if (refused || oom)
        printf("  refused: %llu by the budget, %llu by the driver\n", refused, oom);
}

static void print_device(const struct explained *explained, unsigned i)
{
    const struct ledger_device_state *state = &explained->tenant->view.device[i];
    const struct observe_gpu *gpu = observe_find_gpu(&explained->seen, state->uuid);
    char uuid[OBSERVE_UUID], now[EXPLAIN_SIZE], limit[EXPLAIN_SIZE], peak[EXPLAIN_SIZE], name[sizeof(gpu->name)];
    char total[EXPLAIN_SIZE], left[EXPLAIN_SIZE], others[EXPLAIN_SIZE], tenant[OBSERVE_TEXT];
    struct verdict verdict;

    observe_uuid_text(state->uuid, uuid);
    printf("tenant %s on %s%s%s%s\n", observe_text(tenant, sizeof(tenant), explained->tenant->name, true),
           gpu ? gpu->uuid_text : uuid, gpu && *gpu->name ? " (" : "", gpu ? observe_text(name, sizeof(name), gpu->name, true) : "",
           gpu && *gpu->name ? ")" : "");
    printf("  %s of %s in use, peak %s\n", explain_size(state->current, now),
           state->limit == LEDGER_NO_LIMIT ? "no limit" : explain_size(state->limit, limit), explain_size(state->peak, peak));
    print_events(state);
    if (gpu && gpu->total)
        printf("  the GPU: %s free of %s; other tenants hold %s\n",
               explain_size(gpu->total > gpu->used ? gpu->total - gpu->used : 0, left), explain_size(gpu->total, total),
               explain_size(explained->others[i], others));
    for (unsigned j = 0; j < explained->members; j++)
        if (has_part(explained, &explained->member[j], i))
            print_member(explained, &explained->member[j], i);
    print_sum(explained, i);
    explain_judge(explained, i, &verdict);
    printf("\n");
    for (unsigned j = 0; j < verdict.count; j++)
        printf("  * %s\n", verdict.reason[j]);
}

static bool is_used(const struct explained *explained, unsigned i)
{
    const struct ledger_device_state *state = &explained->tenant->view.device[i];

    return explained->uuid || state->current || state->peak || state->events[LEDGER_EVENT_REFUSED] ||
           explained->tenant->view.devices == 1;
}

void explain_print(const struct explained *explained)
{
    bool printed = false;

    for (unsigned i = 0; i < explained->tenant->view.devices; i++) {
        if (!explain_is_meant(explained, i) || !is_used(explained, i))
            continue;
        if (printed)
            printf("\n");
        print_device(explained, i);
        printed = true;
    }
    if (!printed) {
        char tenant[OBSERVE_TEXT];

        printf("tenant %s has used none of its GPUs yet\n", observe_text(tenant, sizeof(tenant), explained->tenant->name, true));
    }
}
