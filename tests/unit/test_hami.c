/* SPDX-License-Identifier: Apache-2.0 */
/* HAMi's cache file as core/hami.c writes it, read at the offsets that its monitor reads. What would be bad: a number in another's place, a dead process that
 * is still added up, a value that the monitor uses as an index, damage to what HAMi's own processes have there, and being held up or brought down
 * by a file that is another's. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "softslice/hami.h"

#define SIZE  2008953
#define SLOT  1960
#define GPU   "GPU-00112233-4455-6677-8899-aabbccddeeff"
#define GPU_B "GPU-ffeeddcc-bbaa-9988-7766-554433221100"

static char room[64], path[128];
static uint8_t file[SIZE + 1];
static struct hami_told told;

static void set_up(void)
{
    strcpy(room, "/tmp/test-hami-XXXXXX");
    cr_assert(mkdtemp(room));
    snprintf(path, sizeof(path), "%s/5f.cache", room);
    memset(&told, 0, sizeof(told));
    told.slot = 3;
    told.devices = 2;
    told.begins = true;
    told.priority = 1;
    told.living[0] = 1 << 3;
    told.own = (struct hami_slot){.pid = getpid(), .host_pid = 77, .status = 1, .author = HAMI_AUTHOR};
    told.own.memory[1] = (struct hami_memory){.context = 1, .module = 2, .data = 4, .total = 7};
    told.own.utilization[1].sm = 55;
    strcpy(told.device[0].uuid, GPU);
    strcpy(told.device[1].uuid, GPU_B);
    told.device[0].limit = UINT64_C(3) << 30;
    told.device[1].limit = UINT64_C(5) << 30;
    told.device[0].share = 30;
    told.device[1].share = 100;
}

static void tear_down(void)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -rf '%s'", room);
    cr_assert(system(command) == 0);
}

TestSuite(hami, .init = set_up, .fini = tear_down, .timeout = 60);

static ssize_t load(void)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size;

    memset(file, 0xee, sizeof(file));
    cr_assert(fd >= 0, "%s", strerror(errno));
    size = read(fd, file, sizeof(file));
    close(fd);
    return size;
}

static uint64_t word(size_t at)
{
    uint64_t value;

    memcpy(&value, file + at, sizeof(value));
    return value;
}

static int32_t half(size_t at)
{
    int32_t value;

    memcpy(&value, file + at, sizeof(value));
    return value;
}

static void scribble(size_t at, const void *data, size_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

    cr_assert(fd >= 0 && pwrite(fd, data, size, (off_t)at) == (ssize_t)size);
    close(fd);
}

static void scribble_half(size_t at, int32_t value)
{
    scribble(at, &value, sizeof(value));
}

static int tell(void)
{
    bool holds = true;
    int result = hami_tell(path, &told, &holds);

    told.begins = false;
    return result;
}

static void slot_of(uint32_t slot, int pid, uint64_t author, uint64_t total)
{
    struct hami_slot other = {.pid = pid, .status = 1, .author = author};

    other.memory[0].total = total;
    scribble(1856 + (size_t)SLOT * slot, &other, sizeof(other));
}

static uint64_t total_of(uint32_t slot)
{
    return word(1856 + (size_t)SLOT * slot + 8 + 32);
}

/* A pid of a process that has ended. */
static int ended(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    cr_assert(pid > 0 && waitpid(pid, NULL, 0) == pid);
    return pid;
}

Test(hami, layout)
{
    struct stat status;
    size_t slot = 1856 + 3 * (size_t)SLOT;

    cr_assert(tell() == 0);
    cr_expect(stat(path, &status) == 0 && (status.st_mode & 0777) == 0666 && status.st_blocks * 512 >= SIZE - 4096);
    cr_assert(load() == SIZE);
    cr_expect(half(0) == 19920718 && half(4) == 1 && half(8) == 2 && half(12) == 0 && word(16) == 0);
    cr_expect(half(24) == 1 && word(56) == 2);
    cr_expect(strcmp((char *)file + 64, GPU) == 0 && strcmp((char *)file + 64 + 96, GPU_B) == 0 && file[64 + 192] == 0);
    cr_expect(word(1600) == UINT64_C(3) << 30 && word(1608) == UINT64_C(5) << 30 && word(1616) == 0);
    cr_expect(word(1728) == 30 && word(1736) == 100);
    cr_expect(half(slot) == getpid() && half(slot + 4) == 77 && half(slot + 1928) == 1 && word(slot + 1936) == 0);
    cr_expect(word(slot + 8) == 0 && word(slot + 40) == 0);
    cr_expect(word(slot + 72) == 1 && word(slot + 80) == 2 && word(slot + 88) == 4 && word(slot + 96) == 0 &&
              word(slot + 104) == 7);
    cr_expect(word(slot + 1160 + 48 + 16) == 55);
    cr_expect(half(2008896) == 4 && half(2008900) == 1 && half(2008904) == 2 && half(2008908) == 1 && word(2008912) == 0);
    cr_expect(half(2008920) == 1);
}

/* The monitor has the file mapped: it stays the same one, of the same size. */
Test(hami, stays)
{
    struct stat before, after;

    cr_assert(tell() == 0 && stat(path, &before) == 0);
    told.begins = true;
    told.own.memory[1].total = 9;
    cr_assert(tell() == 0 && stat(path, &after) == 0);
    cr_expect(before.st_ino == after.st_ino && before.st_size == after.st_size);
    load();
    cr_expect(word(1856 + 3 * SLOT + 104) == 9);
}

Test(hami, the_dead_go)
{
    cr_assert(tell() == 0);
    slot_of(0, ended(), HAMI_AUTHOR, 100);
    slot_of(1, getpid(), HAMI_AUTHOR, 200); /* a number that another has now */
    slot_of(2, ended(), 0, 400);            /* of HAMi's own library */
    slot_of(9, ended(), 0, 800);
    slot_of(10, getppid(), HAMI_AUTHOR, 1600);
    scribble_half(2008896, 11);
    told.living[0] |= 1 << 10;
    cr_assert(tell() == 0);
    load();
    cr_expect(total_of(0) == 0 && total_of(1) == 0 && total_of(2) == 0 && total_of(9) == 0 && total_of(10) == 1600);
    cr_expect(half(1856) == 0 && half(1856 + 1928) == 0 && half(2008896) == 11);
    told.living[0] = 1 << 3;
    cr_assert(tell() == 0);
    load();
    cr_expect(total_of(10) == 0 && half(2008896) == 4);
}

/* HAMi's own library, in a process that was there before the library was replaced, goes on counting in its slot. */
Test(hami, what_lives_stays)
{
    cr_assert(tell() == 0);
    slot_of(0, getppid(), 0, 100);
    slot_of(3, getppid(), 0, 300);
    slot_of(7, getppid(), 0, 700);
    scribble_half(2008896, 8);
    cr_assert(tell() == 0);
    load();
    cr_expect(total_of(0) == 100 && total_of(3) == 300 && total_of(7) == 700 && half(2008896) == 8);
    hami_leave(path, 3);
    load();
    cr_expect(total_of(3) == 300);
}

Test(hami, leaves)
{
    hami_leave(path, 3);
    cr_expect(access(path, F_OK) < 0); /* nothing is made for that */
    cr_assert(tell() == 0);
    hami_leave(path, 3);
    hami_leave(path, 1 << 30);
    load();
    for (size_t i = 0; i < SLOT; i++)
        cr_assert(file[1856 + 3 * SLOT + i] == 0);
}

/* What the monitor takes for counts and indexes is in range, whatever was there. */
Test(hami, absurd_numbers)
{
    static const int32_t absurd[] = {-1, 1025, INT32_MAX, INT32_MIN};
    uint64_t many = UINT64_MAX;

    cr_assert(tell() == 0);
    for (unsigned i = 0; i < 4; i++) {
        scribble_half(2008896, absurd[i]);
        scribble_half(2008908, absurd[i]);
        scribble(56, &many, sizeof(many));
        cr_assert(tell() == 0);
        load();
        cr_expect(half(2008896) == 4 && half(2008908) == 1 && word(56) == 2);
    }
    told.priority = 0;
    told.begins = true;
    cr_assert(tell() == 0);
    load();
    cr_expect(half(2008908) == 0);
    told.slot = 1024;
    cr_expect(tell() == -ERANGE);
    told.slot = 1023;
    told.devices = 1000;
    cr_assert(tell() == 0);
    load();
    cr_expect(word(56) == 16);
}

/* Of a former life nothing stays; of a device that another process alone sees, all. */
Test(hami, devices)
{
    cr_assert(tell() == 0);
    memset(told.device, 0, sizeof(told.device));
    strcpy(told.device[0].uuid, GPU);
    told.device[0].limit = 42;
    told.devices = 1;
    cr_assert(tell() == 0);
    load();
    cr_expect(word(56) == 2 && word(1600) == 42 && word(1608) == UINT64_C(5) << 30 && strcmp((char *)file + 64 + 96, GPU_B) == 0);
    told.begins = true;
    cr_assert(tell() == 0);
    load();
    cr_expect(word(56) == 1 && word(1608) == 0 && file[64 + 96] == 0);
}

Test(hami, monitor)
{
    bool holds = false;

    cr_assert(hami_tell(path, &told, &holds) == 0 && holds);
    scribble_half(2008900, 0);
    scribble_half(2008904, 0);
    told.begins = false;
    cr_assert(hami_tell(path, &told, &holds) == 0 && !holds);
    load();
    cr_expect(half(2008900) == 0 && half(2008904) == 0 && word(2008912) == 0);
    told.active = told.worked = true;
    cr_assert(tell() == 0);
    load();
    cr_expect(half(2008904) == 2 && word(2008912) + 60 > (uint64_t)time(NULL) && word(2008912) <= (uint64_t)time(NULL));
    scribble_half(2008904, -1); /* the monitor's, to be taken back by the monitor */
    cr_assert(tell() == 0);
    load();
    cr_expect(half(2008904) == -1);
}

/* HAMi's library was killed between making the file and filling it. */
Test(hami, unfinished)
{
    for (unsigned i = 0; i < 3; i++) {
        unlink(path);
        scribble(0, "", i == 0 ? 0 : 1);
        if (i == 2)
            scribble(SIZE - 1, "", 1);
        cr_assert(tell() == 0);
        cr_expect(load() == SIZE);
        cr_expect(half(0) == 19920718 && half(2008896) == 4 && word(1856 + 3 * SLOT + 104) == 7);
    }
}

/* A semaphore that its dead owner has locked, and a slot that its dead owner was writing: nobody waits for either. */
Test(hami, locked)
{
    cr_assert(tell() == 0);
    scribble_half(24, 0);
    scribble_half(2008920, 0);
    scribble_half(16, ended());
    slot_of(3, ended(), 0, 1);
    scribble_half(1856 + 3 * SLOT + 1936, 1);
    told.own.memory[1].total = 8;
    cr_assert(tell() == 0);
    load();
    cr_expect(word(1856 + 3 * SLOT + 104) == 8 && word(1856 + 3 * SLOT + 1936) == 0);
}

/* What is another's is left as it is. */
Test(hami, foreign)
{
    char *noise = calloc(1, SIZE);
    struct stat status;

    scribble(0, "no cache file", 13);
    cr_expect(tell() == -EPROTO && stat(path, &status) == 0 && status.st_size == 13);
    unlink(path);
    cr_assert(tell() == 0);
    scribble_half(4, 2); /* another major version */
    cr_expect(tell() == -EPROTO);
    scribble_half(4, 1);
    cr_assert(truncate(path, 2008951) == 0);
    cr_expect(tell() == -EPROTO && stat(path, &status) == 0 && status.st_size == 2008951);
    unlink(path);
    scribble(SIZE, noise, 4096); /* empty, and too large to be an unfinished one */
    cr_expect(tell() == -EPROTO);
    unlink(path);
    cr_assert(mkfifo(path, 0666) == 0);
    cr_expect(tell() == -EPROTO || tell() == -ENXIO);
    unlink(path);
    cr_assert(symlink("/dev/null", path) == 0);
    cr_expect(tell() == -ELOOP);
    unlink(path);
    cr_assert(mkdir(path, 0700) == 0);
    cr_expect(tell() < 0);
    free(noise);
}

Test(hami, no_room)
{
    strcat(path, "/not/there.cache");
    cr_expect(tell() == -ENOENT);
    strcpy(path, "/proc/x.cache");
    cr_expect(tell() < 0);
}

/* Cut while it is written, over and over: nothing is mapped, so nobody gets a signal. And who is killed at any moment leaves what the next one repairs. */
Test(hami, cut_and_killed)
{
    cr_assert(tell() == 0);
    for (unsigned round = 0; round < 50; round++) {
        pid_t pid = fork();

        if (pid == 0) {
            told.slot = 5;
            told.living[0] |= 1 << 5;
            told.own.pid = getpid();
            for (;;)
                tell();
        }
        cr_assert(pid > 0);
        for (unsigned i = 0; i < 20; i++) {
            if (truncate(path, (off_t)(random() % SIZE)) < 0)
                cr_assert(errno == ENOENT);
            tell();
            unlink(path);
        }
        usleep((useconds_t)(random() % 2000));
        cr_assert(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
        unlink(path);
        cr_assert(tell() == 0);
        load();
        cr_expect(half(2008896) == 4 && word(1856 + 3 * SLOT + 104) == 7 && total_of(5) == 0);
    }
}
