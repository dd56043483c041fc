/* SPDX-License-Identifier: Apache-2.0 */
/* The reader in front of inih: whatever inih would cut, join, drop or take twice must be an error with its line. */
#include "softslice/ini.h"

#include <errno.h>
#include <fcntl.h>

#include "scratch.h"

TestSuite(ini, .init = scratch_make, .fini = scratch_remove, .timeout = 20);

/* What the listener heard, as text: "[a] k=v 3:what". */
static char heard[1 << 16];
static const char *refused_section, *refused_key;

static void hear(const char *format, const char *a, const char *b, unsigned line)
{
    size_t length = strlen(heard);

    if (line)
        snprintf(heard + length, sizeof(heard) - length, "%u:%s|", line, a);
    else
        snprintf(heard + length, sizeof(heard) - length, *format == '[' ? "[%s]%s|" : "%s=%s|", a, b);
}

static const char *hear_section(void *context, const char *name, unsigned line)
{
    (void)context;
    (void)line;
    hear("[", name, "", 0);
    return refused_section && strcmp(name, refused_section) == 0 ? "refused" : NULL;
}

static const char *hear_value(void *context, const char *key, const char *value, unsigned line)
{
    (void)context;
    (void)line;
    hear("=", key, value, 0);
    return refused_key && strcmp(key, refused_key) == 0 ? "refused" : NULL;
}

static void hear_error(void *context, unsigned line, const char *what)
{
    (void)context;
    hear("", what, "", line);
}

static const struct ini_events events = {hear_section, hear_value, hear_error};

static bool parse(const void *bytes, size_t length)
{
    const char *what = "";
    struct ini_file file;
    bool good;

    cr_assert(ini_file_open(&file, scratch_write("x.ini", bytes, length), &what) == 0, "%s", what);
    heard[0] = 0;
    good = ini_file_parse(&file, &events, NULL);
    ini_file_close(&file);
    return good;
}

#define GOOD(text, expected)                                                                                                       \
    do {                                                                                                                           \
        cr_expect(parse(text, sizeof(text) - 1), "'%s' was refused: %s", text, heard);                                             \
        cr_expect(strcmp(heard, expected) == 0, "'%s' came as %s", text, heard);                                                   \
    } while (0)

#define BAD(text, expected)                                                                                                        \
    do {                                                                                                                           \
        cr_expect(!parse(text, sizeof(text) - 1), "'%s' was taken: %s", text, heard);                                              \
        cr_expect(strcmp(heard, expected) == 0, "'%s' came as %s", text, heard);                                                   \
    } while (0)

Test(ini, plain)
{
    GOOD("", "");
    GOOD("[a]\nk=v\n", "[a]|k=v|");
    GOOD("[a]\nk=v", "[a]|k=v|"); /* no newline at the end */
    GOOD("[a]\r\nk = v w \r\n\r\n", "[a]|k=v w|");
    GOOD("[a]\r\nk=v\r", "[a]|k=v|");
    GOOD("\xef\xbb\xbf[a]\nk=v\n", "[a]|k=v|");
    GOOD("[a b]\nk: v\nl=x=y\nm=x:y\n", "[a b]|k=v|l=x=y|m=x:y|");
    GOOD("; c\n# c\n  ; indented comment\n\t\n[a] ; c\nk=v ; c\nl=1;x\nm=a b#c\n", "[a]|k=v|l=1;x|m=a b#c|");
    GOOD("[a]\n[b]\nk=1\n[c]\nk=2\n", "[a]|[b]|k=1|[c]|k=2|");
    GOOD("[a]\nk=\xc3\xa4\xff\n", "[a]|k=\xc3\xa4\xff|"); /* a path may be any bytes */
}

Test(ini, what_inih_would_take_without_a_word)
{
    BAD("[a]\nk=v\n l=w\n", "[a]|k=v|3:the line is indented (there are no continuation lines)|");
    BAD("[a]\nk=v\n\tl=w\n", "[a]|k=v|3:the line is indented (there are no continuation lines)|");
    BAD(" [a]\n", "1:the line is indented (there are no continuation lines)|");
    BAD("[a]\nk=1\nk=2\n", "[a]|k=1|3:this key is already in this section|");
    BAD("[a]\nk=1\nk :1\n", "[a]|k=1|3:this key is already in this section|");
    BAD("[a]\nk=1\n[b]\n[a]\nl=1\n", "[a]|k=1|[b]|4:this section is already in the file|");
    BAD("k=v\n[a]\n", "1:a key before any [section]|[a]|");
    BAD("[a]\nk\n", "[a]|2:not a comment, [section] or key = value|");
    BAD("[a]\n=v\n", "[a]|2:not a comment, [section] or key = value|");
    BAD("[a]\nk ;=v\n", "[a]|2:not a comment, [section] or key = value|");
    BAD("[a]\nk=\n", "[a]|2:the key has no value|");
    BAD("[a]\nk= ; v\n", "[a]|2:the key has no value|");
    BAD("[a]\nk=v # c\n", "[a]|2:a # comment behind a value (only ; starts one there)|");
    BAD("[a\nk=v\n", "1:the section's name has no ]|");
    BAD("[a ;]\nk=v\n", "1:the section's name has a ; or [ in it|");
    BAD("[a][b]\nk=v\n", "1:something stands behind the section's ]|");
    BAD("[a] k=v\n", "1:something stands behind the section's ]|");
    BAD("[]\nk=v\n", "1:the section has no name|");
    BAD("[a]\nk=v\0w\nl=1\n", "[a]|2:a NUL byte|l=1|");
    BAD("[a]\n;\0\n", "[a]|2:a NUL byte|");
    BAD("[a]\nk=v\fw\n", "[a]|2:a control character|");
    BAD("[a]\nk=v\rw\n", "[a]|2:a control character|"); /* a Mac's line end is not ours */
    BAD("[a]\nk=v\x1b[2J\n", "[a]|2:a control character|");
}

Test(ini, errors_of_the_listener)
{
    refused_section = "b";
    refused_key = "k";
    BAD("[a]\nk=v\nl=w\n[b]\nl=v\n[c]\nl=v\n", "[a]|k=v|2:refused|l=w|[b]|4:refused|[c]|l=v|");
}

/* "[a]\nk=" and x's until the line is `length` bytes long. */
static size_t long_line(char *text, size_t length, const char *end)
{
    strcpy(text, "[a]\nk=");
    memset(text + 6, 'x', length - 2);
    strcpy(text + 4 + length, end);
    return 4 + length + strlen(end);
}

Test(ini, long_lines)
{
    static const char *const ends[] = {"", "\n", "\r\n", "\nl=1\n"};
    char text[1024];

    for (size_t e = 0; e < 4; e++) {
        for (size_t length = 180; length <= 420; length++) {
            bool good = parse(text, long_line(text, length, ends[e]));

            cr_expect(good == (length <= INI_LINE_MAX), "%zu bytes", length);
            if (good)
                cr_expect(strlen(heard) == strlen("[a]|k=") + length - 2 + 1 + (e == 3 ? 4 : 0), "%zu bytes came cut: %s", length,
                          heard);
            else
                cr_expect(strncmp(heard, "[a]|2:the line is longer than 190 bytes|", 40) == 0, "%s", heard);
            /* the rest of the line must not come as a line of its own */
            cr_expect(good || strcmp(heard + 40, e == 3 ? "l=1|" : "") == 0, "%s", heard);
        }
    }
}

Test(ini, long_section_names)
{
    for (size_t length = 45; length <= 60; length++) {
        char text[128];
        bool good;

        memset(text, 'n', sizeof(text));
        text[0] = '[';
        strcpy(text + 1 + length, "]\nk=v\n");
        good = parse(text, strlen(text));
        cr_expect(good == (length <= 49), "%zu", length);
        cr_expect(good || strcmp(heard, "1:the section's name is longer than 49 characters|") == 0, "%s", heard);
    }
}

Test(ini, many_sections_and_keys)
{
    static char text[1 << 16];
    size_t length = 0;

    for (unsigned i = 0; i < INI_SECTIONS_MAX; i++)
        length += (size_t)sprintf(text + length, "[%u]\nk=%u\n", i, i);
    cr_expect(parse(text, length));
    cr_expect(strstr(heard, "[1023]|k=1023|") != NULL);
    length += (size_t)sprintf(text + length, "[x]\nk=1\n");
    cr_expect(!parse(text, length));
    cr_expect(strstr(heard, "2049:more than 1024 sections|") != NULL);

    length = (size_t)sprintf(text, "[a]\n");
    for (unsigned i = 0; i < INI_KEYS_MAX; i++)
        length += (size_t)sprintf(text + length, "k%u=v\n", i);
    cr_expect(parse(text, length));
    length += (size_t)sprintf(text + length, "x=v\n");
    cr_expect(!parse(text, length));
    cr_expect(strstr(heard, "66:more than 64 keys in this section|") != NULL);
}

Test(ini, lines_are_counted_as_an_editor_does)
{
    BAD("\n\r\n; c\n\n[a]\n\nk\n", "[a]|7:not a comment, [section] or key = value|");
}

Test(ini, sizes_of_files)
{
    static char text[INI_FILE_MAX + 2];
    const char *what = "";
    struct ini_file file;

    memset(text, '\n', sizeof(text));
    memcpy(text + INI_FILE_MAX - 7, "[a]\nk=v", 7);
    cr_expect(parse(text, INI_FILE_MAX));
    cr_expect(strcmp(heard, "[a]|k=v|") == 0, "%s", heard);
    cr_expect(ini_file_open(&file, scratch_write("x.ini", text, INI_FILE_MAX + 1), &what) == -EFBIG);
    cr_expect(strcmp(what, "longer than 64 KiB") == 0, "%s", what);
    cr_expect(ini_file_open(&file, scratch_write("x.ini", text, sizeof(text)), &what) == -EFBIG);
}

#define NOT_OPENED(path, rc, expected)                                                                                             \
    do {                                                                                                                           \
        const char *what = "";                                                                                                     \
        struct ini_file file;                                                                                                      \
        int got = ini_file_open(&file, path, &what);                                                                               \
                                                                                                                                   \
        cr_expect(got == (rc), "%s: %d", path, got);                                                                               \
        cr_expect(strcmp(what, expected) == 0, "%s: %s", path, what);                                                              \
    } while (0)

Test(ini, what_is_no_file)
{
    cr_assert(mkfifo(scratch_path("fifo"), 0600) == 0);
    cr_assert(symlink("loop", scratch_path("loop")) == 0);
    scratch_write("file", "", 0);
    NOT_OPENED(scratch_path("missing"), -ENOENT, "no such file");
    NOT_OPENED(scratch_path("file/x"), -ENOTDIR, "a part of the path is not a directory");
    NOT_OPENED(scratch_path("loop"), -ELOOP, "too many symbolic links");
    NOT_OPENED(scratch, -EINVAL, "not a regular file");
    NOT_OPENED(scratch_path("fifo"), -EINVAL, "not a regular file"); /* and no waiting for its writer */
    NOT_OPENED("/dev/zero", -EINVAL, "not a regular file");
    NOT_OPENED("", -ENOENT, "no such file");
}

Test(ini, follows_symlinks_to_regular_files)
{
    const char *what = "";
    struct ini_file file;

    scratch_write("data", "[a]\nk=v\n", 8); /* as Kubernetes mounts a ConfigMap */
    cr_assert(symlink("data", scratch_path("x.ini")) == 0);
    cr_assert(ini_file_open(&file, scratch_path("x.ini"), &what) == 0, "%s", what);
    cr_expect(file.owner == geteuid() && (file.mode & 07777) == 0644);
    heard[0] = 0;
    cr_expect(ini_file_parse(&file, &events, NULL) && strcmp(heard, "[a]|k=v|") == 0);
    /* twice: config reads tenants in a second pass */
    heard[0] = 0;
    cr_expect(ini_file_parse(&file, &events, NULL) && strcmp(heard, "[a]|k=v|") == 0, "%s", heard);
    ini_file_close(&file);
    ini_file_close(&file);
}

Test(ini, leaves_no_descriptor)
{
    int before = dup(0), after;
    const char *what = "";
    struct ini_file file;

    close(before);
    cr_assert(ini_file_open(&file, scratch_write("x.ini", "[a]\n", 4), &what) == 0);
    ini_file_close(&file);
    cr_expect(ini_file_open(&file, scratch, &what) < 0);
    after = dup(0);
    close(after);
    cr_expect(before == after);
}
