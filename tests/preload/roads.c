/* SPDX-License-Identifier: Apache-2.0 */
/* Every road to a driver function - linked, dlsym, cuGetProcAddress and _v2 - leads to the same wrapper where its dimension is armed and to the
 * driver's own function where it is not; for every (name, version, flags) of the driver's surface, never to another ABI than the driver chose. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50%
// run: SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_TENANT=roads
// run: SOFTSLICE_COMPUTE=50%
// run: SOFTSLICE_WEIGHT=200
// run:
// run: SOFTSLICE_DISABLE=1 SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50% SOFTSIM_ALT_ADDRESSES=1
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_ALT_ADDRESSES=1
// run: SOFTSIM_ALT_ADDRESSES=1
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50% SOFTSIM_DRIVER_VERSION=12020
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50% SOFTSIM_DRIVER_VERSION=11040
#include "helper.h"

enum { VRAM = 1, COMPUTE = 2, ANY = 3 };
enum { LEGACY_FLAGS_DEFAULT, LEGACY_FLAGS_LEGACY, PER_THREAD_FLAGS, ALL_FLAGS };
enum { SUCCESS = 0, INVALID_VALUE = 1 };

#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) extern const char symbol[];
#include "../shim/hooks.def"
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) extern const char symbol[];
#include "../shim/nvml.def"

extern int cuDriverGetVersion(int *); /* needs the driver in earnest, as a program does that was linked with it */

struct hook {
    const char *base, *symbol;
    int since, arm;
    const char *linked;
};

static const struct hook cuda_hooks[] = {
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) {#base, #symbol, since, arm, symbol},
#include "../shim/hooks.def"
};
static const struct hook nvml_hooks[] = {
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) {#base, #symbol, since, arm, symbol},
#include "../shim/nvml.def"
};

static const struct symbol {
    const char *base, *symbol;
    int since, per_thread;
} surface[] = {
#define SYM(base, symbol, since, per_thread, ...) {#base, #symbol, since, per_thread},
#include "../sim/symbols.def"
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef int get_proc_address_v1(const char *, void **, int, uint64_t);
typedef int get_proc_address_v2(const char *, void **, int, uint64_t, int *);

static get_proc_address_v2 *driver_v2, *hooked_v2;
static get_proc_address_v1 *driver_v1, *hooked_v1;
static int armed, driver_version;

static bool set(const char *variable)
{
    const char *text = getenv(variable);
    return text && *text;
}

static const struct hook *hook_of(const char *symbol)
{
    for (size_t i = 0; i < COUNT(cuda_hooks); i++)
        if (strcmp(cuda_hooks[i].symbol, symbol) == 0)
            return &cuda_hooks[i];
    return NULL;
}

/* What a look-up has to give that the driver answered with `theirs`, its address for `symbol`. */
static const void *expected(const char *symbol, const void *theirs)
{
    const struct hook *hook = hook_of(symbol);
    return theirs && hook && (hook->arm & armed) ? t_wrapper(symbol) : theirs;
}

/* The driver's rule (the newest ABI that is not newer than asked for; with per-thread flags, per-thread ones where there are any). */
static const struct symbol *chosen(const char *base, int version, uint64_t flags)
{
    const struct symbol *best = NULL;
    bool per_thread = false;

    for (size_t i = 0; i < COUNT(surface); i++)
        if (strcmp(surface[i].base, base) == 0 && surface[i].since <= driver_version && flags == PER_THREAD_FLAGS)
            per_thread |= surface[i].per_thread;
    for (size_t i = 0; i < COUNT(surface); i++)
        if (strcmp(surface[i].base, base) == 0 && surface[i].since <= version && surface[i].since <= driver_version &&
            surface[i].per_thread == per_thread && (!best || surface[i].since > best->since))
            best = &surface[i];
    return best;
}

static void same_answer(const char *base, int version, uint64_t flags)
{
    void *marker = (void *)&surface, *theirs = marker, *ours = marker;
    int their_status = -1, our_status = -1;
    int their_result = driver_v2(base, &theirs, version, flags, &their_status);
    int our_result = hooked_v2(base, &ours, version, flags, &our_status);

    t_check(our_result == their_result && our_status == their_status,
            "cuGetProcAddress_v2(%s, %d, %d): result %d, status %d; the driver's: %d, %d", base, version, (int)flags, our_result,
            our_status, their_result, their_status);
    const struct symbol *symbol = chosen(base, version, flags);
    const void *want = theirs;
    if (their_result == SUCCESS && theirs && theirs != marker) {
        t_check(symbol, "the driver has %s for version %d, flags %d, and the rule has not", base, version, (int)flags);
        if (!set("SOFTSIM_ALT_ADDRESSES"))
            t_check(theirs == t_real(symbol->symbol), "%s, %d, %d: the rule says %s", base, version, (int)flags, symbol->symbol);
        want = expected(symbol->symbol, theirs);
    }
    t_check(ours == want, "cuGetProcAddress_v2(%s, %d, %d) gave %p in %s, expected %s %p in %s", base, version, (int)flags, ours,
            t_object(ours), symbol ? symbol->symbol : "nothing", want, t_object(want));

    if (!driver_v1)
        return;
    theirs = ours = marker;
    their_result = driver_v1(base, &theirs, version, flags);
    our_result = hooked_v1(base, &ours, version, flags);
    if (their_result == SUCCESS && symbol)
        want = expected(symbol->symbol, theirs);
    else
        want = theirs;
    t_check(our_result == their_result && ours == want, "cuGetProcAddress(%s, %d, %d) gave %d, %p in %s, expected %d, %p in %s",
            base, version, (int)flags, our_result, ours, t_object(ours), their_result, want, t_object(want));
    /* No place for the status is allowed. */
    t_result(hooked_v2(base, &ours, version, flags, NULL), driver_v2(base, &theirs, version, flags, NULL));
}

/* Linked: always our export, armed or not: the program was bound when it started. dlsym: by what is armed. */
static void by_name(const struct hook *hooks, size_t count, const char *library)
{
    void *handle = dlopen(library, RTLD_NOW);
    t_check(handle, "dlopen(%s): %s", library, dlerror());

    for (size_t i = 0; i < count; i++) {
        const struct hook *hook = &hooks[i];
        void *theirs = t_dlsym(handle, hook->symbol), *wrapper = t_wrapper(hook->symbol);

        t_check(wrapper && t_is_ours(wrapper), "libsoftslice.so does not export %s", hook->symbol);
        t_check(!theirs || !t_is_ours(theirs), "the driver's own %s lies in libsoftslice.so", hook->symbol);
        t_check(hook->linked == wrapper, "linked: %s is %p in %s, expected %p", hook->symbol, (const void *)hook->linked,
                t_object(hook->linked), wrapper);
        const void *want = theirs && (hook->arm & armed) ? wrapper : theirs;
        void *found = dlsym(handle, hook->symbol);
        t_check(found == want, "dlsym(%s) gave %p in %s, expected %p in %s", hook->symbol, found, t_object(found), want,
                t_object(want));
    }
}

int main(void)
{
    if (!set("SOFTSLICE_DISABLE"))
        armed = (set("SOFTSLICE_VRAM") || set("SOFTSLICE_TENANT") ? VRAM : 0) |
                (set("SOFTSLICE_COMPUTE") || set("SOFTSLICE_WEIGHT") ? COMPUTE : 0);
    t_cuda(cuDriverGetVersion(&driver_version));

    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    driver_v2 = (get_proc_address_v2 *)t_real("cuGetProcAddress_v2");
    driver_v1 = (get_proc_address_v1 *)t_real("cuGetProcAddress");
    hooked_v2 = (get_proc_address_v2 *)dlsym(driver, "cuGetProcAddress_v2");
    hooked_v1 = (get_proc_address_v1 *)dlsym(driver, "cuGetProcAddress");

    by_name(cuda_hooks, COUNT(cuda_hooks), "libcuda.so.1");
    for (size_t i = 0; i < COUNT(surface); i++) {
        const char *name = surface[i].symbol;
        void *theirs = t_real(name), *found = dlsym(driver, name);
        t_check(theirs, "the simulated driver has no %s", name);
        const void *want = expected(name, theirs);
        t_check(found == want, "dlsym(%s) gave %p in %s, expected %s", name, found, t_object(found), t_object(want));
    }

    for (size_t i = 0; i < COUNT(surface); i++) {
        if (i > 0 && strcmp(surface[i].base, surface[i - 1].base) == 0)
            continue;
        for (size_t row = i; row < COUNT(surface) && strcmp(surface[row].base, surface[i].base) == 0; row++)
            for (uint64_t flags = 0; flags < ALL_FLAGS; flags++) {
                same_answer(surface[i].base, surface[row].since, flags);
                same_answer(surface[i].base, surface[row].since - 1, flags);
                same_answer(surface[i].base, surface[row].since + 1, flags);
            }
        for (uint64_t flags = 0; flags <= ALL_FLAGS; flags++) {
            same_answer(surface[i].base, driver_version, flags);
            same_answer(surface[i].base, driver_version + 10, flags);
            same_answer(surface[i].base, 0, flags);
            same_answer(surface[i].base, 7000, flags);
        }
    }
    static const char *const no_names[] = {"", "cu", "cuMemAlloc_v2", "cuMemAlloc_ptsz", "cudnnCreate", "cuNothing", "malloc"};
    for (size_t i = 0; i < COUNT(no_names); i++)
        for (uint64_t flags = 0; flags < ALL_FLAGS; flags++)
            same_answer(no_names[i], driver_version, flags);

    /* A look-up of the look-up gives the hooked one again (a client's second step). */
    void *again = NULL;
    int status;
    if (driver_version >= 12000) {
        t_cuda(hooked_v2("cuGetProcAddress", &again, 12000, 0, &status));
        t_check((t_is_ours(again) ? 1 : 0) == (armed ? 1 : 0), "cuGetProcAddress of itself lies in %s", t_object(again));
    }
    t_result(hooked_v2("cuInit", NULL, 2000, 0, &status), INVALID_VALUE);

    by_name(nvml_hooks, COUNT(nvml_hooks), "libnvidia-ml.so.1");
    return 0;
}
