/* SPDX-License-Identifier: Apache-2.0 */
/* labels.ini of a state directory: which pod and container it belongs to, said by whoever made the directory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "observe_internal.h"
#include "softslice/ini.h"

struct reading {
    struct observe_labels *labels;
    char *what;
};

static const char *take_section(void *context, const char *name, unsigned line)
{
    (void)context;
    (void)line;
    return strcmp(name, "labels") == 0 ? NULL : "the only section is [labels]";
}

static const char *take_value(void *context, const char *key, const char *value, unsigned line)
{
    struct reading *reading = context;
    char *label = strcmp(key, "pod") == 0         ? reading->labels->pod
                  : strcmp(key, "namespace") == 0 ? reading->labels->namespace
                  : strcmp(key, "container") == 0 ? reading->labels->container
                                                  : NULL;

    (void)line;
    if (!label)
        return "the labels are pod, namespace and container";
    for (const char *c = value; *c; c++) {
        if (!(*c >= 'a' && *c <= 'z') && !(*c >= 'A' && *c <= 'Z') && !(*c >= '0' && *c <= '9') && !strchr("-._", *c))
            return "a name has letters, digits, '-', '.' and '_'";
    }
    snprintf(label, OBSERVE_LABEL, "%s", value);
    return NULL;
}

static void take_error(void *context, unsigned line, const char *what)
{
    struct reading *reading = context;

    if (!*reading->what)
        snprintf(reading->what, 128, "labels.ini:%u: %s", line, what);
}

bool observe_labels_read(int directory, uid_t owner, struct observe_labels *labels, char what[128])
{
    static const struct ini_events events = {take_section, take_value, take_error};
    struct reading reading = {labels, what};
    struct ini_file file;
    const char *why = "";
    int fd = openat(directory, "labels.ini", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK), result;

    memset(labels, 0, sizeof(*labels));
    *what = '\0';
    if (fd < 0 && errno == ENOENT)
        return true;
    if (fd < 0 && errno == ELOOP) {
        snprintf(what, 128, "labels.ini: a symbolic link");
        return false;
    }
    result = ini_file_take(&file, fd < 0 ? -errno : fd, &why);
    if (result < 0) {
        snprintf(what, 128, "labels.ini: %s", why);
        return false;
    }
    if (file.owner != 0 && file.owner != owner)
        snprintf(what, 128, "labels.ini: belongs to uid %u, not to the directory's owner", file.owner);
    else if (file.mode & S_IWOTH)
        snprintf(what, 128, "labels.ini: everybody may write it");
    else
        ini_file_parse(&file, &events, &reading);
    ini_file_close(&file);
    if (*what)
        memset(labels, 0, sizeof(*labels));
    return !*what;
}
