/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the members of a tenant something, and their answers: a word of the ledger that grows with each question, and a file for each who answers. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"
#include "softslice/log.h"

#define KEPT_NS UINT64_C(10000000000) /* for which an answer stays */

/* Wake who sleeps until there is a request. The page is mapped for its address alone: the kernel finds the sleepers by that, and nothing is read that could be
 * cut off. */
static void wake_members(int fd)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *mapped = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);

    if (mapped == MAP_FAILED)
        return; /* they look once a minute */
    clock_wake((uint32_t *)(void *)(mapped + offsetof(struct ledger_header, asked)), true);
    munmap(mapped, page);
}

/* Who asks may be root and the file anybody's, who may truncate it at any time: it is written, not mapped. Two who ask at once write the same. */
int ledger_ask(int dirfd, const char *name, uint64_t *request)
{
    struct ledger_header header;
    int saved = errno, fd = ledger_open(dirfd, name, O_RDWR, &header), result = fd;

    if (fd >= 0) {
        *request = header.asked + 1;
        result = ledger_may_change(fd);
        if (result == 0) {
            result = (int)sys_pwrite(fd, request, sizeof(*request), offsetof(struct ledger_header, asked));
            result = result == sizeof(*request) ? 0 : result < 0 ? result : -EIO;
        }
        if (result == 0)
            wake_members(fd);
        sys_close(fd);
    }
    errno = saved;
    return result;
}

bool ledger_is_asked(const struct ledger *ledger, uint64_t *request)
{
    *request = ledger->file ? ledger_load(&ledger->file->asked) : 0;
    return *request != ledger->answered;
}

/* The half of the word that changes, on machines of this byte order. */
static const uint32_t *asked_half(const struct ledger *ledger)
{
    return (const uint32_t *)(const void *)&ledger->file->asked;
}

uint32_t ledger_asked(const struct ledger *ledger)
{
    return ledger->file ? __atomic_load_n(asked_half(ledger), __ATOMIC_SEQ_CST) : 0;
}

bool ledger_wait_asked(const struct ledger *ledger, uint32_t asked, const uint32_t *word, uint32_t seen, uint64_t until)
{
    return ledger->file ? clock_wait_two(word, seen, asked_half(ledger), asked, until) : clock_wait(word, seen, until, false);
}

static void name_answer(char name[32], uint32_t slot)
{
    log_format(name, 32, LEDGER_ANSWER "%u", slot);
}

struct answer {
    struct ledger *ledger;
    const void *data; /* NULL: none */
    size_t size;
};

/* The tenant's folder, if it is still the one with this process's ledger in it: the program may have changed its root. And the mode of that. */
static int open_folder(const struct ledger *ledger, unsigned *mode)
{
    size_t length = strlen(ledger->path) - strlen("/" LEDGER_NAME);
    char path[PATH_MAX];
    struct stat status;
    int folder;

    log_format(path, sizeof(path), "%s", ledger->path);
    path[length] = '\0';
    folder = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (folder < 0)
        return folder;
    if (sys_lstatat(folder, LEDGER_NAME, &status) == 0 && status.st_dev == ledger->file_device &&
        status.st_ino == ledger->file_inode) {
        *mode = status.st_mode & 0666;
        return folder;
    }
    sys_close(folder);
    return -ESTALE;
}

/* Others read it, and write it no more than a stranger's. */
static int write_answer(const struct answer *answer, int folder, unsigned mode, const char *name, char *temporary)
{
    int fd = new_file_create(folder, LEDGER_TEMPORARY, mode & ~022U, answer->size, answer->data, answer->size, temporary),
        result = fd;

    if (fd >= 0) {
        result = new_file_publish(folder, fd, temporary, name);
        sys_close(fd);
    }
    return result;
}

/* In a moment without a file of its name, who reads looks again. */
static int answer_work(void *argument)
{
    const struct answer *answer = argument;
    char name[32], temporary[NEW_FILE_TEMPORARY] = "";
    unsigned mode = 0;
    int folder = open_folder(answer->ledger, &mode), result;

    if (folder < 0)
        return folder;
    name_answer(name, answer->ledger->slot);
    result = sys_unlinkat(folder, name, 0);
    if (answer->data && (result == 0 || result == -ENOENT))
        result = write_answer(answer, folder, mode, name, temporary);
    if (answer->data && result == -ENOENT) { /* a file without a name cannot be given one here */
        memcpy(temporary, ".", 2);
        result = write_answer(answer, folder, mode, name, temporary);
    }
    sys_close(folder);
    return result;
}

int ledger_answer(struct ledger *ledger, uint64_t request, const void *data, size_t size)
{
    struct answer answer = {.ledger = ledger, .data = data, .size = size};

    if (!ledger->file)
        return -ENOENT;
    ledger->answered = request;
    ledger->answered_at = clock_now();
    return ledger->path[0] ? ledger_apart(answer_work, &answer) : -ENOENT;
}

void ledger_withdraw_answer(struct ledger *ledger, bool now)
{
    struct answer answer = {.ledger = ledger};

    if (!ledger->file || !ledger->answered_at || (!now && clock_now() - ledger->answered_at < KEPT_NS))
        return;
    ledger->answered_at = 0;
    if (ledger->path[0])
        ledger_apart(answer_work, &answer);
}

bool ledger_has_answer(const struct ledger *ledger)
{
    return ledger->answered_at;
}

uint64_t ledger_own_since(const struct ledger *ledger)
{
    return ledger->file ? ledger_load(&ledger_slot_at(ledger, ledger->slot)->since) : 0;
}

ssize_t ledger_read_answer(int dirfd, const char *name, uint32_t slot, void *data, size_t size)
{
    int folder = sys_openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0), fd;
    struct stat status;
    char file[32];
    ssize_t result;

    if (folder < 0)
        return folder;
    name_answer(file, slot);
    fd = ledger_open_regular(folder, file, O_RDONLY);
    sys_close(folder);
    if (fd < 0)
        return fd;
    result = sys_fstat(fd, &status);
    if (result >= 0 && (!S_ISREG(status.st_mode) || status.st_size <= 0 || (uint64_t)status.st_size > size))
        result = -EPROTO;
    if (result >= 0)
        result = sys_pread(fd, data, (size_t)status.st_size, 0);
    sys_close(fd);
    return result;
}
