/* SPDX-License-Identifier: Apache-2.0 */
/* What a file says about whether a library can be preloaded into it. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "cli.h"

#if defined(__x86_64__)
#    define OUR_MACHINE EM_X86_64
#elif defined(__aarch64__)
#    define OUR_MACHINE EM_AARCH64
#else
#    error "softslice knows x86-64 and aarch64"
#endif
#define SCRIPT_MAX   256 /* bytes of a #! line that the kernel reads */
#define SCRIPT_DEPTH 4
#define HEADERS_MAX  64

struct program {
    bool script, elf, ours, shared;
    char interpreter[PATH_MAX]; /* of a script, or the dynamic loader; "" for none */
};

static void read_script(struct program *program, char *line, size_t length)
{
    char *start = line + 2;

    line[length] = '\0';
    start += strspn(start, " \t");
    start[strcspn(start, " \t\r\n")] = '\0';
    program->script = true;
    snprintf(program->interpreter, sizeof(program->interpreter), "%s", start);
}

static void read_headers(int fd, const Elf64_Ehdr *header, struct program *program)
{
    Elf64_Phdr segment[HEADERS_MAX];
    unsigned count = header->e_phnum < HEADERS_MAX ? header->e_phnum : HEADERS_MAX;
    ssize_t length = pread(fd, segment, count * sizeof(segment[0]), (off_t)header->e_phoff);

    for (unsigned i = 0; i < count && (ssize_t)((i + 1) * sizeof(segment[0])) <= length; i++) {
        if (segment[i].p_type != PT_INTERP)
            continue;
        size_t size = segment[i].p_filesz < PATH_MAX ? segment[i].p_filesz : PATH_MAX - 1;
        ssize_t got = pread(fd, program->interpreter, size, (off_t)segment[i].p_offset);

        program->interpreter[got > 0 ? got : 0] = '\0';
    }
}

/* 0, or -errno. A file that is neither a script nor ELF is neither. */
static int read_program(const char *path, struct program *program)
{
    union {
        Elf64_Ehdr elf;
        char text[SCRIPT_MAX + 1];
    } start = {0};
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t length;

    memset(program, 0, sizeof(*program));
    if (fd < 0)
        return -errno;
    length = pread(fd, &start, SCRIPT_MAX, 0);
    if (length < 0)
        return -errno;
    if (length > 2 && memcmp(start.text, "#!", 2) == 0) {
        read_script(program, start.text, (size_t)length);
    } else if (length >= (ssize_t)sizeof(start.elf) && memcmp(start.elf.e_ident, ELFMAG, SELFMAG) == 0) {
        program->elf = true;
        program->ours = start.elf.e_ident[EI_CLASS] == ELFCLASS64 && start.elf.e_machine == OUR_MACHINE;
        program->shared = start.elf.e_type == ET_DYN;
        if (program->ours)
            read_headers(fd, &start.elf, program);
    }
    return 0;
}

/* Whether the file names itself as softslice's library does (DT_SONAME), whatever it was copied to. */
static bool names_softslice(const char *path)
{
    static const char name[] = "\0" CLI_LIBRARY; /* and its NUL: a whole string of the file's */
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    void *file;
    bool found;

    if (fd < 0 || fstat(fd, &status) < 0 || status.st_size <= 0)
        return false;
    file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED)
        return false;
    found = memmem(file, (size_t)status.st_size, name, sizeof(name)) != NULL;
    munmap(file, (size_t)status.st_size);
    return found;
}

bool preload_is_library(const char *path, const char **why)
{
    struct program program;
    struct stat status;

    *why = NULL;
    if (stat(path, &status) < 0 || !S_ISREG(status.st_mode))
        *why = "not a regular file";
    else if (read_program(path, &program) < 0)
        *why = "cannot be read";
    else if (!program.elf || !program.shared)
        *why = "not a shared library";
    else if (!program.ours)
        *why = "a library for another kind of processor";
    else if (*program.interpreter || !names_softslice(path))
        *why = "not " CLI_LIBRARY;
    return !*why;
}

bool preload_find_program(const char *name, char path[PATH_MAX])
{
    const char *search = getenv("PATH");
    size_t entry;

    if (!*name || strchr(name, '/')) {
        snprintf(path, PATH_MAX, "%s", name);
        return access(path, X_OK) == 0;
    }
    if (!search)
        search = "/bin:/usr/bin";
    for (const char *rest = search;; rest += entry + 1) {
        struct stat status;

        entry = strcspn(rest, ":");
        snprintf(path, PATH_MAX, "%.*s%s%s", (int)entry, rest, entry ? "/" : "./", name);
        if (access(path, X_OK) == 0 && stat(path, &status) == 0 && S_ISREG(status.st_mode))
            return true;
        if (!rest[entry])
            return false;
    }
}

/* Whether the kernel will tell ld.so to take no preload from a path (AT_SECURE). */
static bool gains_rights(const char *path)
{
    struct stat status;

    if (stat(path, &status) < 0)
        return false;
    if ((status.st_mode & S_ISUID) && status.st_uid != geteuid())
        return true;
    if ((status.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && status.st_gid != getegid())
        return true;
    return geteuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0;
}

void preload_warn(const char *path)
{
    struct program program;
    char file[PATH_MAX];

    snprintf(file, sizeof(file), "%s", path);
    for (unsigned depth = 0; depth < SCRIPT_DEPTH; depth++) {
        if (read_program(file, &program) < 0)
            return; /* executable but not readable: nothing to be seen */
        if (!program.script)
            break;
        memcpy(file, program.interpreter, sizeof(file));
    }
    if (!program.elf)
        return; /* a shell takes it */
    if (!program.ours)
        cli_warn("%s is for another kind of processor than " CLI_LIBRARY ": no limit will hold in it", file);
    else if (!*program.interpreter)
        cli_warn("%s is statically linked and takes no preloaded library: no limit will hold in it", file);
    else if (strstr(program.interpreter, "ld-musl"))
        cli_warn("%s uses musl, " CLI_LIBRARY " needs glibc: no limit will hold in it", file);
    else if (gains_rights(file))
        cli_warn("%s is setuid, setgid or has capabilities, so it takes no preloaded library: no limit will hold in it", file);
}
