/* SPDX-License-Identifier: Apache-2.0 */
/* By which ids processes of several PID namespaces know each other. */
#ifndef SIM_PROCESS_ID_H
#define SIM_PROCESS_ID_H

#include <stdbool.h>
#include <stdint.h>

/* A process, told from all others of the system. */
struct sim_process_id {
    uint64_t namespace; /* inode of its PID namespace; 0 unknown, and then taken for everybody's */
    uint64_t started;   /* as /proc tells; the same in each namespace */
    int32_t pid;        /* its own */
};

/* The calling process. */
struct sim_process_id sim_process_self(void);

/* The same for one that only asks for others: without the time, which costs. */
struct sim_process_id sim_process_reader(void);

/* Whether both know each other by their own ids. */
bool sim_process_near(const struct sim_process_id *a, const struct sim_process_id *b);

/* The id by which `self`, the calling process, knows `other`: 0 where its namespace does not show that. */
int32_t sim_process_seen(const struct sim_process_id *self, const struct sim_process_id *other);

#endif
