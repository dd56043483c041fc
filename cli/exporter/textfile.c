/* SPDX-License-Identifier: Apache-2.0 */
/* A file that is always whole, for the textfile collector of Prometheus' node-exporter. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exporter.h"

static int write_all(int fd, const char *bytes, size_t length)
{
    while (length) {
        ssize_t done = write(fd, bytes, length);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        bytes += done;
        length -= (size_t)done;
    }
    return 0;
}

int textfile_write(const char *path, const struct out *out, struct cli_error *error)
{
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0, fd;
    char temporary[PATH_MAX];

    /* The collector reads what ends in .prom. */
    if (snprintf(temporary, sizeof(temporary), "%.*s.%s.XXXXXX", folder, path, path + folder) >= (int)sizeof(temporary))
        return cli_fail(error, -1, "exporter: --textfile: the name is too long");
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return cli_fail(error, -1, "exporter: cannot write beside '%s': %s", path, strerror(errno));
    if (out->failed)
        errno = ENOMEM;
    if (out->failed || write_all(fd, out->bytes, out->length) < 0 || fchmod(fd, 0644) < 0 || fsync(fd) < 0 ||
        rename(temporary, path) < 0) {
        cli_fail(error, -1, "exporter: cannot write '%s': %s", path, strerror(errno));
        unlink(temporary);
        close(fd);
        return -1;
    }
    close(fd);
    return 0;
}
