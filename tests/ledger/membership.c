/* SPDX-License-Identifier: Apache-2.0 */
/* Joining and leaving: a full ledger, a stopped joiner, other PID namespaces and users, folders of ended processes, and state
 * directories that cannot be used. What a machine does not let us try is named at the end. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "common.h"
#include "ledger_layout.h"

#define LIMIT UINT64_C(1000000)

static struct ledger *ledger, *other;
static int dir;
static unsigned device;

static unsigned count_folders(const char *prefix)
{
    DIR *entries = opendir(test_state);
    struct dirent *entry;
    unsigned count = 0;

    check(entries, "%s", strerror(errno));
    while ((entry = readdir(entries)))
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(entries);
    return count;
}

static unsigned count_descriptors(void)
{
    DIR *entries = opendir("/proc/self/fd");
    unsigned count = 0;

    while (entries && readdir(entries))
        count++;
    if (entries)
        closedir(entries);
    return count;
}

static int finish(pid_t pid)
{
    int status = 0;

    check(waitpid(pid, &status, 0) == pid, "%s", strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Of the program's own things none is changed or kept. */
static void a_guest(void)
{
    mode_t mask = umask(077);
    unsigned descriptors = count_descriptors();

    errno = 4711;
    check(ledger_attach(ledger, dir, "guest") == 0, "%s", ledger->error);
    device = (unsigned)ledger_add_device(ledger, test_uuid, LIMIT);
    ledger_members(ledger);
    check(ledger_reserve(ledger, device, LIMIT, LEDGER_NO_LIMIT) == 0, "no room");
    ledger_settle(ledger, device, LIMIT, LIMIT);
    check(ledger_reserve(ledger, device, 1, LEDGER_NO_LIMIT) == -ENOMEM, "room");
    ledger_current(ledger, device);
    check(errno == 4711, "errno is %d", errno);
    check(count_descriptors() == descriptors, "%u descriptors instead of %u", count_descriptors(), descriptors);
    check(umask(mask) == 077, "the umask was changed");
    ledger_detach(ledger);
    errno = 4711;
    check(ledger_attach(ledger, -1, "guest") == -EBADF && errno == 4711, "%s", ledger->error);
}

static void full(void)
{
    static struct ledger members[LEDGER_SLOTS];

    for (unsigned i = 0; i < LEDGER_SLOTS; i++)
        check(ledger_attach(&members[i], dir, "full") == 0, "member %u: %s", i, members[i].error);
    check(ledger_attach(other, dir, "full") == -EUSERS, "%s", other->error);
    printf("full: %s\n", other->error);
    check(ledger_members(&members[7]) == LEDGER_SLOTS, "%u members", ledger_members(&members[7]));
    ledger_detach(&members[500]);
    check(ledger_attach(other, dir, "full") == 0 && other->slot == members[499].slot + 1, "%s", other->error);
    ledger_detach(other);
    for (unsigned i = 0; i < LEDGER_SLOTS; i++)
        ledger_detach(&members[i]);
    check(ledger_attach(other, dir, "full") == 0 && other->slot == 0 && other->first, "%s", other->error);
    ledger_detach(other);
}

/* One who is stopped while it joins keeps others from joining, not from charging; dead, it keeps nobody from anything. */
static void stopped_joiner(void)
{
    pid_t pid;
    int status;

    device = (unsigned)test_attach(ledger, dir, "stopped", LIMIT);
    pid = test_fork();
    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)LEDGER_LOCK_ATTACH, .l_len = 1};
        int fd = openat(dir, "stopped/ledger", O_RDWR);

        if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
            raise(SIGSTOP);
        _exit(1);
    }
    check(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "status %x", status);
    test_hold(ledger, (int)device, LIMIT);
    check(ledger_attach(other, dir, "stopped") == -EAGAIN, "%s", other->error);
    printf("stopped joiner: %s\n", other->error);
    kill(pid, SIGKILL);
    finish(pid);
    check(ledger_attach(other, dir, "stopped") == 0, "%s", other->error);
    ledger_detach(other);
    ledger_detach(ledger);
}

/* A charge of a stopped process is waited for, and then counts. */
static void stopped_charge(void)
{
    pid_t pid;
    int status;

    device = (unsigned)test_attach(ledger, dir, "charge", LIMIT);
    pid = test_fork();
    if (pid == 0) {
        unsigned mine = (unsigned)test_attach(other, dir, "charge", LIMIT);

        if (ledger_reserve(other, mine, LIMIT, LEDGER_NO_LIMIT) == 0)
            raise(SIGSTOP);
        _exit(1);
    }
    check(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "status %x", status);
    check(ledger_reserve(ledger, device, 1, LEDGER_NO_LIMIT) == -ENOMEM, "room beside a stopped process's charge");
    kill(pid, SIGKILL);
    finish(pid);
    check(ledger_reserve(ledger, device, LIMIT, LEDGER_NO_LIMIT) == 0, "no room after its death");
    check(ledger_last_burial(ledger, device) != 0, "no burial");
    ledger_detach(ledger);
}

static bool pid_namespaces(void)
{
    pid_t outer = test_fork();
    int code;

    if (outer == 0) {
        int *ready = test_shared(sizeof(*ready));
        pid_t inner;

        if (unshare(CLONE_NEWPID) < 0)
            _exit(77);
        /* Before it has children: the next one is its namespace's first process, and must be the program's. */
        device = (unsigned)test_attach(ledger, dir, "namespace", LIMIT);
        inner = fork();
        check(inner > 0 || (inner == 0 && getpid() == 1), "%s", strerror(errno));
        if (inner == 0) {
            test_hold(other, test_attach(other, dir, "namespace", LIMIT), 500);
            *(volatile int *)ready = 1;
            for (;;)
                pause();
        }
        while (!*(volatile int *)ready)
            usleep(100);
        check(ledger_members(ledger) == 2 && ledger_current(ledger, device) == 500, "%u members", ledger_members(ledger));
        kill(inner, SIGKILL);
        check(finish(inner) == -1, "the first process of the namespace was not killed");
        check(ledger_members(ledger) == 1 && ledger_current(ledger, device) == 0, "%u members", ledger_members(ledger));
        _exit(0);
    }
    code = finish(outer);
    check(code == 0 || code == 77, "status %d", code);
    return code == 0;
}

static bool other_users(void)
{
    struct stat status;
    mode_t mask;
    char path[PATH_MAX];
    int shared, code;

    if (geteuid() != 0)
        return false;
    mask = umask(077);
    check(mkdirat(dir, "shared", 0700) == 0 && fchmodat(dir, "shared", 01777, 0) == 0, "%s", strerror(errno));
    check(fchmodat(AT_FDCWD, test_state, 0711, 0) == 0, "%s", strerror(errno));
    snprintf(path, sizeof(path), "%s/shared", test_state);
    for (uid_t uid = 1001; uid <= 1003; uid++) {
        pid_t pid = test_fork();

        if (pid == 0) {
            char name[PATH_MAX];

            if (uid < 1003 && (setgid(uid) < 0 || setuid(uid) < 0))
                _exit(2);
            shared = ledger_state_dir(ledger, path, name, sizeof(name));
            check(shared >= 0, "%s", ledger->error);
            test_attach(ledger, shared, "users", LIMIT);
            check(ledger_attach(other, shared, NULL) == 0, "%s", other->error);
            _exit(0);
        }
        code = finish(pid);
        check(code == 0, "uid %u: %d", uid, code);
    }
    umask(mask);
    check(fstatat(dir, "shared/users", &status, 0) == 0 && (status.st_mode & 07777) == 01777, "mode %o", status.st_mode);
    check(fstatat(dir, "shared/users/ledger", &status, 0) == 0 && (status.st_mode & 07777) == 0666, "mode %o", status.st_mode);
    shared = ledger_state_dir(ledger, test_state, path, sizeof(path));
    check(shared >= 0 && ledger_attach(ledger, shared, "private") == 0, "%s", ledger->error);
    check(fstatat(dir, "private", &status, 0) == 0 && (status.st_mode & 07777) == 0700, "mode %o", status.st_mode);
    check(fstatat(dir, "private/ledger", &status, 0) == 0 && (status.st_mode & 07777) == 0600, "mode %o", status.st_mode);
    ledger_detach(ledger);
    close(shared);
    return true;
}

/* From now on this task's next call of `number` is answered with `action`. */
static bool answer(int number, unsigned action)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Another user's process is killed, or has no such call, where it makes a tenant's folder in a directory of all: others can join, and nothing
 * of it stays. */
static bool half_made(void)
{
    static const struct {
        int number;
        unsigned action;
    } ways[] = {
        {SYS_mkdirat, SECCOMP_RET_KILL_PROCESS},     {SYS_fchmodat, SECCOMP_RET_KILL_PROCESS},
        {SYS_renameat2, SECCOMP_RET_KILL_PROCESS},   {SYS_renameat2, SECCOMP_RET_ERRNO | EINVAL},
        {SYS_renameat2, SECCOMP_RET_ERRNO | ENOSYS}, {SYS_renameat2, SECCOMP_RET_ERRNO | EPERM},
        {SYS_renameat2, SECCOMP_RET_ERRNO | EEXIST},
    };
    char path[PATH_MAX], name[PATH_MAX], tenant[32];
    mode_t mask = umask(077);
    struct stat status;
    int shared, code;

    check(mkdirat(dir, "half", 0700) == 0 && fchmodat(dir, "half", 01777, 0) == 0, "%s", strerror(errno));
    check(fchmodat(AT_FDCWD, test_state, 0711, 0) == 0, "%s", strerror(errno));
    snprintf(path, sizeof(path), "%s/half", test_state);
    shared = ledger_state_dir(ledger, path, name, sizeof(name));
    check(shared >= 0, "%s", ledger->error);
    for (unsigned i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
        bool killed = ways[i].action == SECCOMP_RET_KILL_PROCESS;

        snprintf(tenant, sizeof(tenant), "half-%u", i);
        for (uid_t uid = 1001; uid <= 1002; uid++) {
            pid_t pid = test_fork();

            if (pid == 0) {
                if (geteuid() == 0 && (setgid(uid) < 0 || setuid(uid) < 0))
                    _exit(2);
                /* In this very process: a task that died would have its work done again. */
                if (uid == 1001 && (!answer(ways[i].number, ways[i].action) || !answer(SYS_clone, SECCOMP_RET_ERRNO | EAGAIN)))
                    _exit(77);
                code = ledger_attach(ledger, shared, tenant);
                if (ways[i].action == (SECCOMP_RET_ERRNO | EEXIST) && uid == 1001)
                    _exit(code == 0);
                check(code == 0, "way %u, uid %u: %s", i, uid, ledger->error);
                _exit(0);
            }
            code = finish(pid);
            if (code == 77) {
                umask(mask);
                close(shared);
                return false;
            }
            check(code == (killed && uid == 1001 ? -1 : 0), "way %u, uid %u: %d", i, uid, code);
            check(fstatat(shared, tenant, &status, 0) < 0 || (status.st_mode & 07777) == 01777, "way %u: mode %o", i,
                  status.st_mode);
        }
    }
    umask(mask);
    /* What the killed left goes when it is old. */
    for (unsigned old = 0; old <= 1; old++) {
        static const struct timespec long_ago[2] = {{1, 0}, {1, 0}};
        DIR *entries = opendir(path);
        struct dirent *entry;
        unsigned left = 0;

        while ((entry = readdir(entries))) {
            if (entry->d_name[0] != '.' || !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
                continue;
            check(utimensat(shared, entry->d_name, long_ago, 0) == 0, "%s", strerror(errno));
            left++;
        }
        closedir(entries);
        check(left <= (old ? 0 : 2), "%u folders are left over", left);
        check(ledger_attach(ledger, shared, NULL) == 0, "%s", ledger->error);
        ledger_detach(ledger);
    }
    close(shared);
    return true;
}

/* Folders of ended processes go, at most a stated number at a time; those of the living stay. */
static void collected(void)
{
    unsigned left;
    pid_t pid;

    check(ledger_attach(ledger, dir, NULL) == 0 && ledger->first, "%s", ledger->error);
    pid = test_fork();
    if (pid == 0) {
        static struct ledger own[150];

        for (unsigned i = 0; i < 150; i++)
            check(ledger_attach(&own[i], dir, NULL) == 0, "%s", own[i].error);
        kill(getpid(), SIGKILL);
    }
    finish(pid);
    left = count_folders("proc-");
    check(left == 151, "%u folders", left);
    for (unsigned i = 0; i < 200 && left > 2; i++) {
        unsigned before = left;

        check(ledger_attach(other, dir, NULL) == 0, "%s", other->error);
        left = count_folders("proc-");
        check(before + 1 - left <= 65, "%u folders removed at once", before + 1 - left);
        if (left > 2)
            ledger_detach(other);
    }
    check(left == 2, "%u folders", left);
    ledger_detach(other);
    ledger_detach(ledger);
    check(ledger_attach(other, dir, "proc-0123456789abcdef") == -EINVAL, "%s", other->error);
}

/* A made-up tenant's folder goes when its maker and all members have ended, not before, and not that of a tenant that somebody named. */
static void collected_made_up(void)
{
    char name[64], dead[64];
    int pid, ready[2], go[2];
    pid_t maker;

    check(!ledger_name_is_made("run-", &pid) && !ledger_name_is_made("run-12-", &pid) &&
              !ledger_name_is_made("run-12-0123456", &pid) && !ledger_name_is_made("run--01234567", &pid) &&
              !ledger_name_is_made("run-12-0123456g", &pid) && !ledger_name_is_made("run-99999999999999999999-01234567", &pid) &&
              !ledger_name_is_made("run-12-012345678", &pid),
          "a name that somebody may have chosen");
    ledger_make_name(name);
    check(ledger_name_is_made(name, &pid) && pid == getpid(), "%s", name);
    check(ledger_attach(ledger, dir, name) == 0, "%s", ledger->error);
    ledger_detach(ledger);
    check(ledger_attach(ledger, dir, "named") == 0, "%s", ledger->error);
    ledger_detach(ledger);

    /* Another maker, dead soon, whose second slot a longer-lived process has. */
    check(pipe(ready) == 0 && pipe(go) == 0, "pipe");
    maker = test_fork();
    if (maker == 0) {
        ledger_make_name(dead);
        check(ledger_attach(ledger, dir, dead) == 0, "%s", ledger->error);
        if (fork() == 0) {
            close(go[1]);
            check(ledger_attach(other, dir, dead) == 0, "%s", other->error);
            check(write(ready[1], dead, sizeof(dead)) == sizeof(dead) && read(go[0], name, 1) == 0, "pipes");
            _exit(0);
        }
        pause();
    }
    close(ready[1]);
    check(read(ready[0], dead, sizeof(dead)) == sizeof(dead), "the member did not come up");
    kill(maker, SIGKILL);
    finish(maker);
    check(ledger_attach(other, dir, NULL) == 0, "%s", other->error);
    ledger_detach(other);
    check(faccessat(dir, dead, F_OK, 0) == 0 && faccessat(dir, name, F_OK, 0) == 0, "collected from under a member, or its maker");
    close(go[1]);
    check(read(ready[0], dead, 1) == 0, "the member lives on"); /* its end of the pipe went with it */
    close(go[0]);
    close(ready[0]);
    for (unsigned i = 0; i < 1000 && faccessat(dir, dead, F_OK, 0) == 0; i++) {
        check(ledger_attach(other, dir, NULL) == 0, "%s", other->error);
        ledger_detach(other);
        usleep(1000);
    }
    check(faccessat(dir, dead, F_OK, 0) != 0, "%s was left", dead);
    check(faccessat(dir, name, F_OK, 0) == 0 && faccessat(dir, "named", F_OK, 0) == 0, "collected too much");
}

static void state_dir_fails(const char *path, int code, const char *word)
{
    char name[PATH_MAX];
    int result = ledger_state_dir(other, path, name, sizeof(name));

    check(result == code && strstr(other->error, word), "%s: %d, \"%s\"", path, result, other->error);
    printf("state directory: %s\n", other->error);
}

static void state_dirs(void)
{
    char path[128], name[PATH_MAX];
    struct stat status;
    int fd;

    snprintf(path, sizeof(path), "%s/missing", test_state);
    state_dir_fails(path, -ENOENT, "does not exist");
    check(symlink("/tmp", path) == 0, "%s", strerror(errno));
    state_dir_fails(path, -ELOOP, "symbolic link");
    strcat(path, "/");
    state_dir_fails(path, -ELOOP, "symbolic link");
    unlinkat(dir, "missing", 0);
    fd = openat(dir, "missing", O_CREAT | O_WRONLY, 0600);
    close(fd);
    path[strlen(path) - 1] = '\0';
    state_dir_fails(path, -ENOTDIR, "not a directory");
    unlinkat(dir, "missing", 0);
    state_dir_fails("relative/path", -EINVAL, "absolute");
    if (geteuid() == 0) {
        check(mkdirat(dir, "missing", 0755) == 0 && fchownat(dir, "missing", 4711, 4711, 0) == 0, "%s", strerror(errno));
        state_dir_fails(path, -EPERM, "belongs to uid 4711");
        unlinkat(dir, "missing", AT_REMOVEDIR);
    }
    fd = ledger_state_dir(other, "", name, sizeof(name));
    check(fd >= 0 && fstat(fd, &status) == 0, "%s", other->error);
    close(fd);
}

/* In a mount namespace of its own: a tiny full file system, and a read-only one. */
static bool full_and_read_only(void)
{
    pid_t pid = test_fork();
    int code;

    if (pid == 0) {
        char path[PATH_MAX], name[PATH_MAX];
        int small;

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
            _exit(77);
        snprintf(path, sizeof(path), "%s/small", test_state);
        check(mkdir(path, 0700) == 0, "%s", strerror(errno));
        if (mount("small", path, "tmpfs", 0, "size=256k,mode=0700") < 0)
            _exit(77);
        small = ledger_state_dir(other, path, name, sizeof(name));
        check(small >= 0, "%s", other->error);
        check(ledger_attach(other, small, "small") == -ENOSPC && strstr(other->error, "no space"), "%s", other->error);
        printf("full: %s\n", other->error);
        for (unsigned i = 0; i < 100; i++) {
            check(ledger_attach(other, small, NULL) == 0, "%u: %s", i, other->error);
            ledger_detach(other);
        }
        check(mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0, "%s", strerror(errno));
        check(ledger_attach(other, small, "another") == -EROFS && strstr(other->error, "read-only"), "%s", other->error);
        printf("read-only: %s\n", other->error);
        fflush(stdout);
        _exit(0);
    }
    code = finish(pid);
    check(code == 0 || code == 77, "status %d", code);
    return code == 0;
}

int main(void)
{
    dir = test_begin(120);
    setvbuf(stdout, NULL, _IOLBF, 0);
    ledger = test_handle();
    other = test_handle();
    a_guest();
    full();
    stopped_joiner();
    stopped_charge();
    collected();
    collected_made_up();
    state_dirs();
    if (!pid_namespaces())
        printf("not tried: PID namespaces (not allowed here)\n");
    if (!other_users())
        printf("not tried: other users (not root)\n");
    if (!half_made())
        printf("not tried: ends between two system calls (no seccomp here)\n");
    if (!full_and_read_only())
        printf("not tried: full and read-only file systems (no mounts here)\n");
    return 0;
}
