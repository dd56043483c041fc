/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what MPS and control groups say of GPU memory. */
#include "softslice/native.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

#include "compat.h"
#include "softslice/log.h"
#include "softslice/units.h"

#define CGROUP_TEXT_MAX (PATH_MAX + 64)

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static void trim(const char **text, size_t *length)
{
    while (*length && is_blank(**text))
        ++*text, --*length;
    while (*length && is_blank((*text)[*length - 1]))
        --*length;
}

/* "1G", "512MB", "512m": MPS's own units, powers of 1024. A number without one is not documented and not taken. */
static bool mps_size(const char *text, size_t length, uint64_t *bytes)
{
    unsigned shift;
    size_t digits = 0;

    trim(&text, &length);
    if (length && (text[length - 1] == 'B' || text[length - 1] == 'b'))
        length--;
    if (length < 2)
        return false;
    switch (text[length - 1]) {
    case 'G':
    case 'g':
        shift = 30;
        break;
    case 'M':
    case 'm':
        shift = 20;
        break;
    default:
        return false;
    }
    *bytes = 0;
    for (; digits < length - 1; digits++) {
        if (text[digits] < '0' || text[digits] > '9' || *bytes > (UINT64_MAX >> shift) / 10 - 1)
            return false;
        *bytes = *bytes * 10 + (uint64_t)(text[digits] - '0');
    }
    *bytes <<= shift;
    return true;
}

static bool mps_device(const char *text, size_t length, int ordinal, const uint8_t uuid[16])
{
    char full[UNITS_TEXT_MAX];
    int number = 0;

    trim(&text, &length);
    units_format_uuid(full, uuid);
    if (length > 4 && (strncasecmp(text, "GPU-", 4) == 0 || strncasecmp(text, "MIG-", 4) == 0))
        return length <= strlen(full) && strncasecmp(text + 4, full + 4, length - 4) == 0;
    if (!length || length > 4)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        number = number * 10 + (text[i] - '0');
    }
    return number == ordinal;
}

uint64_t native_mps_bytes(const char *text, int ordinal, const uint8_t uuid[16])
{
    uint64_t least = NATIVE_NONE, bytes;

    while (text && *text) {
        size_t length = strcspn(text, ",");
        const char *equals = memchr(text, '=', length);

        if (equals && mps_device(text, (size_t)(equals - text), ordinal, uuid) &&
            mps_size(equals + 1, length - (size_t)(equals + 1 - text), &bytes) && bytes < least)
            least = bytes;
        text += length + (text[length] == ',');
    }
    return least;
}

static bool exists(const char *path)
{
    int saved = errno;
    bool there = compat_exists(path);

    errno = saved;
    return there;
}

bool native_mps_serves(const char *directory)
{
    char path[PATH_MAX];

    log_format(path, sizeof(path), "%s/control", directory && *directory ? directory : "/tmp/nvidia-mps");
    return exists(path);
}

bool native_cgroup(char *path, size_t size)
{
    char text[CGROUP_TEXT_MAX];
    int saved = errno, fd = compat_open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC, 0);
    ssize_t got = 0, more;
    char *line;

    if (fd >= 0) {
        while ((size_t)got < sizeof(text) - 1 && (more = compat_read(fd, text + got, sizeof(text) - 1 - (size_t)got)) > 0)
            got += more;
        compat_close(fd);
    }
    errno = saved;
    text[got] = '\0';
    /* "0::/path" is the unified hierarchy; lines of others come before it. */
    line = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
    if (!line)
        return false;
    line = strchr(line, ':') + 2;
    line[strcspn(line, "\n")] = '\0';
    if (strlen(NATIVE_CGROUP_ROOT) + strlen(line) >= size)
        return false;
    log_format(path, size, "%s%s", NATIVE_CGROUP_ROOT, line[1] ? line : "");
    /* In a container without a name space of control groups the path is the host's, and what is mounted is ours. */
    if (!exists(path))
        log_format(path, size, "%s", NATIVE_CGROUP_ROOT);
    return exists(path);
}
