/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `softslice events` say to each other. */
#ifndef SOFTSLICE_CLI_EVENTS_H
#define SOFTSLICE_CLI_EVENTS_H

#include "observe.h"

/* What the ledger tells of (enum ledger_kind), and what whoever looks finds out by himself. */
enum events_kind { EVENTS_THROTTLED = LEDGER_KINDS, EVENTS_LOST, EVENTS_DAMAGED };

struct event {
    const char *directory, *tenant; /* of a struct watched, or of the look */
    unsigned number;                /* in the order in which they were found */
    unsigned kind;                  /* enum ledger_kind or enum events_kind */
    struct ledger_told told;        /* its time, device, member and numbers; `count` of EVENTS_LOST and EVENTS_DAMAGED */
    bool derived;                   /* nobody told: it was found out by looking, at that time */
    bool anonymous;                 /* derived from a count: it is not known of whom */
    uint64_t throttled, nr_throttled, nr_periods, interval; /* of EVENTS_THROTTLED: since the last look, ns and numbers */
};

struct events {
    struct event *event;
    unsigned count, room;
};

/* NULL: no memory. */
struct event *events_add(struct events *events);

/* ---- events_watch.c */

struct watch; /* what was seen of each tenant */

struct watch *watch_new(void);
void watch_free(struct watch *watch);

/* Add what happened in the tenants of `seen` since the last call, in the order of time. `all`: what is being told right now too, and nothing that follows
 * from two looks. Tenants that are not in it are forgotten. The events point into `watch`, until the next call. False: no memory. */
bool watch_look(struct watch *watch, const struct observe *seen, bool all, struct events *events);

/* ---- events_print.c */

/* A line on standard output. `directories`: name the state directory too. False: no memory. */
bool events_print_text(const struct event *event, bool directories);
bool events_print_json(const struct event *event);

#endif
