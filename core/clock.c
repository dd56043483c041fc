/* SPDX-License-Identifier: Apache-2.0 */
/* The host's monotonic clock. A time namespace shifts CLOCK_MONOTONIC by an offset that stands in /proc/self/timens_offsets. */
#include "softslice/clock.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>

#include "compat.h"
#include "text.h"

#define SECOND 1000000000

/* What this process has learned. In memory that a forked child finds wiped: after unshare(CLONE_NEWTIME) it is in another namespace. */
struct learned {
    uint64_t known;
    int64_t offset; /* atomic: of CLOCK_MONOTONIC here, in ns; good where `known` is not 0 */
};

static struct learned *learned;

static bool parse_signed(const char **at, int64_t *value)
{
    bool minus;

    while (text_is_blank(**at))
        ++*at;
    minus = **at == '-';
    *at += minus;
    if (!text_is_digit(**at))
        return false;
    for (*value = 0; text_is_digit(**at); ++*at) {
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, **at - '0', value))
            return false;
    }
    *value = minus ? -*value : *value;
    return true;
}

/* The line "monotonic SECONDS NANOSECONDS". 0 where there is none: a kernel without time namespaces. */
static int64_t parse_offsets(const char *text)
{
    static const char name[] = "monotonic";
    const char *at = strstr(text, name);
    int64_t seconds, ns;

    if (!at)
        return 0;
    at += sizeof(name) - 1;
    if (!parse_signed(&at, &seconds) || !parse_signed(&at, &ns) || __builtin_mul_overflow(seconds, SECOND, &seconds) ||
        __builtin_add_overflow(seconds, ns, &seconds))
        return 0;
    return seconds;
}

static int64_t read_offset(void)
{
    char text[512];
    uint64_t own = compat_inode("/proc/self/ns/time");
    ssize_t size;
    int fd;

    /* The file tells of the namespace that children come into. Who has unshared one and not forked is in its parent's: the host's, as a rule. */
    if (!own || own != compat_inode("/proc/self/ns/time_for_children"))
        return 0;
    fd = compat_open("/proc/self/timens_offsets", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    size = compat_read(fd, text, sizeof(text) - 1);
    compat_close(fd);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    return parse_offsets(text);
}

static __attribute__((noinline, cold)) int64_t learn_offset(void)
{
    struct learned *page = __atomic_load_n(&learned, __ATOMIC_ACQUIRE), *found = NULL;
    int saved = errno;
    int64_t offset = read_offset();

    if (!page) {
        page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) {
            page = NULL;
        } else if (madvise(page, sizeof(*page), MADV_WIPEONFORK) < 0 ||
                   !__atomic_compare_exchange_n(&learned, &found, page, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            munmap(page, sizeof(*page));
            page = found;
        }
    }
    if (page) {
        __atomic_store_n(&page->offset, offset, __ATOMIC_RELAXED);
        __atomic_store_n(&page->known, 1, __ATOMIC_RELEASE);
    }
    errno = saved;
    return offset;
}

static int64_t offset_here(void)
{
    const struct learned *page = __atomic_load_n(&learned, __ATOMIC_ACQUIRE);

    if (__builtin_expect(page && __atomic_load_n(&page->known, __ATOMIC_ACQUIRE), 1))
        return __atomic_load_n(&page->offset, __ATOMIC_RELAXED);
    return learn_offset();
}

uint64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec - (uint64_t)offset_here();
}

bool clock_wait(const uint32_t *word, uint32_t seen, uint64_t until, bool shared)
{
    uint64_t here = until + (uint64_t)offset_here();
    struct timespec end = {(time_t)(here / SECOND), (long)(here % SECOND)};
    int operation = FUTEX_WAIT_BITSET | (shared ? 0 : FUTEX_PRIVATE_FLAG), saved = errno;
    bool over;

    if (until != CLOCK_NEVER && clock_now() >= until)
        return false;
    /* The kernel takes a moment of CLOCK_MONOTONIC as this time namespace has it. */
    over = syscall(SYS_futex, word, operation, seen, until == CLOCK_NEVER ? NULL : &end, NULL, FUTEX_BITSET_MATCH_ANY) < 0 &&
           errno == ETIMEDOUT;
    errno = saved;
    return !over;
}

/* futex_waitv(2), which is newer than the oldest headers that this is built with. */
#define FUTEX_WAITV 449
#define WORD_32     2

struct two {
    uint64_t value, word;
    uint32_t flags, reserved;
};

bool clock_wait_two(const uint32_t *word, uint32_t seen, const uint32_t *shared, uint32_t shared_seen, uint64_t until)
{
    static uint32_t cannot;
    const struct two both[] = {{seen, (uintptr_t)word, WORD_32 | FUTEX_PRIVATE_FLAG, 0},
                               {shared_seen, (uintptr_t)shared, WORD_32, 0}};
    uint64_t here = until + (uint64_t)offset_here(), now = clock_now();
    struct timespec end = {(time_t)(here / SECOND), (long)(here % SECOND)};
    int saved = errno, why;

    if (until != CLOCK_NEVER && now >= until)
        return false;
    if (!__atomic_load_n(&cannot, __ATOMIC_RELAXED)) {
        long result = syscall(FUTEX_WAITV, both, 2, 0, until == CLOCK_NEVER ? NULL : &end, CLOCK_MONOTONIC);

        why = result < 0 ? errno : 0;
        errno = saved;
        if (why == 0 || why == EAGAIN || why == EINTR)
            return true;
        if (why == ETIMEDOUT)
            return false;
        __atomic_store_n(&cannot, 1, __ATOMIC_RELAXED);
    }
    return clock_wait(word, seen, until < now + SECOND ? until : now + SECOND, false) || now + SECOND < until;
}

void clock_wake(uint32_t *word, bool shared)
{
    int saved = errno;

    syscall(SYS_futex, word, FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG), INT32_MAX, NULL, NULL, 0);
    errno = saved;
}
