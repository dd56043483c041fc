/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice status`: the tenants and what they have, once. */
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>

#include "cli.h"
#include "observe.h"

static int run(int argc, char **argv, struct cli_error *error)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct observe_request request = {0};
    struct observe seen;
    struct json_object *document;
    char why[OBSERVE_ERROR_MAX];
    int option;

    optind = 1;
    while ((option = cli_option(argc, argv, ":h", options, "status", error)) != -1) {
        if (option == '?')
            return CLI_FAILED;
        if (option == 'h')
            return help_print(stdout, &command_status);
    }
    if (observe(&request, &seen, why) < 0)
        return cli_fail(error, 1, "status: %s", why);
    document = observe_json(&seen);
    if (document)
        puts(json_object_to_json_string_ext(document, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(document);
    observe_free(&seen);
    return 0;
}

const struct command command_status = {
    .name = "status",
    .summary = "show the tenants: VRAM, compute share, processes",
    .usage = "status [OPTION]...",
    .help = "Show the tenants.\n",
    .run = run,
};
