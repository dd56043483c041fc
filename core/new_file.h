/* SPDX-License-Identifier: Apache-2.0 */
/* Files that others may open the moment they have a name: complete before they get it, and with their space allocated, for a sparse one on a full
 * tmpfs would be SIGBUS later. */
#ifndef SOFTSLICE_CORE_NEW_FILE_H
#define SOFTSLICE_CORE_NEW_FILE_H

#include <stddef.h>
#include <stdint.h>

#define NEW_FILE_TEMPORARY 40

/* An open file of `size` bytes that begins with `head` and is zeros else, without a name; or where that is not possible, or `temporary` is not "", with
 * one that begins with `prefix`, written there. A descriptor (O_CLOEXEC), or -errno. */
int new_file_create(int folder, const char *prefix, unsigned mode, uint64_t size, const void *head, size_t head_size,
                    char temporary[NEW_FILE_TEMPORARY]);

/* Give it its name; its temporary one goes in any case. 0, or -errno: -EEXIST where there is one. */
int new_file_publish(int folder, int fd, const char *temporary, const char *name);

#endif
