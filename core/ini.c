/* SPDX-License-Identifier: Apache-2.0 */
/* The reader in front of inih: it hands on only lines that inih understands as their author did.
 *
 * inih's options are variables of the process; they are left at Debian's settings (line buffer of 200 bytes on the stack, no heap,
 * continuation lines allowed), and our copy of them is hidden by static linking. Nothing of stdio or malloc is on the path of
 * ini_parse_stream() then. Its isspace() knows no blank outside ASCII in any 8-bit or UTF-8 locale of glibc. */
#include "softslice/ini.h"

#include <errno.h>
#include <ini.h>
#include <stdint.h>
#include <sys/mman.h>

#include "compat.h"
#include "text.h"

#define READ_INTERRUPTIONS_MAX 1000

struct name {
    uint32_t hash, offset, length; /* in the file's text */
};

struct reader {
    const struct ini_file *file;
    const struct ini_events *events;
    void *context;
    size_t next;
    unsigned line;
    bool failed, in_section, skip_section;
    unsigned sections, keys;
    struct name section[INI_SECTIONS_MAX];
    struct name key[INI_KEYS_MAX]; /* of the section that the reader is in */
};

/* What a file's mapping holds; the stack of the thread that looks a symbol up may be small. One byte more than allowed tells a file that
 * is too long, also where its size is not known (procfs) or changes. */
struct ini_mapping {
    char text[INI_FILE_MAX + 1];
    struct reader reader;
};

static const char *describe(int error)
{
    switch (error) {
    case ENOENT:
        return "no such file";
    case EACCES:
    case EPERM:
        return "permission denied";
    case ENOTDIR:
        return "a part of the path is not a directory";
    case ELOOP:
        return "too many symbolic links";
    case EMFILE:
    case ENFILE:
        return "too many open files";
    case ENOMEM:
        return "out of memory";
    case EIO:
        return "input/output error";
    default:
        return "cannot be read";
    }
}

static int read_all(int fd, char *text, size_t size, size_t *length)
{
    unsigned interruptions = 0;

    *length = 0;
    while (*length < size) {
        ssize_t got = compat_read(fd, text + *length, size - *length);

        if (got < 0 && errno == EINTR && interruptions++ < READ_INTERRUPTIONS_MAX)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        *length += (size_t)got;
    }
    return 0;
}

int ini_file_open(struct ini_file *file, const char *path, const char **what)
{
    int fd = compat_open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0);

    return ini_file_take(file, fd < 0 ? -errno : fd, what);
}

int ini_file_take(struct ini_file *file, int fd, const char **what)
{
    struct stat status;
    int rc = fd < 0 ? fd : 0;

    *file = (struct ini_file){0};
    if (rc == 0 && compat_fstat(fd, &status) < 0)
        rc = -errno;
    if (rc < 0) {
        *what = describe(-rc);
    } else if (!S_ISREG(status.st_mode)) {
        *what = "not a regular file";
        rc = -EINVAL;
    } else {
        struct ini_mapping *mapping = mmap(NULL, sizeof(*mapping), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (mapping == MAP_FAILED) {
            rc = -ENOMEM;
        } else {
            file->mapping = mapping;
            rc = read_all(fd, mapping->text, sizeof(mapping->text), &file->length);
        }
        if (rc < 0)
            *what = describe(-rc);
        if (rc == 0 && file->length > INI_FILE_MAX) {
            *what = "longer than 64 KiB";
            rc = -EFBIG;
        }
        file->owner = status.st_uid;
        file->mode = status.st_mode;
    }
    if (fd >= 0)
        compat_close(fd);
    if (rc < 0)
        ini_file_close(file);
    return rc;
}

void ini_file_close(struct ini_file *file)
{
    if (file->mapping)
        munmap(file->mapping, sizeof(*file->mapping));
    file->mapping = NULL;
    file->length = 0;
}

static void fail(struct reader *reader, const char *what)
{
    reader->failed = true;
    reader->events->error(reader->context, reader->line, what);
}

/* Enter `text`, a part of the file, in `names`. False if it is there. */
static bool enter(const struct reader *reader, struct name *names, unsigned *count, struct text text)
{
    struct name name = {
        .hash = 2166136261u, .offset = (uint32_t)(text.at - reader->file->mapping->text), .length = (uint32_t)text.length};

    for (size_t i = 0; i < text.length; i++)
        name.hash = (name.hash ^ (unsigned char)text.at[i]) * 16777619u;
    for (unsigned i = 0; i < *count; i++) {
        if (names[i].hash == name.hash && names[i].length == name.length &&
            memcmp(reader->file->mapping->text + names[i].offset, text.at, text.length) == 0)
            return false;
    }
    names[(*count)++] = name;
    return true;
}

static bool is_comment(struct text line)
{
    struct text text = text_trim(line);

    return text.length == 0 || text.at[0] == ';' || text.at[0] == '#';
}

/* Check "[name]" and tell the listener; *line becomes the part that inih needs. */
static bool take_section(struct reader *reader, struct text *line)
{
    size_t end = text_find(*line, ']');
    struct text name = {line->at + 1, end - 1};
    char copy[INI_SECTION_MAX + 1];
    const char *what;

    reader->in_section = reader->skip_section = true;
    reader->keys = 0;
    if (end == line->length) {
        fail(reader, "the section's name has no ]");
        return false;
    }
    if (!is_comment((struct text){line->at + end + 1, line->length - end - 1})) {
        fail(reader, "something stands behind the section's ]");
        return false;
    }
    if (name.length == 0 || name.length > INI_SECTION_MAX) {
        fail(reader, name.length ? "the section's name is longer than 49 characters" : "the section has no name");
        return false;
    }
    if (text_find(name, ';') < name.length || text_find(name, '[') < name.length) {
        fail(reader, "the section's name has a ; or [ in it");
        return false;
    }
    if (reader->sections == INI_SECTIONS_MAX) {
        fail(reader, "more than 1024 sections");
        return false;
    }
    if (!enter(reader, reader->section, &reader->sections, name)) {
        fail(reader, "this section is already in the file");
        return false;
    }
    memcpy(copy, name.at, name.length);
    copy[name.length] = 0;
    what = reader->events->section(reader->context, copy, reader->line);
    if (what) {
        fail(reader, what);
        return false;
    }
    reader->skip_section = false;
    line->length = end + 1;
    return true;
}

/* Check the shape of "key = value" and that the key is new. */
static bool check_value(struct reader *reader, struct text line)
{
    size_t equals = text_find(line, '=');
    size_t colon = text_find(line, ':');
    struct text key = text_trim((struct text){line.at, equals < colon ? equals : colon});

    if (!reader->in_section) {
        fail(reader, "a key before any [section]");
        return false;
    }
    if (reader->skip_section)
        return false;
    if (key.length == line.length || key.length == 0 || text_find(key, ';') < key.length) {
        fail(reader, "not a comment, [section] or key = value");
        return false;
    }
    if (reader->keys == INI_KEYS_MAX) {
        fail(reader, "more than 64 keys in this section");
        return false;
    }
    if (!enter(reader, reader->key, &reader->keys, key)) {
        fail(reader, "this key is already in this section");
        return false;
    }
    return true;
}

/* What may go to inih of the line; empty where nothing may. */
static struct text check_line(struct reader *reader, struct text line)
{
    static const struct text nothing = {"", 0};

    if (text_find(line, 0) < line.length) {
        fail(reader, "a NUL byte");
        return nothing;
    }
    if (line.length > INI_LINE_MAX) {
        fail(reader, "the line is longer than 190 bytes");
        return nothing;
    }
    if (is_comment(line))
        return nothing;
    for (size_t i = 0; i < line.length; i++) {
        if (text_is_control(line.at[i]) && line.at[i] != '\t') {
            fail(reader, "a control character");
            return nothing;
        }
    }
    if (text_is_blank(line.at[0])) {
        fail(reader, "the line is indented (there are no continuation lines)");
        return nothing;
    }
    if (line.at[0] == '[')
        return take_section(reader, &line) ? line : nothing;
    return check_value(reader, line) ? line : nothing;
}

/* inih's fgets. */
static char *next_line(char *buffer, int size, void *stream)
{
    struct reader *reader = stream;
    const struct ini_file *file = reader->file;
    struct text line = {file->mapping->text + reader->next, file->length - reader->next};

    if (line.length == 0)
        return NULL;
    if (size < INI_LINE_MAX + 2) {
        fail(reader, "inih was built with a shorter line buffer");
        return NULL;
    }
    reader->line++;
    line.length = text_find(line, '\n');
    reader->next += line.length + (reader->next + line.length < file->length);
    if (line.length && line.at[line.length - 1] == '\r')
        line.length--;
    if (reader->line == 1 && line.length >= 3 && memcmp(line.at, "\xef\xbb\xbf", 3) == 0) {
        line.at += 3;
        line.length -= 3;
    }
    line = check_line(reader, line);
    if (line.length)
        memcpy(buffer, line.at, line.length);
    buffer[line.length] = '\n';
    buffer[line.length + 1] = 0;
    return buffer;
}

/* inih's handler. inih has no line number for it, but it is called while the line is the reader's latest. */
static int take_value(void *user, const char *section, const char *key, const char *value)
{
    struct reader *reader = user;
    const char *what;

    (void)section;
    if (!*value)
        what = "the key has no value";
    else if (strstr(value, " #") || strstr(value, "\t#"))
        what = "a # comment behind a value (only ; starts one there)";
    else
        what = reader->events->value(reader->context, key, value, reader->line);
    if (what)
        fail(reader, what);
    return 1;
}

bool ini_file_parse(struct ini_file *file, const struct ini_events *events, void *context)
{
    struct reader *reader = &file->mapping->reader;

    memset(reader, 0, offsetof(struct reader, section));
    reader->file = file;
    reader->events = events;
    reader->context = context;
    if (ini_parse_stream(next_line, reader, take_value, reader) != 0 && !reader->failed)
        fail(reader, "not understood");
    return !reader->failed;
}
