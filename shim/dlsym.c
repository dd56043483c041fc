/* SPDX-License-Identifier: Apache-2.0 */
/* What the exported dlsym answers itself, and how it finds the real one. Before that is known: no malloc, no lock, no TLS, for allocators
 * look their symbols up while they start. */
#include "dlsym.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>

#include "defined.h"
#include "libc_versions.h"
#include "resolve.h"
#include "softslice/log.h"

static void *no_dlsym(void *handle, const char *name)
{
    (void)handle;
    (void)name;
    return NULL;
}

static void *first_dlsym(void *handle, const char *name);

void *(*dlsym_next)(void *handle, const char *name) = first_dlsym;

/* Elsewhere (musl) the library stands aside: the driver is not for it either. */
static bool is_glibc(void)
{
    return dlvsym != NULL && dladdr1 != NULL;
}

static void tell_not_held(void)
{
    static unsigned told;

    if (resolve_armed(RESOLVE_ANY) && !__atomic_exchange_n(&told, 1, __ATOMIC_RELAXED))
        log_error("this program does not use glibc, but musl or the like: no limit holds in it");
}

/* The oldest version comes first: it exists in every glibc, and a failing dlvsym allocates its message. */
static void find_next(void)
{
    static const char *const versions[] = {LIBC_BASE_VERSION, "GLIBC_2.34"};
    void *function = NULL;

    if (__atomic_load_n(&dlsym_next, __ATOMIC_ACQUIRE) != first_dlsym)
        return;
    for (size_t i = 0; is_glibc() && !function && i < sizeof(versions) / sizeof(versions[0]); i++)
        function = dlvsym(RTLD_NEXT, "dlsym", versions[i]);
    if (!is_glibc())
        function = defined_after((const void *)find_next, "dlsym");
    if (!function)
        function = (void *)no_dlsym;
    __atomic_store_n((void **)&dlsym_next, function, __ATOMIC_RELEASE);
}

static void *first_dlsym(void *handle, const char *name)
{
    find_next();
    return dlsym_next(handle, name);
}

void *dlsym_real(void *handle, const char *name)
{
    find_next();
    return dlsym_next(handle, name);
}

static struct link_map *object_of(const void *address)
{
    struct link_map *map = NULL;
    Dl_info info;

    return dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) ? map : NULL;
}

static const struct dlsym_answer ask_real = {NULL, 0};

static struct dlsym_answer answer(int index, void *address)
{
    return (struct dlsym_answer){resolve_answer(index, address), 1};
}

/* The answer of a search that comes to our export, which is there whether the driver is or not: what it would find without us, that is the
 * next definition after ours or, for a caller that was loaded with the driver in a scope of its own (`map`, may be NULL), that one. */
static struct dlsym_answer without_us(int index, const char *name, struct link_map *map)
{
    void *behind_us = dlsym_next(RTLD_NEXT, name);

    if (!behind_us && map && map->l_name[0]) {
        void *handle = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
        if (handle) {
            behind_us = dlsym_next(handle, name);
            dlclose(handle);
        }
    }
    if (!behind_us) {
        dlsym_next(RTLD_NEXT, name); /* once more, last: dlerror() tells of it */
        return (struct dlsym_answer){NULL, 1};
    }
    return behind_us == real_address((unsigned)index) ? answer(index, behind_us) : ask_real;
}

/* RTLD_NEXT asks for the next definition after the caller's own. From before us that is our export, or that of a library between, which is
 * asked first and answers by itself; from behind us it is ours to answer only where it is the driver's: a hook library there must get the
 * wrapper. */
static struct dlsym_answer next_of(int index, const char *name, void *caller)
{
    struct link_map *us = object_of((const void *)dlsym_filter), *map = object_of(caller), *before = us ? us->l_prev : NULL;

    /* What stands before us was loaded at the start and stays; behind us the list may change while it is read. */
    while (before && before != map)
        before = before->l_prev;
    if (before && map) {
        for (struct link_map *between = map->l_next; between != us; between = between->l_next)
            if (defined_in(between->l_addr, between->l_ld, name))
                return ask_real;
        return without_us(index, name, NULL);
    }
    void *real_one = real_address((unsigned)index);
    return real_one && map && defined_after(caller, name) == real_one ? answer(index, real_one) : ask_real;
}

/* RTLD_DEFAULT and the program's own handle search the global scope. A library before us that defines the name has been asked for first and
 * answers by itself. */
static struct dlsym_answer default_of(int index, const char *name, void *caller)
{
    return without_us(index, name, object_of(caller));
}

static bool defined_before_us(const char *name)
{
    struct link_map *us = object_of((const void *)dlsym_filter), *map = us;

    while (map && map->l_prev)
        map = map->l_prev;
    if (map && map != us) {
        void *program = dlopen(NULL, RTLD_LAZY);
        void *first = program ? dlsym_next(program, name) : NULL;
        if (program)
            dlclose(program);
        return first && object_of(first) != us;
    }
    return false;
}

struct dlsym_answer dlsym_filter(void *handle, const char *name, void *caller)
{
    find_next();
    int index = name ? resolve_name(name) : -1;
    if (index < 0)
        return ask_real;
    if (!is_glibc()) {
        tell_not_held();
        return ask_real;
    }
    if (handle == RTLD_NEXT)
        return next_of(index, name, caller);
    if (handle == RTLD_DEFAULT)
        return defined_before_us(name) ? ask_real : default_of(index, name, caller);

    void *address = dlsym_next(handle, name);
    if (!address)
        return (struct dlsym_answer){NULL, 1};
    if (address == hook_wrappers[index])
        return default_of(index, name, caller);
    return answer(index, address);
}
