/* SPDX-License-Identifier: Apache-2.0 */
/* Asks a tenant's members, waits for their answers, and puts beside them what the ledger and NVML say. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "explain.h"
#include "softslice/clock.h"

#define PATIENCE  UINT64_C(3000000000) /* ns: members that are woken answer in some ms, others look once a second */
#define BEGINNING UINT64_C(500000000)
#define POLL_NS   20000000
#define MEMBERS   4096

void explain_sum(uint64_t *sum, uint64_t more)
{
    if (__builtin_add_overflow(*sum, more, sum))
        *sum = UINT64_MAX;
}

static void add_sum(struct explain_sum *sum, const struct explain_sum *more)
{
    explain_sum(&sum->count, more->count);
    explain_sum(&sum->bytes, more->bytes);
}

void explain_add_device(struct explain_device *sum, const struct explain_device *more)
{
    sum->flags |= more->flags & (EXPLAIN_POOLS_ASKED | EXPLAIN_GRAPHS_ASKED | EXPLAIN_MOVING);
    explain_sum(&sum->committed, more->committed);
    explain_sum(&sum->pools_used, more->pools_used);
    explain_sum(&sum->graphs_used, more->graphs_used);
    explain_sum(&sum->orphaned, more->orphaned);
    for (unsigned kind = 0; kind < EXPLAIN_KINDS; kind++) {
        add_sum(&sum->kind[kind].all, &more->kind[kind].all);
        for (unsigned i = 0; i < EXPLAIN_CLASSES; i++)
            add_sum(&sum->kind[kind].size[i], &more->kind[kind].size[i]);
    }
}

bool explain_is_meant(const struct explained *explained, unsigned device)
{
    return !explained->uuid || memcmp(explained->uuid, explained->tenant->view.device[device].uuid, 16) == 0;
}

const struct explain_device *explain_answer_of(const struct explained *explained, const struct explained_member *member,
                                               unsigned device)
{
    for (uint32_t i = 0; member->answer && i < member->answer->devices; i++)
        if (memcmp(member->answer->device[i].uuid, explained->tenant->view.device[device].uuid, 16) == 0)
            return &member->answer->device[i];
    return NULL;
}

uint64_t explain_cached(const struct explain_device *device, enum explain_kind kind)
{
    uint64_t known = kind == EXPLAIN_POOL ? EXPLAIN_POOLS_ASKED : EXPLAIN_GRAPHS_ASKED, all = device->kind[kind].all.bytes,
             used = kind == EXPLAIN_POOL ? device->pools_used : device->graphs_used;

    return device->flags & known && all > used ? all - used : 0;
}

/* ---- the tenant */

static int look_at_tenant(const struct observe_request *request, struct observe *seen, char error[OBSERVE_ERROR_MAX])
{
    struct observe_request one = *request;
    const struct observe_tenant *tenant;
    int result;

    one.ended = true;
    one.roots = NULL;
    result = observe(&one, seen, error);
    if (result < 0)
        return result;
    tenant = seen->tenant;
    if (seen->tenants != 1) {
        result = -ENOENT;
        snprintf(error, OBSERVE_ERROR_MAX, "there is no tenant '%.100s'", request->tenant);
    } else if (tenant->problem) {
        result = tenant->problem;
        snprintf(error, OBSERVE_ERROR_MAX, "tenant '%.100s': %s", request->tenant, tenant->reason);
    } else if (!tenant->view.members) {
        result = -ESRCH;
        snprintf(error, OBSERVE_ERROR_MAX, "tenant '%.100s' has ended: nothing of it runs", request->tenant);
    } else if (!tenant->view.devices) {
        result = -ENODEV;
        snprintf(error, OBSERVE_ERROR_MAX, "tenant '%.100s' uses no GPU yet", request->tenant);
    }
    if (result < 0)
        observe_free(seen);
    return result;
}

/* The members by the ledger. Their number or -errno. */
static int read_members(int directory, const struct observe_tenant *tenant, unsigned device, struct ledger_member *list)
{
    int count = ledger_read_members(directory, tenant->name, tenant->view.device[device].uuid, list, MEMBERS);

    return count > MEMBERS ? MEMBERS : count;
}

static struct explained_member *find(struct explained *explained, const struct ledger_member *same)
{
    for (unsigned i = 0; i < explained->members; i++)
        if (explained->member[i].slot == same->slot && explained->member[i].since == same->since)
            return &explained->member[i];
    return NULL;
}

static int note_members(struct explained *explained, int directory, const struct observe_tenant *tenant)
{
    struct ledger_member *list = calloc(MEMBERS, sizeof(*list));
    int count = list ? read_members(directory, tenant, 0, list) : -ENOMEM;

    if (count > 0)
        explained->member = calloc((size_t)count, sizeof(*explained->member));
    if (count > 0 && !explained->member)
        count = -ENOMEM;
    for (int i = 0; i < count; i++)
        explained->member[explained->members++] = (struct explained_member){.slot = list[i].slot,
                                                                            .pid = list[i].pid,
                                                                            .since = list[i].since,
                                                                            .pid_namespace = list[i].pid_namespace,
                                                                            .dead = list[i].dead,
                                                                            .suspended = list[i].suspended};
    free(list);
    return count < 0 ? count : 0;
}

/* Those that are not in the ledger any more, by `here`. One that was being buried at the first look seemed to live then and to hold nothing. */
static void drop_gone(struct explained *explained, const bool *here)
{
    unsigned left = 0;

    for (unsigned i = 0; i < explained->members; i++) {
        if (here[i])
            explained->member[left++] = explained->member[i];
        else
            free(explained->member[i].answer);
    }
    explained->members = left;
}

/* What they hold now; one that has come since is not told. */
static void note_bytes(struct explained *explained, int directory)
{
    struct ledger_member *list = calloc(MEMBERS, sizeof(*list));
    bool here[MEMBERS] = {false};
    bool whole = list;

    for (unsigned device = 0; list && device < explained->tenant->view.devices; device++) {
        int count = read_members(directory, explained->tenant, device, list);

        whole &= count >= 0;
        for (int i = 0; i < count; i++) {
            struct explained_member *member = find(explained, &list[i]);

            if (!member)
                continue;
            here[member - explained->member] = true;
            member->device[device].committed = list[i].committed;
            member->device[device].tentative = list[i].tentative;
            member->device[device].spilled = list[i].spilled;
            member->suspended |= list[i].suspended;
            member->dead |= list[i].dead;
        }
    }
    if (whole)
        drop_gone(explained, here);
    free(list);
}

/* ---- who they are */

static void name_members(struct explained *explained, const struct observe_tenant *tenant)
{
    for (unsigned i = 0; i < explained->members; i++) {
        struct explained_member *member = &explained->member[i];

        for (unsigned j = 0; j < tenant->members; j++) {
            const struct observe_member *same = &tenant->member[j];

            if (same->pid != member->pid || same->pid_namespace != member->pid_namespace)
                continue;
            member->host_pid = same->host_pid;
            memcpy(member->command, same->command, sizeof(member->command));
        }
    }
}

static bool is_stopped(uint32_t pid)
{
    char path[40], line[512], *end;
    FILE *file;
    bool stopped = false;

    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    file = pid ? fopen(path, "re") : NULL;
    if (file && fgets(line, sizeof(line), file) && (end = strrchr(line, ')')))
        stopped = end[1] && (end[2] == 'T' || end[2] == 't');
    if (file)
        fclose(file);
    return stopped;
}

/* As in struct explained_member. */
static int has_thread(uint32_t pid)
{
    char path[64], name[32] = "";
    struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%u/task", pid);
    tasks = pid ? opendir(path) : NULL;
    if (!tasks)
        return -1;
    while (strcmp(name, "softslice\n") != 0 && (entry = readdir(tasks))) {
        FILE *file;

        *name = '\0';
        if (*entry->d_name == '.' || strtoul(entry->d_name, NULL, 10) == pid)
            continue;
        snprintf(path, sizeof(path), "/proc/%u/task/%.20s/comm", pid, entry->d_name);
        file = fopen(path, "re");
        if (file && !fgets(name, sizeof(name), file))
            *name = '\0';
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return strcmp(name, "softslice\n") == 0;
}

/* ---- asking */

static bool await_one(int directory, const char *tenant, struct explained_member *member, uint64_t request)
{
    struct explain answer;

    if (explain_read(directory, tenant, member->slot, member->since, request, &answer) < 0)
        return false;
    member->answer = malloc(sizeof(answer));
    if (member->answer)
        *member->answer = answer;
    return member->answer;
}

/* Whether to wait for one that has not answered: not without the thread that does, but that may be about to begin. */
static bool can_answer(struct explained_member *member, bool early)
{
    if (member->dead || member->suspended || member->stopped)
        return false;
    if (!member->thread)
        member->thread = has_thread(member->host_pid);
    return member->thread || early;
}

static void ask(struct explained *explained, int directory, const char *tenant)
{
    uint64_t request, begun = clock_now();
    int result = ledger_ask(directory, tenant, &request);
    bool missing = true;

    for (unsigned i = 0; i < explained->members; i++)
        explained->member[i].stopped = is_stopped(explained->member[i].host_pid);
    for (unsigned i = 0; i < explained->members; i++)
        explained->member[i].thread = has_thread(explained->member[i].host_pid);
    if (result < 0) {
        explained->not_asked = result == -EACCES || result == -EPERM ? "its ledger belongs to another user"
                               : result == -EROFS                    ? "its file system is read-only"
                               : result == -EMLINK                   ? "its ledger has a second name, so it may be another tenant's"
                                                                     : strerror(-result);
        return;
    }
    while (missing) {
        uint64_t waited = clock_now() - begun;

        missing = false;
        for (unsigned i = 0; i < explained->members; i++) {
            struct explained_member *member = &explained->member[i];

            if (!member->answer && !member->dead && !await_one(directory, tenant, member, request) &&
                can_answer(member, waited < BEGINNING))
                missing = true;
        }
        if (waited >= PATIENCE)
            break;
        if (missing)
            nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
}

/* ---- why one does not answer */

static bool holds_anything(const struct explained *explained, const struct explained_member *member)
{
    for (unsigned i = 0; i < explained->tenant->view.devices; i++)
        if (member->device[i].committed || member->device[i].tentative || member->device[i].spilled)
            return true;
    return false;
}

static const char *why_silent(const struct explained *explained, const struct explained_member *member)
{
    if (member->dead)
        return "it has died, and the driver may not have released its memory yet";
    if (explained->not_asked)
        return "it could not be asked";
    if (member->suspended)
        return "it is checkpointed";
    if (member->stopped || is_stopped(member->host_pid))
        return "it is stopped";
    if (member->thread > 0)
        return "it did not come to it in 3 seconds: it is busy, in a call of the driver perhaps";
    if (!holds_anything(explained, member))
        return "it has no context";
    if (member->thread == 0)
        return "it has no thread of softslice's: it runs with an older one, or the thread could not be started";
    return "it runs with an older softslice, or is busy";
}

/* ---- the neighbours */

static void add_tenant(struct explained *explained, const struct observe_tenant *other)
{
    const struct ledger_view *own = &explained->tenant->view;

    for (unsigned i = 0; i < other->view.devices; i++)
        for (unsigned j = 0; j < own->devices; j++)
            if (memcmp(other->view.device[i].uuid, own->device[j].uuid, 16) == 0)
                explain_sum(&explained->others[j], other->view.device[i].current);
}

static void look_at_others(const struct observe_request *request, struct explained *explained)
{
    const char *const directories[] = {explained->tenant->directory, NULL};
    struct observe_request all = {
        .directories = request->roots ? NULL : directories, .roots = request->roots, .without_members = true, .without_nvml = true};
    const struct observe_tenant *own = explained->tenant;
    char error[OBSERVE_ERROR_MAX];
    struct observe seen;

    if (observe(&all, &seen, error) < 0)
        return;
    for (unsigned i = 0; i < seen.tenants; i++)
        if (!seen.tenant[i].problem &&
            (strcmp(seen.tenant[i].name, own->name) != 0 || strcmp(seen.tenant[i].directory, own->directory) != 0))
            add_tenant(explained, &seen.tenant[i]);
    observe_free(&seen);
}

/* ---- all of it */

/* Who is asked, and what they answer. */
static int interview(const struct observe_request *request, struct explained *explained, char error[OBSERVE_ERROR_MAX])
{
    struct observe_request brief = *request;
    struct observe first;
    int result;

    brief.without_nvml = true;
    result = look_at_tenant(&brief, &first, error);
    if (result < 0)
        return result;
    CLEANUP_CLOSE int directory = observe_open(first.tenant->directory);

    result = directory < 0 ? directory : note_members(explained, directory, first.tenant);
    if (result < 0)
        snprintf(error, OBSERVE_ERROR_MAX, "tenant '%.100s': %s", request->tenant, strerror(-result));
    else
        name_members(explained, first.tenant);
    if (result == 0)
        ask(explained, directory, request->tenant);
    observe_free(&first);
    return result;
}

int explain_collect(const struct observe_request *request, struct explained *explained, char error[OBSERVE_ERROR_MAX])
{
    int result;

    memset(explained, 0, sizeof(*explained));
    explained->uuid = request->uuid;
    result = interview(request, explained, error);
    if (result == 0)
        result = look_at_tenant(request, &explained->seen, error);
    if (result < 0) {
        explain_free(explained);
        return result;
    }
    explained->tenant = explained->seen.tenant;
    CLEANUP_CLOSE int directory = observe_open(explained->tenant->directory);

    if (directory >= 0)
        note_bytes(explained, directory);
    name_members(explained, explained->tenant);
    for (unsigned i = 0; i < explained->members; i++)
        if (!explained->member[i].answer)
            explained->member[i].why = why_silent(explained, &explained->member[i]);
    look_at_others(request, explained);
    return 0;
}

void explain_free(struct explained *explained)
{
    for (unsigned i = 0; i < explained->members; i++)
        free(explained->member[i].answer);
    free(explained->member);
    if (explained->tenant)
        observe_free(&explained->seen);
    memset(explained, 0, sizeof(*explained));
}
