/* SPDX-License-Identifier: Apache-2.0 */
/* The watcher of the GPUs. What it knows of one is kept when NVML does not show it any more: its devices become unhealthy, they do not vanish under those who
 * have them. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>

#include "gpus.h"
#include "nvml.h"

#define WAIT_MS   500 /* of one wait for events: so soon is a change of settings seen */
#define RETRY_MAX 30

struct known {
    struct nvml_gpu gpu;
    bool seen, gone, watched;
    unsigned long long xid; /* 0: none that made it unhealthy */
};

static struct known known[PLUGIN_GPUS];
static unsigned known_count;

/* What the two threads share. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gpus published;
static bool fresh, changed, told;
static int notice = -1;
static double interval;
static unsigned ignored_xids, ignored_xid[64];

/* ---- telling */

static void publish(void)
{
    static struct gpus next;
    uint64_t one = 1;

    next.count = known_count;
    for (unsigned i = 0; i < known_count; i++)
        next.gpu[i] = known[i].gpu.is;
    pthread_mutex_lock(&lock);
    if (memcmp(&published, &next, sizeof(next)) != 0 || !told) {
        published = next;
        fresh = told = true;
        if (write(notice, &one, sizeof(one)) < 0)
            fresh = true; /* it can be read already */
    }
    pthread_mutex_unlock(&lock);
}

bool gpus_take(struct gpus *gpus)
{
    uint64_t count;
    bool was;

    pthread_mutex_lock(&lock);
    was = fresh;
    fresh = false;
    *gpus = published;
    if (read(notice, &count, sizeof(count)) < 0)
        count = 0;
    pthread_mutex_unlock(&lock);
    return was;
}

static void set_health(struct known *one, bool healthy, const char *reason)
{
    struct gpu *gpu = &one->gpu.is;

    if (!healthy && (gpu->healthy || strcmp(gpu->reason, reason) != 0))
        say_error("%s is unhealthy: %s", gpu->uuid, reason);
    else if (healthy && !gpu->healthy)
        say_info("%s is healthy again", gpu->uuid);
    gpu->healthy = healthy;
    snprintf(gpu->reason, sizeof(gpu->reason), "%s", healthy ? "" : reason);
}

/* ---- looking */

static void judge(struct known *one, bool answers, const char *reason)
{
    char text[PLUGIN_REASON];

    if (one->xid)
        snprintf(text, sizeof(text), "XID %llu", one->xid);
    set_health(one, answers && !one->xid, one->xid ? text : reason);
}

static void add(const struct nvml_gpu *found)
{
    char size[UNITS_TEXT_MAX];
    struct known *one = &known[known_count];
    const struct gpu *gpu = &found->is;

    if (known_count == PLUGIN_GPUS)
        return;
    known_count++;
    memset(one, 0, sizeof(*one));
    one->gpu = *found;
    one->seen = true;
    say_info("%s: %s of memory, /dev/nvidia%d%s", gpu->uuid, units_format_size(size, gpu->total), gpu->minor,
             gpu->gpu_instance >= 0 ? ", an instance (MIG)" : "");
    if (!gpu->healthy)
        say_error("%s is unhealthy: %s", gpu->uuid, gpu->reason);
}

static void update(const struct nvml_gpu *found)
{
    for (unsigned i = 0; i < known_count; i++) {
        struct known *one = &known[i];
        bool healthy = one->gpu.is.healthy;
        char reason[PLUGIN_REASON];

        if (strcmp(one->gpu.is.uuid, found->is.uuid) != 0)
            continue;
        /* It was away, as after a reset: what it had is over. */
        if (one->gone)
            one->xid = 0;
        memcpy(reason, one->gpu.is.reason, sizeof(reason));
        one->watched &= one->gpu.handle == found->handle;
        one->seen = true;
        one->gone = false;
        one->gpu.handle = found->handle;
        if (found->is.healthy)
            one->gpu.is = found->is;
        one->gpu.is.healthy = healthy;
        memcpy(one->gpu.is.reason, reason, sizeof(reason));
        /* An error of NVML's ends when it answers again, and with it what came before. */
        if (!found->is.healthy)
            one->gone = true;
        judge(one, found->is.healthy, found->is.reason);
        return;
    }
    add(found);
}

static void lose_all(const char *why)
{
    char reason[PLUGIN_REASON];

    snprintf(reason, sizeof(reason), "NVML cannot be asked: %s", why);
    for (unsigned i = 0; i < known_count; i++) {
        known[i].watched = false;
        set_health(&known[i], false, reason);
    }
}

static void watch_new(void)
{
    for (unsigned i = 0; i < known_count; i++) {
        struct known *one = &known[i];
        const char *why = NULL;
        bool others = false;

        if (one->watched || !one->seen)
            continue;
        for (unsigned j = 0; j < i; j++)
            others |= known[j].watched && known[j].gpu.handle == one->gpu.handle;
        if (!others && (why = nvml_watch(one->gpu.handle)))
            say_warning("%s: its errors (XIDs) are not told by NVML: %s", one->gpu.is.uuid, why);
        one->watched = true;
    }
}

/* NULL, or why there is nothing to see. */
static const char *look(void)
{
    static struct nvml_gpu found[PLUGIN_GPUS];
    const char *why = nvml_open();
    int count;

    if (why) {
        lose_all(why);
        return why;
    }
    count = nvml_read(found, &why);
    if (count < 0) {
        nvml_close();
        lose_all(why);
        return why;
    }
    for (unsigned i = 0; i < known_count; i++)
        known[i].seen = false;
    for (int i = 0; i < count; i++)
        update(&found[i]);
    for (unsigned i = 0; i < known_count; i++) {
        if (known[i].seen)
            continue;
        known[i].gone = true;
        set_health(&known[i], false, "NVML does not show it any more");
    }
    watch_new();
    return known_count ? NULL : "NVML shows no GPU";
}

const char *gpus_look(struct gpus *gpus)
{
    static struct nvml_gpu found[PLUGIN_GPUS];
    const char *why = nvml_open();
    int count = why ? -1 : nvml_read(found, &why);

    gpus->count = 0;
    for (int i = 0; i < count; i++)
        gpus->gpu[gpus->count++] = found[i].is;
    return count > 0 ? NULL : why ? why : "NVML shows no GPU";
}

/* ---- the thread */

static bool is_ignored(unsigned long long xid)
{
    bool ignored = false;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < ignored_xids; i++)
        ignored |= ignored_xid[i] == xid;
    pthread_mutex_unlock(&lock);
    return ignored;
}

static void take_event(const struct nvml_event *event)
{
    bool ignored = is_ignored(event->xid);

    for (unsigned i = 0; i < known_count; i++) {
        struct known *one = &known[i];

        if (one->gpu.handle != event->handle || (event->instance >= 0 && one->gpu.is.gpu_instance != event->instance))
            continue;
        if (ignored) {
            say_info("%s: XID %llu, which an application causes (ignore_xids)", one->gpu.is.uuid, event->xid);
            continue;
        }
        one->xid = event->xid;
        judge(one, true, "");
    }
}

static bool take_change(double *seconds)
{
    bool was;

    pthread_mutex_lock(&lock);
    was = changed;
    changed = false;
    *seconds = interval;
    pthread_mutex_unlock(&lock);
    return was;
}

static void forget_gone(void)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < known_count; i++) {
        known[i].watched = false;
        if (!known[i].gone || known[i].seen)
            known[kept++] = known[i];
    }
    known_count = kept;
}

/* Until the next look: events, or a mere wait where there is no NVML. */
static void wait_until(double until, bool open)
{
    struct nvml_event event;
    const char *why;
    double left, ignored;
    bool hurry = false;

    while ((left = until - now_seconds()) > 0 && !hurry) {
        int ms = left * 1000 < WAIT_MS ? (int)(left * 1000) + 1 : WAIT_MS, got = 0;

        if (!open) {
            usleep((useconds_t)ms * 1000);
        } else if ((got = nvml_wait(&event, ms, &why)) > 0) {
            take_event(&event);
            publish();
        } else if (got < 0) {
            usleep(WAIT_MS * 1000); /* a lost GPU: the next look says which */
            return;
        }
        if (take_change(&ignored)) {
            nvml_close();
            forget_gone();
            hurry = true;
        }
    }
}

static void *watcher(void *argument)
{
    char before[256] = "";
    double retry = 1, seconds;

    (void)argument;
    take_change(&seconds);
    for (;;) {
        const char *why = look();

        if (why && strcmp(why, before) != 0)
            say_warning("no GPU: %s; looking again", why);
        snprintf(before, sizeof(before), "%s", why ? why : "");
        publish();
        retry = why ? (retry * 2 < RETRY_MAX ? retry * 2 : RETRY_MAX) : 1;
        take_change(&seconds);
        if (why && !known_count)
            nvml_close(); /* what NVML has seen at its start it sees for ever */
        wait_until(now_seconds() + (why ? (retry < seconds || known_count ? retry : seconds) : seconds), !why);
    }
    return NULL;
}

void gpus_change(const struct settings *settings)
{
    pthread_mutex_lock(&lock);
    interval = settings->ask_gpus;
    ignored_xids = settings->ignored_xids;
    memcpy(ignored_xid, settings->ignored_xid, sizeof(ignored_xid));
    changed = true;
    pthread_mutex_unlock(&lock);
}

int gpus_watch(const struct settings *settings)
{
    pthread_t thread;
    int result;

    notice = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (notice < 0)
        return -errno;
    gpus_change(settings);
    result = pthread_create(&thread, NULL, watcher, NULL);
    if (result == 0)
        pthread_detach(thread);
    return result ? -result : notice;
}
