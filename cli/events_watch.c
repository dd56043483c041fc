/* SPDX-License-Identifier: Apache-2.0 */
/* Finds what happened in tenants since the last look: by their rings of events, by their dead, and by their counters where nobody tells. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "events.h"

#define BATCH     64                    /* events that are read at once */
#define SAID_DEAD 4096                  /* of whom it is kept that they were said to have died */
#define RATE_NS   UINT64_C(1000000000)  /* between two looks at the dead and at what is throttled */
#define MANY      (16 * LEDGER_DEVICES) /* dead that are told of at once */

/* What a device was like. */
struct known {
    uint8_t uuid[16];
    uint64_t limit, refused, oom, throttled, nr_throttled, nr_periods;
    uint32_t share, weight;
    bool compute;
};

struct watched {
    char *directory, *name;
    struct ledger_cursor cursor;
    uint64_t lost, damaged; /* told */
    uint64_t looked;        /* clock: when the members and counters were last looked at */
    struct known *known;    /* as of then */
    unsigned devices, members;
    bool ringless, warned;
    uint64_t *dead; /* `since` of the slots of those who were said to have died; the last `room` of them */
    unsigned deaths, room;
    unsigned missed; /* of those, who may still be among `members` */
};

struct watch {
    struct watched *list, *former; /* by directory and name; the former look's too, for its names are still in use */
    unsigned count, formers;
};

struct event *events_add(struct events *events)
{
    if (events->count == events->room) {
        unsigned room = events->room ? 2 * events->room : 64;
        struct event *grown = realloc(events->event, room * sizeof(*grown));

        if (!grown)
            return NULL;
        events->event = grown;
        events->room = room;
    }
    memset(&events->event[events->count], 0, sizeof(*events->event));
    events->event[events->count].number = events->count;
    return &events->event[events->count++];
}

/* ---- one tenant */

struct looking {
    struct watched *watched;
    const struct observe_tenant *tenant;
    const struct observe *seen;
    int directory;
    bool all, failed;
    struct events *events;
};

static struct event *add(struct looking *looking, unsigned kind, bool derived)
{
    struct event *event = events_add(looking->events);

    if (!event) {
        looking->failed = true;
        return NULL;
    }
    event->directory = looking->watched->directory;
    event->tenant = looking->watched->name;
    event->kind = kind;
    event->derived = derived;
    event->told.time = looking->seen->when;
    event->told.count = 1;
    return event;
}

static bool said_dead(const struct watched *watched, uint64_t since)
{
    for (unsigned i = 0; i < watched->deaths && i < watched->room; i++) {
        if (watched->dead[i] == since)
            return true;
    }
    return false;
}

/* It may be told once more by who buries it, or stay unburied for ever. */
static void say_dead(struct looking *looking, uint64_t since)
{
    struct watched *watched = looking->watched;

    if (watched->deaths == watched->room && watched->room < SAID_DEAD) {
        unsigned room = watched->room ? 2 * watched->room : 16;
        uint64_t *grown = realloc(watched->dead, room * sizeof(*grown));

        if (!grown) {
            looking->failed = true;
            return;
        }
        watched->dead = grown;
        watched->room = room;
    }
    watched->dead[watched->deaths++ % watched->room] = since;
}

static void take_told(struct looking *looking, const struct ledger_told *told)
{
    struct event *event;

    if (told->kind == LEDGER_DIED && said_dead(looking->watched, told->limit))
        return;
    event = add(looking, told->kind, false);
    if (event)
        event->told = *told;
}

/* What the ring has. */
static void read_ring(struct looking *looking)
{
    struct watched *watched = looking->watched;
    struct ledger_told told[BATCH];
    uint64_t taken = 0;
    int count;

    /* What came since the look began can wait for the next one: who writes as fast as is read here would keep it for ever. */
    do {
        count = ledger_read_events(looking->directory, watched->name, &watched->cursor, looking->all, told, BATCH);
        for (int i = 0; i < count; i++)
            take_told(looking, &told[i]);
        taken += count > 0 ? (unsigned)count : 0;
    } while (count == BATCH && taken < watched->cursor.size && !looking->failed);
    watched->ringless = count == -EOPNOTSUPP;
    if (watched->cursor.lost != watched->lost) {
        struct event *event = add(looking, EVENTS_LOST, true);

        if (event)
            event->told.count = (uint32_t)(watched->cursor.lost - watched->lost);
        watched->lost = watched->cursor.lost;
    }
    if (watched->cursor.damaged != watched->damaged && !watched->damaged) {
        struct event *event = add(looking, EVENTS_DAMAGED, true);

        if (event)
            event->told.count = (uint32_t)watched->cursor.damaged;
    }
    watched->damaged = watched->cursor.damaged;
}

/* Who died, with nobody left to tell. */
static void read_dead(struct looking *looking)
{
    static struct ledger_told told[MANY];
    int count = ledger_read_dead(looking->directory, looking->watched->name, told, MANY);
    uint64_t since = 0;
    bool known = false;

    for (int i = 0; i < count; i++) {
        struct event *event;

        if (told[i].limit != since) {
            since = told[i].limit;
            known = said_dead(looking->watched, since);
            if (!known)
                say_dead(looking, since);
            looking->watched->missed += !known;
        }
        /* Where nobody tells, an exit looks the same. */
        if (known || !(event = add(looking, looking->watched->ringless ? LEDGER_LEFT : LEDGER_DIED, true)))
            continue;
        event->told = told[i];
        event->told.time = looking->seen->when;
    }
}

/* ---- by counters */

static struct event *add_on(struct looking *looking, unsigned kind, const uint8_t uuid[16])
{
    struct event *event = add(looking, kind, true);

    if (event) {
        event->anonymous = true;
        event->told.on_device = true;
        memcpy(event->told.uuid, uuid, 16);
    }
    return event;
}

static void count_up(struct looking *looking, enum ledger_kind kind, const struct ledger_device_state *now, uint64_t before,
                     uint64_t after)
{
    struct event *event = after > before ? add_on(looking, kind, now->uuid) : NULL;

    if (event) {
        event->told.count = after - before < UINT32_MAX ? (uint32_t)(after - before) : UINT32_MAX;
        event->told.limit = now->limit;
        event->told.current = now->current;
    }
}

static void changed(struct looking *looking, enum ledger_kind kind, const struct ledger_device_state *now, uint64_t before,
                    uint64_t after)
{
    struct event *event = before != after ? add_on(looking, kind, now->uuid) : NULL;

    if (event) {
        event->told.bytes = before;
        event->told.limit = after;
        event->told.current = kind == LEDGER_SET_VRAM ? now->current : 0;
    }
}

static void compare_counts(struct looking *looking, const struct known *before, const struct ledger_device_state *now)
{
    count_up(looking, LEDGER_REFUSED, now, before->refused, now->events[LEDGER_EVENT_REFUSED]);
    count_up(looking, LEDGER_OOM, now, before->oom, now->events[LEDGER_EVENT_OOM]);
    changed(looking, LEDGER_SET_VRAM, now, before->limit, now->limit);
    if (!before->compute || !now->compute)
        return;
    changed(looking, LEDGER_SET_COMPUTE, now, before->share, now->share);
    changed(looking, LEDGER_SET_WEIGHT, now, before->weight, now->weight);
}

static void tell_number(struct looking *looking, unsigned before, unsigned now)
{
    struct event *event = before != now ? add(looking, now > before ? LEDGER_JOINED : LEDGER_LEFT, true) : NULL;

    if (event) {
        event->anonymous = true;
        event->told.count = now > before ? now - before : before - now;
    }
}

static void compare_members(struct looking *looking)
{
    unsigned before = looking->watched->members, now = looking->tenant->view.members, *missed = &looking->watched->missed;

    /* Who is gone by name has been told of. */
    while (before > now && *missed) {
        before--;
        --*missed;
    }
    tell_number(looking, before, now);
}

static void compare_throttled(struct looking *looking, const struct known *before, const struct ledger_device_state *now)
{
    struct event *event;

    if (!now->compute || !before->compute || now->throttled <= before->throttled)
        return;
    event = add_on(looking, EVENTS_THROTTLED, now->uuid);
    if (event) {
        event->throttled = now->throttled - before->throttled;
        event->nr_throttled = now->nr_throttled > before->nr_throttled ? now->nr_throttled - before->nr_throttled : 0;
        event->nr_periods = now->nr_periods > before->nr_periods ? now->nr_periods - before->nr_periods : 0;
        event->interval = looking->seen->clock - looking->watched->looked;
    }
}

static void remember(struct looking *looking)
{
    const struct ledger_view *view = &looking->tenant->view;
    struct watched *watched = looking->watched;
    struct known *grown = realloc(watched->known, (view->devices + 1) * sizeof(*grown));

    if (!grown) {
        looking->failed = true;
        return;
    }
    watched->known = grown;
    watched->devices = view->devices;
    watched->members = view->members;
    watched->looked = looking->seen->clock;
    for (unsigned i = 0; i < view->devices; i++) {
        const struct ledger_device_state *state = &view->device[i];

        grown[i] = (struct known){.limit = state->limit,
                                  .refused = state->events[LEDGER_EVENT_REFUSED],
                                  .oom = state->events[LEDGER_EVENT_OOM],
                                  .throttled = state->throttled,
                                  .nr_throttled = state->nr_throttled,
                                  .nr_periods = state->nr_periods,
                                  .share = state->share,
                                  .weight = state->weight,
                                  .compute = state->compute};
        memcpy(grown[i].uuid, state->uuid, sizeof(grown[i].uuid));
    }
}

/* What follows from two looks. */
static void compare(struct looking *looking)
{
    const struct ledger_view *view = &looking->tenant->view;
    struct watched *watched = looking->watched;

    if (watched->looked && watched->ringless)
        compare_members(looking);
    for (unsigned i = 0; watched->looked && i < view->devices && i < watched->devices; i++) {
        if (memcmp(watched->known[i].uuid, view->device[i].uuid, 16) != 0)
            continue;
        compare_throttled(looking, &watched->known[i], &view->device[i]);
        if (watched->ringless)
            compare_counts(looking, &watched->known[i], &view->device[i]);
    }
    remember(looking);
}

static void look_at(struct looking *looking)
{
    struct watched *watched = looking->watched;

    if (looking->tenant->problem) {
        if (!watched->warned)
            cli_warn("tenant %s in %s: %s", watched->name, watched->directory, looking->tenant->reason);
        watched->warned = true;
        return;
    }
    read_ring(looking);
    if (watched->looked && looking->seen->clock - watched->looked < RATE_NS)
        return;
    read_dead(looking);
    compare(looking);
}

/* ---- all of them */

static int order(const void *one, const void *other)
{
    const struct watched *a = one, *b = other;
    int result = strcmp(a->directory, b->directory);

    return result ? result : strcmp(a->name, b->name);
}

static void free_list(struct watched *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        free(list[i].directory);
        free(list[i].name);
        free(list[i].known);
        free(list[i].dead);
    }
    free(list);
}

/* Begin to watch a tenant, or go on. False: no memory. */
static bool find(struct watch *watch, const struct observe_tenant *tenant, struct watched *watched)
{
    struct watched key = {.directory = (char *)(uintptr_t)tenant->directory, .name = (char *)(uintptr_t)tenant->name};
    struct watched *former = watch->formers ? bsearch(&key, watch->former, watch->formers, sizeof(key), order) : NULL;

    memset(watched, 0, sizeof(*watched));
    if (former) {
        *watched = *former;
        former->known = NULL;
        former->dead = NULL;
    }
    watched->directory = strdup(tenant->directory);
    watched->name = strdup(tenant->name);
    return watched->directory && watched->name;
}

struct watch *watch_new(void)
{
    return calloc(1, sizeof(struct watch));
}

void watch_free(struct watch *watch)
{
    if (!watch)
        return;
    free_list(watch->list, watch->count);
    free_list(watch->former, watch->formers);
    free(watch);
}

static int by_time(const void *one, const void *other)
{
    const struct event *a = one, *b = other;

    if (a->told.time != b->told.time)
        return a->told.time < b->told.time ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

bool watch_look(struct watch *watch, const struct observe *seen, bool all, struct events *events)
{
    struct looking looking = {.seen = seen, .directory = -1, .all = all, .events = events};
    const char *opened = NULL;
    unsigned before = events->count;

    free_list(watch->former, watch->formers);
    watch->former = watch->list;
    watch->formers = watch->count;
    watch->count = 0;
    watch->list = calloc(seen->tenants + 1, sizeof(*watch->list));
    looking.failed = !watch->list;
    for (unsigned i = 0; i < seen->tenants && !looking.failed; i++) {
        const struct observe_tenant *tenant = &seen->tenant[i];

        looking.watched = &watch->list[watch->count++];
        looking.tenant = tenant;
        if (!find(watch, tenant, looking.watched)) {
            looking.failed = true;
            break;
        }
        if (tenant->directory != opened) {
            if (looking.directory >= 0)
                close(looking.directory);
            looking.directory = open(tenant->directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            opened = tenant->directory;
        }
        if (looking.directory >= 0)
            look_at(&looking);
    }
    if (looking.directory >= 0)
        close(looking.directory);
    if (watch->list)
        qsort(watch->list, watch->count, sizeof(*watch->list), order);
    if (events->count > before)
        qsort(events->event + before, events->count - before, sizeof(*events->event), by_time);
    return !looking.failed;
}
