/* SPDX-License-Identifier: Apache-2.0 */
/* What a process's start and end cost with softslice preloaded, against the same without, in turns.
 *
 *   start ROUNDS LIBRARY PROGRAM [ARGUMENT...]   us from spawn to end without and with LIBRARY preloaded, and, where the program wrote
 *                                                a time to standard output before it ended, us from then to its end, likewise */
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

extern char **environ;

#define VARIABLES 512

static char *environment[2][VARIABLES + 2];

static void make_environments(const char *library)
{
    static char preload[4096];
    unsigned count = 0;

    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", library);
    for (char **variable = environ; *variable && count < VARIABLES; variable++)
        if (strncmp(*variable, "LD_PRELOAD=", 11) != 0)
            environment[0][count++] = *variable;
    memcpy(environment[1], environment[0], sizeof(environment[0]));
    environment[1][count] = preload;
}

/* Returns us in all, and in *ending those behind the child's own mark, 0 if it left none. */
static double run(char **argv, char **variables, double *ending)
{
    posix_spawn_file_actions_t actions;
    double start, end, mark = 0;
    int out[2], status;
    pid_t pid;

    if (pipe2(out, O_CLOEXEC) != 0)
        exit(1);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    start = bench_now();
    if (posix_spawn(&pid, argv[0], &actions, NULL, argv, variables) != 0)
        exit(1);
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "bench: %s failed\n", argv[0]);
        exit(1);
    }
    end = bench_now();
    close(out[1]);
    if (read(out[0], &mark, sizeof(mark)) != sizeof(mark))
        mark = end;
    close(out[0]);
    posix_spawn_file_actions_destroy(&actions);
    *ending = (end - mark) / 1000;
    return (end - start) / 1000;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 3 ? (unsigned)atoi(argv[1]) : 0;
    double *us[2], *ending[2];

    if (rounds == 0) {
        fprintf(stderr, "usage: start ROUNDS LIBRARY PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    make_environments(argv[2]);
    for (int s = 0; s < 2; s++) {
        us[s] = bench_need(calloc(rounds, sizeof(double)), "memory");
        ending[s] = bench_need(calloc(rounds, sizeof(double)), "memory");
    }
    for (unsigned i = 0; i < 2 * rounds; i++)
        us[i % 2][i / 2] = run(argv + 3, environment[i % 2], &ending[i % 2][i / 2]);
    for (int s = 0; s < 2; s++)
        printf("%.0f\t", bench_quantile(us[s], rounds, 0.5));
    printf("%.0f\t%.0f\n", bench_quantile(ending[0], rounds, 0.5), bench_quantile(ending[1], rounds, 0.5));
    return 0;
}
