/* SPDX-License-Identifier: Apache-2.0 */
/* What the rooms of `softslice top` share: what was asked for, the observations, and the two ways to show them. */
#ifndef SOFTSLICE_CLI_TOP_TOP_H
#define SOFTSLICE_CLI_TOP_TOP_H

#include <signal.h>

#include "../cli.h"
#include "model.h"

#define TOP_INTERVAL_MIN 0.1
#define TOP_INTERVAL_MAX 86400.0
#define TOP_FIRST        0.5 /* seconds after which a screen has its first rates, where the interval is longer */

struct top {
    struct observe_request request;
    uint8_t uuid[16];    /* what request.uuid points to */
    double interval;     /* seconds */
    uint64_t iterations; /* 0: no end */
    struct observe seen[2];
    unsigned newest; /* of them */
    bool any;        /* seen[newest] is one */
    struct top_model model;
    char error[OBSERVE_ERROR_MAX]; /* why the last look saw nothing, "" if it did */
};

/* Look once more. 0; or -errno with top->error set and nothing to show: what was seen before would pass for what is. */
int top_look(struct top *top);

/* CLOCK_MONOTONIC in seconds. */
double top_clock(void);

/* Whether there are several state directories among the tenants, so that a name alone would not tell. */
bool top_has_places(const struct top *top);

/* A tenant's pod or, where there is none, the last part of its state directory. */
void top_place(char text[3 * OBSERVE_LABEL], const struct observe_tenant *tenant);

/* A GPU's NVML number, or the beginning of its UUID; "-" for none. */
#define TOP_GPU_MAX 16
const char *top_gpu_text(char text[TOP_GPU_MAX], const struct observe_gpu *gpu);

/* SIGTERM, SIGINT and SIGHUP that came, 0 none; they are let through in top_wait() alone. */
extern volatile sig_atomic_t top_signal;
void top_catch_signals(void);

struct pollfd;

/* Wait for something on `fd`, a signal, or until top_clock() is `until`. As ppoll(). */
int top_wait(struct pollfd *fd, double until);

/* Each returns the exit status. */
int batch_run(struct top *top, struct cli_error *error);
int screen_run(struct top *top, struct cli_error *error);

#endif
