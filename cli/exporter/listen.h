/* SPDX-License-Identifier: Apache-2.0 */
/* The socket that the exporter listens on. */
#ifndef SOFTSLICE_EXPORTER_LISTEN_H
#define SOFTSLICE_EXPORTER_LISTEN_H

#include <stdbool.h>

#include "cli.h"

#define LISTEN_NAME 64

struct listening {
    int fd;
    bool loopback;          /* only this machine can ask */
    char name[LISTEN_NAME]; /* with the port that it is */
};

/* Listen on `text`, ADDR:PORT or [ADDR]:PORT with a numeric address; port 0 is any free one. 0, or -1 with *error set. */
int listen_begin(const char *text, struct listening *listening, struct cli_error *error);

/* Whether a Host header names this machine by an address or as localhost. A web page that has its own name lead to a loopback address, to read
 * here what its reader may, sends that name. */
bool listen_host_is_local(const char *host);

#endif
