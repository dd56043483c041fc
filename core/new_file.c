/* SPDX-License-Identifier: Apache-2.0 */
/* Makes files complete before they have a name. */
#include "new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "ledger_sys.h"
#include "softslice/log.h"

/* File systems without fallocate get zeros written, so that no later access finds the space missing (SIGBUS). */
static int allocate(int fd, uint64_t size)
{
    static const char zeros[4096];
    int result = sys_fallocate(fd, size);

    if (result != -EOPNOTSUPP && result != -ENOSYS)
        return result;
    for (uint64_t at = 0; at < size;) {
        ssize_t written = sys_pwrite(fd, zeros, size - at < sizeof(zeros) ? size - at : sizeof(zeros), at);

        if (written <= 0)
            return written ? (int)written : -EIO;
        at += (uint64_t)written;
    }
    return 0;
}

int new_file_create(int folder, const char *prefix, unsigned mode, uint64_t size, const void *head, size_t head_size,
                    char temporary[NEW_FILE_TEMPORARY])
{
    int fd = *temporary ? -EOPNOTSUPP : sys_openat(folder, ".", O_TMPFILE | O_RDWR, 0600), result;

    if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL) {
        log_format(temporary, NEW_FILE_TEMPORARY, "%s%llx", prefix, (unsigned long long)sys_random());
        fd = sys_openat(folder, temporary, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0600);
    }
    if (fd < 0)
        return fd;
    result = sys_fchmod(fd, mode);
    if (result == 0)
        result = allocate(fd, size);
    if (result == 0) {
        ssize_t written = sys_pwrite(fd, head, head_size, 0);

        result = written == (ssize_t)head_size ? 0 : written < 0 ? (int)written : -EIO;
    }
    if (result == 0)
        return fd;
    if (*temporary)
        sys_unlinkat(folder, temporary, 0);
    sys_close(fd);
    return result;
}

int new_file_publish(int folder, int fd, const char *temporary, const char *name)
{
    char self[40];
    int result;

    if (*temporary) {
        result = sys_linkat(folder, temporary, folder, name, 0);
        sys_unlinkat(folder, temporary, 0);
        return result;
    }
    log_format(self, sizeof(self), "/proc/self/fd/%d", fd);
    result = sys_linkat(AT_FDCWD, self, folder, name, AT_SYMLINK_FOLLOW);
    return result == -ENOENT ? sys_linkat(fd, "", folder, name, AT_EMPTY_PATH) : result;
}
