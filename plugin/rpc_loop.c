/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: file descriptors, and whom to call when they are ready. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "rpc_internal.h"

#define BATCH 32 /* events that are served at a time */

struct rpc_watch {
    LIST_ENTRY(rpc_watch) link;
    int fd;
    uint32_t events;
    int64_t resume; /* ms; 0: it is not paused */
    void (*ready)(void *argument);
    void *argument;
};

LIST_HEAD(watches, rpc_watch);

/* An event that is in hand may name a watch that was freed since: those in `gone` stay until it is served. */
struct rpc_loop {
    int epoll;
    struct watches watches, gone;
};

int64_t rpc_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct rpc_loop *rpc_loop_new(void)
{
    struct rpc_loop *loop = calloc(1, sizeof(*loop));

    if (!loop)
        return NULL;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll < 0) {
        free(loop);
        return NULL;
    }
    return loop;
}

static void free_all(struct watches *watches)
{
    struct rpc_watch *watch;

    while ((watch = LIST_FIRST(watches))) {
        LIST_REMOVE(watch, link);
        free(watch);
    }
}

void rpc_loop_free(struct rpc_loop *loop)
{
    if (!loop)
        return;
    free_all(&loop->watches);
    free_all(&loop->gone);
    close(loop->epoll);
    free(loop);
}

struct rpc_watch *rpc_watch_new(struct rpc_loop *loop, int fd, void (*ready)(void *argument), void *argument)
{
    struct rpc_watch *watch = malloc(sizeof(*watch));

    if (!watch)
        return NULL;
    *watch = (struct rpc_watch){.fd = fd, .events = EPOLLIN, .ready = ready, .argument = argument};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = watch})) {
        free(watch);
        return NULL;
    }
    LIST_INSERT_HEAD(&loop->watches, watch, link);
    return watch;
}

void rpc_watch_free(struct rpc_loop *loop, struct rpc_watch *watch)
{
    epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    LIST_REMOVE(watch, link);
    watch->ready = NULL;
    LIST_INSERT_HEAD(&loop->gone, watch, link);
}

void rpc_watch_for(struct rpc_loop *loop, struct rpc_watch *watch, uint32_t events)
{
    watch->resume = 0;
    if (watch->events == events)
        return;
    watch->events = events;
    epoll_ctl(loop->epoll, EPOLL_CTL_MOD, watch->fd, &(struct epoll_event){.events = events, .data.ptr = watch});
}

void rpc_watch_pause(struct rpc_loop *loop, struct rpc_watch *watch, int milliseconds)
{
    rpc_watch_for(loop, watch, 0);
    watch->resume = rpc_now_ms() + milliseconds;
}

int rpc_loop_watch(struct rpc_loop *loop, int fd, void (*ready)(void *argument), void *argument)
{
    errno = ENOMEM;
    return rpc_watch_new(loop, fd, ready, argument) ? 0 : -errno;
}

void rpc_loop_unwatch(struct rpc_loop *loop, int fd)
{
    struct rpc_watch *watch;

    LIST_FOREACH(watch, &loop->watches, link)
    {
        if (watch->fd == fd) {
            rpc_watch_free(loop, watch);
            return;
        }
    }
}

/* Go on with whose pause is over. What is left of timeout_ms until the next one's is. */
static int end_pauses(struct rpc_loop *loop, int timeout_ms)
{
    int64_t now = rpc_now_ms();
    struct rpc_watch *watch;

    LIST_FOREACH(watch, &loop->watches, link)
    {
        if (!watch->resume)
            continue;
        if (watch->resume <= now)
            rpc_watch_for(loop, watch, EPOLLIN);
        else if (timeout_ms < 0 || watch->resume - now < timeout_ms)
            timeout_ms = (int)(watch->resume - now);
    }
    return timeout_ms;
}

int rpc_loop_run(struct rpc_loop *loop, int timeout_ms)
{
    struct epoll_event events[BATCH];
    int count = epoll_wait(loop->epoll, events, BATCH, end_pauses(loop, timeout_ms));

    if (count < 0)
        return -errno;
    for (int i = 0; i < count; i++) {
        struct rpc_watch *watch = events[i].data.ptr;

        if (watch->ready)
            watch->ready(watch->argument);
    }
    free_all(&loop->gone);
    return 0;
}
