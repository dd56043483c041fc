/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel's control groups say of GPU memory, for `softslice doctor`: it is the driver that keeps to it. */
#include <errno.h>
#include <string.h>

#include "cli.h"
#include "doctor.h"
#include "softslice/native.h"

#define LINE_BYTES 1024
#define REGION_MAX 256

/* Tell of each region of `path`/dmem.max that has a limit. */
static void look_at_group(const char *path, native_tell *tell, void *context)
{
    char name[PATH_MAX + sizeof("/dmem.max")], line[LINE_BYTES], region[REGION_MAX], size[UNITS_TEXT_MAX], text[CLI_ERROR_MAX];
    unsigned long long bytes;
    FILE *file;

    snprintf(name, sizeof(name), "%s/dmem.max", path);
    if (!(file = fopen(name, "re")))
        return;
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%255s %llu", region, &bytes) != 2)
            continue; /* "max" */
        snprintf(text, sizeof(text), "%s: %s for %s", name, units_format_size(size, bytes), region);
        tell(context, text);
    }
    fclose(file);
}

void doctor_dmem(native_tell *tell, void *context)
{
    char path[PATH_MAX], *slash;

    if (!native_cgroup(path, sizeof(path)))
        return;
    for (;;) { /* a group's limit holds for those below it */
        look_at_group(path, tell, context);
        slash = strrchr(path, '/');
        if (strlen(path) <= strlen(NATIVE_CGROUP_ROOT) || !slash)
            return;
        *slash = '\0';
    }
}
