/* SPDX-License-Identifier: Apache-2.0 */
/* taker MiB [COMMAND...]: takes GPU memory in pieces of 64 MiB until it is refused or has as much as it wants, says how many MiB it got, and, holding
 * them, runs the command. Its exit status is then the command's. With the command "-" it waits for the end of its input. */
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../cuda_helper.h"

#define PIECE ((size_t)64)

int main(int argc, char **argv)
{
    size_t wanted = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, got = 0;
    int status = 0;
    pid_t child;

    t_context(0);
    while (got < wanted && t_alloc(PIECE << 20))
        got += PIECE;
    printf("taken %zu\n", got);
    fflush(stdout);
    if (argc < 3)
        return 0;
    if (strcmp(argv[2], "-") == 0)
        return getchar() != EOF;
    if (posix_spawnp(&child, argv[2], NULL, NULL, argv + 2, environ) || waitpid(child, &status, 0) < 0)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
