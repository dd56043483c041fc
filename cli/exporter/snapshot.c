/* SPDX-License-Identifier: Apache-2.0 */
/* One look at all tenants for everybody who asks at about the same time. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "exporter.h"
#include "softslice/clock.h"

#define PATIENCE_SECONDS 2

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all here, and of the history */
static const struct exporter_request *request;
static struct snapshot last;
static uint64_t looked; /* when, by clock_now(); 0 never */
static bool ended;
static char told[OBSERVE_ERROR_MAX]; /* the error that was written last */

void snapshot_setup(const struct exporter_request *what)
{
    request = what;
}

/* A service's log gets an error when it comes and when it has gone, not at each scrape. */
static void tell(const char *error)
{
    if (strcmp(error, told) == 0)
        return;
    if (*error)
        cli_warn("exporter: %s", error);
    else
        cli_warn("exporter: the state directories can be read again");
    snprintf(told, sizeof(told), "%s", error);
}

static void look(void)
{
    uint64_t begun = clock_now();

    observe_free(&last.seen);
    memset(&last.seen, 0, sizeof(last.seen));
    *last.error = 0;
    last.valid = observe(&request->observe, &last.seen, last.error) == 0;
    if (!last.valid)
        memset(&last.seen, 0, sizeof(last.seen));
    tell(last.error);
    looked = clock_now();
    last.took = looked - begun;
    last.number++;
}

bool snapshot_hold(void)
{
    pthread_mutex_lock(&lock);
    if (!ended)
        return true;
    pthread_mutex_unlock(&lock);
    return false;
}

const struct snapshot *snapshot_take(void)
{
    if (!snapshot_hold())
        return NULL;
    if (!looked || clock_now() - looked >= EXPORTER_FRESH)
        look();
    return &last;
}

void snapshot_release(void)
{
    pthread_mutex_unlock(&lock);
}

/* Cheaper than a whole look: a sample needs neither processes nor the driver. */
static void sample(uint64_t when)
{
    struct observe_request narrow = request->observe;
    char error[OBSERVE_ERROR_MAX];
    struct observe seen;

    narrow.without_members = narrow.without_nvml = true;
    memset(&seen, 0, sizeof(seen));
    if (observe(&narrow, &seen, error) == 0) {
        history_add(&seen, when);
        observe_free(&seen);
    } else {
        history_add(NULL, when);
    }
}

void snapshot_sample(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (!snapshot_hold())
        return;
    sample((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    snapshot_release();
}

bool snapshot_end(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_SECONDS;
    if (pthread_mutex_timedlock(&lock, &until))
        return false;
    ended = true;
    observe_free(&last.seen);
    memset(&last.seen, 0, sizeof(last.seen));
    history_free();
    pthread_mutex_unlock(&lock);
    return true;
}
