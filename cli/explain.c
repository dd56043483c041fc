/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice explain`: where a tenant's bytes are, and why there are no more. */
#include "explain.h"

#include <getopt.h>
#include <json-c/json.h>
#include <string.h>

#include "cli.h"

enum { REFUSED = 1 };

struct options {
    const char *tenant, *device, *directories[2], *roots[2];
    uint8_t uuid[16];
    bool json, help;
};

static int take_once(const char **place, const char *option, struct cli_error *error)
{
    if (*place)
        return cli_fail(error, -1, "explain: --%s is given twice", option);
    *place = optarg;
    return 0;
}

static int parse(int argc, char **argv, struct options *asked, struct cli_error *error)
{
    static const struct option options[] = {{"device", required_argument, NULL, 'd'}, {"state-dir", required_argument, NULL, 's'},
                                            {"root", required_argument, NULL, 'r'},   {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},         {0}};
    int option;

    optind = 1;
    while ((option = cli_option(argc, argv, ":d:h", options, "explain", error)) != -1) {
        if (option == '?')
            return -1;
        if (option == 'h') {
            asked->help = true;
            return 0;
        }
        if (option == 'j')
            asked->json = true;
        else if (option == 'd'   ? take_once(&asked->device, "device", error)
                 : option == 's' ? take_once(&asked->directories[0], "state-dir", error)
                                 : take_once(&asked->roots[0], "root", error))
            return -1;
    }
    if (asked->roots[0] && asked->directories[0])
        return cli_fail(error, -1, "explain: --root and --state-dir name two places: give one of them");
    if (optind == argc)
        return cli_fail(error, -1, "explain: no tenant is named (softslice status has their names)");
    asked->tenant = argv[optind++];
    if (!observe_is_name(asked->tenant))
        return cli_fail(error, -1, "explain: '%s' is not a tenant's name", asked->tenant);
    if (optind < argc)
        return cli_fail(error, -1, "explain: one tenant at a time, not '%s' too", argv[optind]);
    return 0;
}

static int print_json(const struct explained *explained, struct cli_error *error)
{
    struct json_object *document = explain_json(explained);

    if (!document)
        return cli_fail(error, CLI_FAILED, "explain: out of memory");
    puts(json_object_to_json_string_ext(document,
                                        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE | JSON_C_TO_STRING_SPACED));
    json_object_put(document);
    return 0;
}

static int run(int argc, char **argv, struct cli_error *error)
{
    static struct options asked;
    static struct explained explained;
    struct observe_request request = {0};
    static char below[PATH_MAX];
    char why[OBSERVE_ERROR_MAX];
    int result = 0;

    if (parse(argc, argv, &asked, error))
        return CLI_FAILED;
    if (asked.help)
        return help_print(stdout, &command_explain);
    if (asked.device && observe_device(asked.device, asked.uuid, why) < 0)
        return cli_fail(error, REFUSED, "explain: %s", why);
    request.tenant = asked.tenant;
    request.uuid = asked.device ? asked.uuid : NULL;
    if (asked.roots[0] && observe_below_root("explain", asked.roots[0], asked.tenant, below, error))
        return REFUSED;
    if (asked.roots[0])
        asked.directories[0] = below;
    request.roots = asked.roots[0] ? asked.roots : NULL;
    request.directories = asked.directories[0] ? asked.directories : NULL;
    if (explain_collect(&request, &explained, why) < 0)
        return cli_fail(error, REFUSED, "explain: %s", why);
    if (asked.json)
        result = print_json(&explained, error);
    else
        explain_print(&explained);
    explain_free(&explained);
    return result;
}

const struct command command_explain = {
    .name = "explain",
    .summary = "where a tenant's bytes are, and why there are no more",
    .usage = "explain [--device DEVICE] [--json] [--state-dir DIR | --root DIR] TENANT",
    .help = "Ask a tenant's processes where their bytes are, and say what follows: why an allocation was refused though memory "
            "seems to\n"
            "be free, and what would give some back. It takes up to three seconds, stops nobody, and is for the tenant's owner and "
            "root.\n"
            "\n"
            "    --device DEVICE    one GPU: GPU-<uuid>, or the number that nvidia-smi has for it\n"
            "    --json             as a document, described in explain.schema.json\n"
            "    --state-dir DIR    where the tenant's folder is, if not in the usual place\n"
            "    --root DIR         look for it in the state directories below DIR, as containers have them\n"
            "\n"
            "A process that does not answer (one that is stopped or checkpointed, has no context, is busy in the driver, or runs "
            "with\n"
            "an older softslice) is named with the reason, and with what the ledger says it holds.\n"
            "\n"
            "Exit status: 0; 1 if there is no such tenant or it cannot be read; 125 if used wrongly.\n",
    .run = run,
};
