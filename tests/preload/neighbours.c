/* SPDX-License-Identifier: Apache-2.0 */
/* RTLD_NEXT and RTLD_DEFAULT from the program, from a library preloaded before ours and from one after it: for names that are not the driver's
 * what they would find without us, for the driver's the wrapper where the driver would be found, and nothing where it would not. */
// unsanitized: the order of the preloaded libraries is what is tested, and a sanitizer's runtime must be first
// run: LD_PRELOAD="$BUILD/tests/preload/lib/front.so $LIB $BUILD/tests/preload/lib/behind.so" SOFTSLICE_VRAM=1GiB -- global
// run: LD_PRELOAD="$BUILD/tests/preload/lib/front.so $LIB $BUILD/tests/preload/lib/behind.so" SOFTSLICE_VRAM=1GiB -- local
// run: LD_PRELOAD="$BUILD/tests/preload/lib/front.so $LIB $BUILD/tests/preload/lib/behind.so" SOFTSLICE_VRAM=1GiB -- absent
// run: LD_PRELOAD="$BUILD/tests/preload/lib/front.so $LIB $BUILD/tests/preload/lib/behind.so $SIM/libcuda.so.1" SOFTSLICE_VRAM=1GiB -- linked
// run: LD_PRELOAD="$BUILD/tests/preload/lib/front.so $LIB $BUILD/tests/preload/lib/behind.so" -- global
// run: LD_PRELOAD="$BUILD/tests/preload/lib/front.so $LIB $BUILD/tests/preload/lib/behind.so" -- absent
#include "../helper.h"

typedef void *look_up(const char *name);

const char *place_of_object(void);
const char *place_of_object(void)
{
    return "program";
}

static void *program_next(const char *name)
{
    void *volatile found = dlsym(RTLD_NEXT, name);
    return found;
}

static void *program_default(const char *name)
{
    void *volatile found = dlsym(RTLD_DEFAULT, name);
    return found;
}

static void *program_handle(const char *name)
{
    void *handle = dlopen(NULL, RTLD_LAZY);
    void *volatile found = dlsym(handle, name);
    /* dlclose() of it does nothing, and would hide what dlerror() tells. */
    return found;
}

static struct road {
    const char *name;
    look_up *find;
    bool next;
    const char *place; /* what it finds for place_of_object, NULL if nothing */
} roads[] = {
    {"RTLD_NEXT from the program", program_next, true, "front"},
    {"RTLD_DEFAULT from the program", program_default, false, "program"},
    {"the program's handle", program_handle, false, "program"},
    {"front_next", NULL, true, "behind"},
    {"front_default", NULL, false, "program"},
    {"behind_next", NULL, true, NULL},
    {"behind_default", NULL, false, "program"},
};

static void finds(const struct road *road, const char *name, const void *want)
{
    dlerror();
    errno = 4711;
    const void *found = road->find(name);
    t_check(errno == 4711 || !want, "%s: errno is %d after %s was found", road->name, errno, name);
    const char *error = dlerror();

    t_check(found == want, "%s finds %s at %p in %s, expected %p in %s", road->name, name, found, t_object(found), want,
            t_object(want));
    t_check((error != NULL) == (want == NULL), "%s: dlerror() after looking %s up: %s", road->name, name,
            error ? error : "nothing");
    t_check(!error || strstr(error, name), "dlerror() does not name %s: %s", name, error);
    t_check(!dlerror(), "dlerror() tells twice");
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "absent";
    bool armed = getenv("SOFTSLICE_VRAM"), seen = how[0] == 'g' || how[1] == 'i';
    static const char *const absent[] = {"cudnnCreate", "curl_easy_init", "cuNothing", "cuMemAlloc_v9", "nvmlNothing", "cu", ""};

    for (size_t i = 0; i < sizeof(roads) / sizeof(roads[0]); i++) {
        if (!roads[i].find)
            roads[i].find = (look_up *)t_dlsym(RTLD_DEFAULT, roads[i].name);
        t_check(roads[i].find, "%s is not preloaded", roads[i].name);
    }
    if (*how == 'g' || (how[0] == 'l' && how[1] == 'o'))
        t_check(dlopen("libcuda.so.1", RTLD_NOW | (*how == 'g' ? RTLD_GLOBAL : RTLD_LOCAL)), "dlopen: %s", dlerror());
    else if (!seen)
        t_check(!dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD), "the driver was loaded without need");

    for (size_t i = 0; i < sizeof(roads) / sizeof(roads[0]); i++) {
        const struct road *road = &roads[i];

        finds(road, "malloc", t_dlsym(t_library("libc.so.6"), "malloc"));
        for (size_t n = 0; n < sizeof(absent) / sizeof(absent[0]); n++)
            if (*absent[n])
                finds(road, absent[n], NULL);
        const char *(*place)(void) = (const char *(*)(void))road->find("place_of_object");
        t_check((place != NULL) == (road->place != NULL), "%s of a name of the program's: %p", road->name, (void *)place);
        t_check(!place || strcmp(place(), road->place) == 0, "%s finds that of the %s, expected the %s", road->name, place(),
                road->place);

        /* From behind us RTLD_NEXT is answered where the driver follows in any scope: one that was loaded for somebody else alone is told
         * too, rather than hidden from a library that was loaded with it. */
        if (strcmp(road->name, "behind_next") == 0 && strcmp(how, "local") == 0)
            continue;
        finds(road, "cuMemAlloc_v2", !seen ? NULL : armed ? t_wrapper("cuMemAlloc_v2") : t_real("cuMemAlloc_v2"));
        finds(road, "cuInit", !seen ? NULL : armed ? t_wrapper("cuInit") : t_real("cuInit"));
        finds(road, "cuLaunchKernel", !seen ? NULL : t_real("cuLaunchKernel"));
        finds(road, "cuDeviceGet", !seen ? NULL : t_real("cuDeviceGet"));
    }
    return 0;
}
