/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the state directories below a root a running tenant is in, as containers have each its own. */
#include "cli.h"
#include "observe.h"

/* In how many directories something of the tenant runs; their names, as far as there is room, and the last of them. */
static unsigned count_running(const struct observe *seen, char *names, size_t size, const char **last)
{
    unsigned count = 0;
    size_t length = 0;

    *names = '\0';
    for (unsigned i = 0; i < seen->tenants; i++) {
        if (!seen->tenant[i].problem && !seen->tenant[i].view.members)
            continue;
        *last = seen->tenant[i].directory;
        if (length < size)
            length += (size_t)snprintf(names + length, size - length, "%s%s", count ? ", " : "", *last);
        count++;
    }
    return count;
}

int observe_below_root(const char *command, const char *root, const char *tenant, char path[PATH_MAX], struct cli_error *error)
{
    struct observe_request look = {
        .roots = (const char *const[]){root, NULL}, .tenant = tenant, .without_members = true, .without_nvml = true};
    char why[OBSERVE_ERROR_MAX], names[512];
    const char *found = NULL;
    struct observe seen;
    unsigned count;
    int result;

    if (observe(&look, &seen, why) < 0)
        return cli_fail(error, -1, "%s: --root %s: %s", command, root, why);
    count = count_running(&seen, names, sizeof(names), &found);
    if (count == 1)
        result = snprintf(path, PATH_MAX, "%s", found) < PATH_MAX ? 0 : cli_fail(error, -1, "%s: %s: too long", command, found);
    else if (count)
        result = cli_fail(error, -1, "%s: tenant '%s' is in %u state directories below %s: name one with --state-dir (%s)", command,
                          tenant, count, root, names);
    else
        result = cli_fail(error, -1, "%s: --root %s: tenant '%s' has ended: nothing of it runs", command, root, tenant);
    observe_free(&seen);
    return result;
}
