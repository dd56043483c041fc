/* SPDX-License-Identifier: Apache-2.0 */
/* What others write and we show: labels.ini of a state directory, and names. `make fuzz` builds this with libFuzzer; tests/unit/test_fuzz_observe.c runs
 * the seeds of tests/fuzz/observe and mutations of them without it.
 *
 * Input: the text of a labels.ini, which is also taken for a name. What is shown has no control character and is UTF-8, and a label that is believed is
 * one that Kubernetes could have given. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../cli/observe_labels.c"
#include "../../cli/observe_tell.c"

#define MUST(condition)                                                                                                            \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                        \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int directory = -1;
static char place[64];

static void remove_place(void)
{
    unlinkat(directory, "labels.ini", 0);
    rmdir(place);
}

static void make_place(void)
{
    strcpy(place, "/dev/shm/softslice-fuzz-XXXXXX");
    MUST(mkdtemp(place));
    directory = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(directory >= 0);
    atexit(remove_place);
}

static void check_label(const char *label)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

    MUST(strlen(label) < OBSERVE_LABEL && strspn(label, good) == strlen(label));
}

static void read_labels(const uint8_t *data, size_t size)
{
    struct observe_labels labels;
    char what[128];
    bool good;
    int fd = openat(directory, "labels.ini", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
    memset(&labels, 'x', sizeof(labels));
    good = observe_labels_read(directory, geteuid(), &labels, what);
    MUST(good == !*what && strlen(what) < sizeof(what));
    check_label(labels.pod);
    check_label(labels.namespace);
    check_label(labels.container);
    MUST(good || !(*labels.pod || *labels.namespace || *labels.container));
}

/* Plain, in another way than the code that is tested: by ranges of bytes, as the table of well-formed UTF-8 in the Unicode standard has them. */
static size_t well_formed(const unsigned char *text)
{
    static const struct {
        unsigned char first[2], second[2];
        size_t length;
    } rows[] = {{{0x20, 0x7e}, {0, 0xff}, 1},    {{0xc2, 0xc2}, {0xa0, 0xbf}, 2}, {{0xc3, 0xdf}, {0x80, 0xbf}, 2},
                {{0xe0, 0xe0}, {0xa0, 0xbf}, 3}, {{0xe1, 0xec}, {0x80, 0xbf}, 3}, {{0xed, 0xed}, {0x80, 0x9f}, 3},
                {{0xee, 0xef}, {0x80, 0xbf}, 3}, {{0xf0, 0xf0}, {0x90, 0xbf}, 4}, {{0xf1, 0xf3}, {0x80, 0xbf}, 4},
                {{0xf4, 0xf4}, {0x80, 0x8f}, 4}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (text[0] < rows[i].first[0] || text[0] > rows[i].first[1])
            continue;
        if (rows[i].length == 1)
            return 1;
        if (text[1] < rows[i].second[0] || text[1] > rows[i].second[1])
            return 0;
        for (size_t j = 2; j < rows[i].length; j++) {
            if (text[j] < 0x80 || text[j] > 0xbf)
                return 0;
        }
        return rows[i].length;
    }
    return 0;
}

static void show(const char *text)
{
    static char clean[3 * 4096 + 1], again[3 * 4096 + 1], small[16];
    size_t length;

    observe_text(clean, sizeof(clean), text, false);
    for (const unsigned char *at = (const unsigned char *)clean; *at; at += length) {
        length = well_formed(at);
        MUST(length);
    }
    MUST(strcmp(observe_text(again, sizeof(again), clean, false), clean) == 0);
    observe_text(small, sizeof(small), text, false);
    MUST(strlen(small) < sizeof(small) && strncmp(small, clean, strlen(small)) == 0);
    observe_text(clean, sizeof(clean), text, true);
    for (const char *at = clean; *at; at++)
        MUST(*at >= 0x20 && *at < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[4096];

    if (directory < 0)
        make_place();
    if (size >= sizeof(text))
        return 0;
    read_labels(data, size);
    memcpy(text, data, size);
    text[size] = '\0';
    show(text);
    return 0;
}
