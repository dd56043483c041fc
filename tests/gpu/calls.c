/* SPDX-License-Identifier: Apache-2.0 */
/* A preloaded counter: which driver functions does a program look up, by which road, and how often
 * does it call each? And does the driver, or NVML, call its own exported functions through us?
 *
 * Every function handed out by dlsym or cuGetProcAddress is replaced by a stub that counts and
 * jumps on, so no prototype is needed. x86-64 alone. The counts are appended to the file that
 * PROBE_CALLS_OUT names, when the process ends. Our own dlsym loses the true caller of RTLD_NEXT
 * look-ups of other names; that is good enough for the programs that are counted here. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STUBS 2048
#define STUB  32

struct entry {
    char name[72];
    void *target;
    uint64_t count;
};
static struct entry entries[STUBS];
static unsigned int used;
static unsigned char *code;
static uint64_t from_inside[2];

typedef int (*look_up_v1)(const char *, void **, int, uint64_t);
typedef int (*look_up_v2)(const char *, void **, int, uint64_t, void *);
static look_up_v1 real_v1;
static look_up_v2 real_v2;
static void *(*real_dlsym)(void *, const char *);

void *dlsym(void *restrict handle, const char *restrict name);
int nvmlDeviceGetMemoryInfo_v2(void *dev, void *memory);
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **dev);

static void *stub(const char *road, const char *name, int version, int flags, void *target)
{
    unsigned char *p;
    uint64_t v;
    char label[sizeof(entries[0].name)];

    if (version >= 0)
        snprintf(label, sizeof(label), "%s %s@%d/%d", road, name, version, flags);
    else
        snprintf(label, sizeof(label), "%s %s", road, name);
    for (unsigned int i = 0; i < used; i++) {
        if (entries[i].target == target && !strcmp(entries[i].name, label))
            return code + (size_t)i * STUB;
    }
    if (!code) {
        p = mmap(NULL, (size_t)STUBS * STUB, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return target;
        code = p;
    }
    unsigned int i = __atomic_fetch_add(&used, 1, __ATOMIC_SEQ_CST);
    if (i >= STUBS) {
        used = STUBS;
        return target;
    }
    memcpy(entries[i].name, label, sizeof(label));
    entries[i].target = target;
    p = code + (size_t)i * STUB;
    v = (uint64_t)(uintptr_t)&entries[i].count;
    memcpy(p, "\x49\xbb", 2); /* movabs $count, %r11 */
    memcpy(p + 2, &v, 8);
    memcpy(p + 10, "\xf0\x49\xff\x03", 4); /* lock incq (%r11) */
    v = (uint64_t)(uintptr_t)target;
    memcpy(p + 14, "\x49\xbb", 2); /* movabs $target, %r11 */
    memcpy(p + 16, &v, 8);
    memcpy(p + 24, "\x41\xff\xe3", 3); /* jmp *%r11 */
    return p;
}

static int look_up_2(const char *name, void **fn, int version, uint64_t flags, void *status);

static int look_up_1(const char *name, void **fn, int version, uint64_t flags)
{
    int res = real_v1(name, fn, version, flags);

    if (res == 0 && fn && *fn)
        *fn = stub("cuGetProcAddress", name, version, (int)flags, *fn);
    return res;
}

static void *ours(const char *road, const char *name, int version, int flags, void *fn)
{
    if (!strcmp(name, "cuGetProcAddress_v2") || (!strcmp(name, "cuGetProcAddress") && version >= 12000)) {
        real_v2 = (look_up_v2)fn;
        return stub(road, name, version, flags, (void *)look_up_2);
    }
    if (!strcmp(name, "cuGetProcAddress")) {
        real_v1 = (look_up_v1)fn;
        return stub(road, name, version, flags, (void *)look_up_1);
    }
    return stub(road, name, version, flags, fn);
}

static int look_up_2(const char *name, void **fn, int version, uint64_t flags, void *status)
{
    int res = real_v2(name, fn, version, flags, status);

    if (res == 0 && fn && *fn)
        *fn = ours("cuGetProcAddress_v2", name, version, (int)flags, *fn);
    return res;
}

static void *find_dlsym(void)
{
    void *p = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");

    return p ? p : dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
}

void *dlsym(void *restrict handle, const char *restrict name)
{
    void *fn;

    if (!real_dlsym)
        real_dlsym = (__typeof__(real_dlsym))find_dlsym();
    fn = real_dlsym(handle, name);
    if (!fn || strncmp(name, "cu", 2) || name[2] < 'A' || name[2] > 'Z')
        return fn;
    return ours("dlsym", name, -1, 0, fn);
}

/* Nobody links these: a call comes from inside NVML, through its procedure linkage table. */
int nvmlDeviceGetMemoryInfo_v2(void *dev, void *memory)
{
    static int (*real)(void *, void *);

    from_inside[0]++;
    if (!real)
        real = (__typeof__(real))dlsym(RTLD_NEXT, "nvmlDeviceGetMemoryInfo_v2");
    if (!real)
        real = (__typeof__(real))dlsym(dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_NOLOAD), "nvmlDeviceGetMemoryInfo_v2");
    return real ? real(dev, memory) : 999;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **dev)
{
    static int (*real)(unsigned int, void **);

    from_inside[1]++;
    if (!real)
        real = (__typeof__(real))dlsym(dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_NOLOAD), "nvmlDeviceGetHandleByIndex_v2");
    return real ? real(index, dev) : 999;
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("PROBE_CALLS_OUT"), *what = getenv("PROBE_CALLS_NAME");
    unsigned int looked_up = used < STUBS ? used : STUBS, called = 0;

    if (!path || (!looked_up && !from_inside[0] && !from_inside[1]))
        return;
    FILE *f = fopen(path, "a");
    if (!f)
        return;
    what = what ? what : "program";
    for (unsigned int i = 0; i < looked_up; i++) {
        if (!entries[i].count)
            continue;
        called++;
        fprintf(f, "calls\t%s\t%llu %s\n", what, (unsigned long long)entries[i].count, entries[i].name);
    }
    fprintf(f, "calls\t%s.total\tpid %d looked up %u called %u\n", what, (int)getpid(), looked_up, called);
    fprintf(f,
            "calls\t%s.from_inside_nvml\tnvmlDeviceGetMemoryInfo_v2 %llu "
            "nvmlDeviceGetHandleByIndex_v2 %llu\n",
            what, (unsigned long long)from_inside[0], (unsigned long long)from_inside[1]);
    fclose(f);
}
