/* SPDX-License-Identifier: Apache-2.0 */
/* Does this kernel keep the promises that the ledger rests on? An open-file-description lock lives
 * as long as a mapping of its file, not as its descriptor; MADV_DONTFORK keeps a forked child from
 * carrying it on; MADV_WIPEONFORK gives the child zeros. Needs no GPU. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[256];
static unsigned char *lock_page, *wiped;

static void row(const char *key, const char *value)
{
    printf("lock\t%s\t%s\n", key, value);
    fflush(stdout);
}

static void verdict(const char *key, int ok)
{
    row(key, ok ? "yes" : "NO");
}

static struct flock whole(void)
{
    struct flock lock;

    memset(&lock, 0, sizeof(lock));
    lock.l_type = F_WRLCK;
    lock.l_len = 1;
    return lock;
}

static int take(int dontfork)
{
    struct flock lock = whole();
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) != 0)
        return -1;
    lock_page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (lock_page == MAP_FAILED || (dontfork && madvise(lock_page, 4096, MADV_DONTFORK) != 0))
        return -1;
    return close(fd);
}

static int held(void)
{
    struct flock lock = whole();
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int is = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;

    close(fd);
    return is;
}

static int gone_within(int ms)
{
    for (int i = 0; i < ms; i++) {
        if (!held())
            return 1;
        usleep(1000);
    }
    return 0;
}

/* The owner takes the lock, forks a child that lives on, and is killed. */
static void owner_dies_child_lives(int dontfork)
{
    int up[2];
    pid_t grandchild = 0;

    if (pipe(up))
        return;
    pid_t owner = fork();
    if (owner == 0) {
        if (take(dontfork) != 0)
            _exit(1);
        pid_t child = fork();
        if (child == 0) {
            for (;;)
                pause();
        }
        if (write(up[1], &child, sizeof(child)) != sizeof(child))
            _exit(1);
        for (;;)
            pause();
    }
    close(up[1]);
    if (read(up[0], &grandchild, sizeof(grandchild)) != sizeof(grandchild))
        row("fork", "the owner could not start");
    verdict(dontfork ? "held_while_owner_lives.dontfork" : "held_while_owner_lives.plain", held());
    kill(owner, SIGKILL);
    waitpid(owner, NULL, 0);
    verdict(dontfork ? "released_at_death_though_a_child_lives.dontfork"
                     : "released_at_death_though_a_child_lives.plain_mapping_expected_no",
            gone_within(200));
    kill(grandchild, SIGKILL);
    verdict("released_when_the_child_dies_too", gone_within(2000));
    close(up[0]);
}

static void after_exec(void)
{
    int up[2];
    char byte;

    if (pipe(up))
        return;
    pid_t owner = fork();
    if (owner == 0) {
        if (take(1) != 0)
            _exit(1);
        dup2(up[1], 1);
        execl("/bin/sh", "sh", "-c", "echo; exec sleep 5", (char *)NULL);
        _exit(1);
    }
    close(up[1]);
    if (read(up[0], &byte, 1) == 1)
        verdict("released_by_exec", gone_within(200));
    kill(owner, SIGKILL);
    waitpid(owner, NULL, 0);
    close(up[0]);
}

static int report_wiped(void)
{
    return wiped[0] == 0 ? 0 : 1;
}

static void wipe_on_fork(void)
{
    int status = -1;

    wiped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (wiped == MAP_FAILED || madvise(wiped, 4096, MADV_WIPEONFORK) != 0) {
        row("wipeonfork", strerror(errno));
        return;
    }
    wiped[0] = 1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(report_wiped());
    waitpid(pid, &status, 0);
    verdict("wipeonfork.fork", WIFEXITED(status) && WEXITSTATUS(status) == 0);
    pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(report_wiped());
    waitpid(pid, &status, 0);
    verdict("wipeonfork.raw_clone", WIFEXITED(status) && WEXITSTATUS(status) == 0);
    verdict("wipeonfork.parent_keeps", wiped[0] == 1);
    pid = fork();
    if (pid == 0) {
        pid_t second = fork();
        if (second == 0)
            _exit(report_wiped());
        wiped[0] = 1;
        waitpid(second, &status, 0);
        if (WEXITSTATUS(status))
            _exit(1);
        second = fork();
        if (second == 0)
            _exit(report_wiped());
        waitpid(second, &status, 0);
        _exit(WEXITSTATUS(status));
    }
    waitpid(pid, &status, 0);
    verdict("wipeonfork.inherited_by_grandchildren", WIFEXITED(status) && WEXITSTATUS(status) == 0);
    void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    row("wipeonfork.shared_mapping", madvise(shared, 4096, MADV_WIPEONFORK) ? strerror(errno) : "accepted");
}

static void closed_descriptors(void)
{
    pid_t owner = fork();
    int status;

    if (owner == 0) {
        if (take(1) != 0)
            _exit(1);
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
        if (!held())
            _exit(2);
        /* A descriptor of the same file that comes and goes would drop a POSIX lock. */
        int fd = open(path, O_RDWR | O_CLOEXEC);
        close(fd);
        if (!held())
            _exit(3);
        munmap(lock_page, 4096);
        _exit(held() ? 4 : 0);
    }
    waitpid(owner, &status, 0);
    verdict("held_through_a_mapping_alone", WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void in_directory(const char *dir)
{
    snprintf(path, sizeof(path), "%s/probe-lock-%d", dir, (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    row("directory", dir);
    if (fd < 0 || ftruncate(fd, 4096) != 0) {
        row("skipped", strerror(errno));
        return;
    }
    close(fd);
    closed_descriptors();
    owner_dies_child_lives(1);
    owner_dies_child_lives(0);
    after_exec();
    unlink(path);
}

int main(void)
{
    struct utsname u;

    if (uname(&u) == 0)
        row("kernel", u.release);
    in_directory("/dev/shm");
    in_directory("/tmp");
    in_directory("/run");
    wipe_on_fork();
    return 0;
}
