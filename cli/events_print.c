/* SPDX-License-Identifier: Apache-2.0 */
/* One event on one line: for people, or as JSON. What is not known is left out. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "document.h"
#include "events.h"
#include "softslice/quota.h"
#include "softslice/units.h"

#define SECOND 1000000000

static const char *const names[] = {
    [LEDGER_REFUSED] = "refused",
    [LEDGER_OOM] = "oom",
    [LEDGER_DIED] = "died",
    [LEDGER_LEFT] = "left",
    [LEDGER_JOINED] = "joined",
    [LEDGER_SET_VRAM] = "vram",
    [LEDGER_SET_COMPUTE] = "compute",
    [LEDGER_SET_WEIGHT] = "weight",
    [LEDGER_CHECKPOINTED] = "checkpointed",
    [LEDGER_RESTORED] = "restored",
    [EVENTS_THROTTLED] = "throttled",
    [EVENTS_LOST] = "lost",
    [EVENTS_DAMAGED] = "damaged",
};

static const char *const families[QUOTA_FAMILIES] = {
    [QUOTA_LINEAR] = "linear",   [QUOTA_MANAGED] = "managed",   [QUOTA_CONTEXT] = "context", [QUOTA_ARRAY] = "array",
    [QUOTA_VMM] = "vmm",         [QUOTA_POOL] = "pool",         [QUOTA_GRAPH] = "graph",     [QUOTA_GROWTH] = "growth",
    [QUOTA_SPILLED] = "spilled", [QUOTA_RESTORED] = "restored",
};

static bool is_member(const struct event *event)
{
    return event->kind == LEDGER_DIED || event->kind == LEDGER_LEFT || event->kind == LEDGER_CHECKPOINTED ||
           event->kind == LEDGER_RESTORED;
}

static bool is_refusal(const struct event *event)
{
    return event->kind == LEDGER_REFUSED || event->kind == LEDGER_OOM;
}

static bool is_change(const struct event *event)
{
    return event->kind == LEDGER_SET_VRAM || event->kind == LEDGER_SET_COMPUTE || event->kind == LEDGER_SET_WEIGHT;
}

/* A share of GPU time in percent, with no more digits than it has. */
static const char *percent_text(char text[UNITS_TEXT_MAX], uint64_t hundredths)
{
    int length = snprintf(text, UNITS_TEXT_MAX, "%llu.%02u", (unsigned long long)hundredths / 100, (unsigned)(hundredths % 100));

    while (text[length - 1] == '0')
        text[--length] = '\0';
    if (text[length - 1] == '.')
        text[--length] = '\0';
    return text;
}

/* ---- for people */

struct line {
    char text[2048];
    size_t length;
};

static __attribute__((format(printf, 2, 3))) void say(struct line *line, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(line->text + line->length, sizeof(line->text) - line->length, format, args);
    va_end(args);
    if (length > 0)
        line->length += (size_t)length < sizeof(line->text) - line->length ? (size_t)length : sizeof(line->text) - line->length - 1;
}

static void say_when(struct line *line, uint64_t when)
{
    time_t seconds = (time_t)(when / SECOND);
    struct tm parts;
    char text[64];

    if (!localtime_r(&seconds, &parts) || !strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts))
        snprintf(text, sizeof(text), "%llu", (unsigned long long)seconds);
    say(line, "%s.%03u ", text, (unsigned)(when % SECOND / 1000000));
}

static void say_size(struct line *line, uint64_t bytes)
{
    char text[UNITS_TEXT_MAX];

    say(line, "%s", bytes == LEDGER_NO_LIMIT ? "none" : units_format_size(text, bytes));
}

static void say_value(struct line *line, unsigned kind, uint64_t value)
{
    char text[UNITS_TEXT_MAX];

    if (kind == LEDGER_SET_VRAM)
        say_size(line, value);
    else if (kind == LEDGER_SET_COMPUTE)
        say(line, "%s%%", percent_text(text, value));
    else if (value)
        say(line, "%llu", (unsigned long long)value);
    else
        say(line, "none");
}

static void say_in_use(struct line *line, const struct ledger_told *told)
{
    say(line, ", ");
    say_size(line, told->current);
    if (told->limit != LEDGER_NO_LIMIT) {
        say(line, " of ");
        say_size(line, told->limit);
    }
    say(line, " in use");
}

static void say_refusal(struct line *line, const struct event *event)
{
    const struct ledger_told *told = &event->told;

    say(line, event->kind == LEDGER_OOM ? "the GPU is full" : "refused");
    if (told->bytes) {
        say(line, " ");
        say_size(line, told->bytes);
    }
    if (!event->anonymous && event->kind == LEDGER_REFUSED && told->family > QUOTA_LINEAR && told->family < QUOTA_FAMILIES)
        say(line, " (%s)", families[told->family]);
    if (told->count > 1)
        say(line, ", %u times", told->count);
    say_in_use(line, told);
}

static void say_what(struct line *line, const struct event *event)
{
    const struct ledger_told *told = &event->told;

    if (is_refusal(event)) {
        say_refusal(line, event);
    } else if (is_change(event)) {
        say(line, "%s: ", names[event->kind]);
        say_value(line, event->kind, told->limit);
        say(line, ", was ");
        say_value(line, event->kind, told->bytes);
    } else if (event->kind == EVENTS_THROTTLED) {
        say(line, "throttled for %.0f of %.0f ms, in %llu of %llu periods", (double)event->throttled / 1e6,
            (double)event->interval / 1e6, (unsigned long long)event->nr_throttled, (unsigned long long)event->nr_periods);
    } else if (event->kind == EVENTS_LOST) {
        say(line, "%u %s lost", told->count, told->count == 1 ? "event" : "events");
    } else if (event->kind == EVENTS_DAMAGED) {
        say(line, "%u damaged %s ignored; there may be more", told->count, told->count == 1 ? "event" : "events");
    } else {
        say(line, "%s", names[event->kind]);
        if (event->anonymous && told->count > 1)
            say(line, ": %u processes", told->count);
        if (is_member(event) && told->on_device) {
            say(line, event->kind == LEDGER_RESTORED ? " with " : ", had ");
            say_size(line, told->bytes);
        }
    }
    if (event->kind < LEDGER_KINDS && !event->anonymous) {
        if (is_change(event))
            say(line, " (by uid %u, pid %u)", told->uid, told->pid);
        else
            say(line, " (pid %u)", told->pid);
    }
}

bool events_print_text(const struct event *event, bool directories)
{
    char clean[OBSERVE_TEXT], uuid[OBSERVE_UUID];
    struct line line = {.length = 0};

    say_when(&line, event->told.time);
    if (directories) {
        char path[1024];

        say(&line, "%s/", observe_text(path, sizeof(path), event->directory, false));
    }
    say(&line, "%s ", observe_text(clean, sizeof(clean), event->tenant, false));
    if (event->told.on_device) {
        observe_uuid_text(event->told.uuid, uuid);
        say(&line, "%s ", uuid);
    }
    say_what(&line, event);
    puts(line.text);
    return true;
}

/* ---- JSON */

struct writer {
    struct json_object *object;
    bool failed;
};

static void put(struct writer *writer, const char *key, struct json_object *value)
{
    document_put(&writer->failed, writer->object, key, value);
}

static void put_number(struct writer *writer, const char *key, uint64_t value)
{
    put(writer, key, document_number(value));
}

static void put_text(struct writer *writer, const char *key, const char *value)
{
    put(writer, key, document_text(value));
}

/* What a change was from and to, in the unit of its kind; what nobody set is left out. */
static void put_value(struct writer *writer, const char *key, unsigned kind, uint64_t value)
{
    char text[UNITS_TEXT_MAX];

    if (kind == LEDGER_SET_COMPUTE)
        put(writer, key, json_object_new_double_s((double)value / 100, percent_text(text, value)));
    else if (kind == LEDGER_SET_VRAM ? value != LEDGER_NO_LIMIT : value != 0)
        put_number(writer, key, value);
}

static void put_refusal(struct writer *writer, const struct event *event)
{
    const struct ledger_told *told = &event->told;

    put_number(writer, "count", told->count);
    if (told->bytes)
        put_number(writer, "bytes", told->bytes);
    if (!event->anonymous && event->kind == LEDGER_REFUSED && told->family < QUOTA_FAMILIES)
        put_text(writer, "family", families[told->family]);
    if (told->limit != LEDGER_NO_LIMIT)
        put_number(writer, "limit_bytes", told->limit);
    put_number(writer, "current_bytes", told->current);
}

static void put_what(struct writer *writer, const struct event *event)
{
    const struct ledger_told *told = &event->told;

    if (is_refusal(event)) {
        put_refusal(writer, event);
    } else if (is_change(event)) {
        put_value(writer, "before", event->kind, told->bytes);
        put_value(writer, "after", event->kind, told->limit);
        if (event->kind == LEDGER_SET_VRAM)
            put_number(writer, "current_bytes", told->current);
    } else if (event->kind == EVENTS_THROTTLED) {
        put_number(writer, "throttled_ns", event->throttled);
        put_number(writer, "interval_ns", event->interval);
        put_number(writer, "nr_throttled", event->nr_throttled);
        put_number(writer, "nr_periods", event->nr_periods);
    } else if (event->kind == EVENTS_LOST || event->kind == EVENTS_DAMAGED || event->anonymous) {
        put_number(writer, "count", told->count);
    } else if (is_member(event) && told->on_device) {
        put_number(writer, "bytes", told->bytes);
        if (!event->derived)
            put_number(writer, "current_bytes", told->current);
    }
}

static void put_all(struct writer *writer, const struct event *event)
{
    const struct ledger_told *told = &event->told;
    char uuid[OBSERVE_UUID];

    put(writer, "time", document_time(told->time));
    put_text(writer, "kind", names[event->kind]);
    put_text(writer, "tenant", event->tenant);
    put_text(writer, "state_directory", event->directory);
    if (told->on_device) {
        observe_uuid_text(told->uuid, uuid);
        put_text(writer, "gpu", uuid);
    }
    if (event->kind < LEDGER_KINDS && !event->anonymous) {
        put_number(writer, "pid", told->pid);
        if (told->pid_namespace)
            put_number(writer, "pid_namespace", told->pid_namespace);
        put_number(writer, "uid", told->uid);
    }
    put_what(writer, event);
    if (event->derived)
        put(writer, "derived", json_object_new_boolean(1));
}

bool events_print_json(const struct event *event)
{
    struct writer writer = {.object = json_object_new_object()};
    const char *text = NULL;

    if (writer.object) {
        put_all(&writer, event);
        text = writer.failed
                   ? NULL
                   : json_object_to_json_string_ext(writer.object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        if (text)
            puts(text);
        json_object_put(writer.object);
    }
    return text;
}
