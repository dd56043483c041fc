/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs: threads that each do one thing that may block, and hand over through a pipe that the loop reads. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "node.h"

struct job {
    void (*work)(void *argument), (*done)(void *argument);
    void *argument;
};

static int ends[2] = {-1, -1};

static void ready(void *argument)
{
    struct job *job;

    (void)argument;
    while (read(ends[0], &job, sizeof(job)) == (ssize_t)sizeof(job)) {
        job->done(job->argument);
        free(job);
    }
}

int job_open(struct rpc_loop *loop)
{
    if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    return rpc_loop_watch(loop, ends[0], ready, NULL);
}

static void *run(void *argument)
{
    struct job *job = argument;

    job->work(job->argument);
    if (write(ends[1], &job, sizeof(job)) != (ssize_t)sizeof(job))
        abort(); /* a pointer fits, and both ends are open */
    return NULL;
}

int job_start(void (*work)(void *argument), void (*done)(void *argument), void *argument)
{
    struct job *job = malloc(sizeof(*job));
    pthread_t thread;
    int result;

    if (!job)
        return -ENOMEM;
    *job = (struct job){work, done, argument};
    result = pthread_create(&thread, NULL, run, job);
    if (result) {
        free(job);
        return -result;
    }
    pthread_detach(thread);
    return 0;
}
