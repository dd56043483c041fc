/* SPDX-License-Identifier: Apache-2.0 */
/* A preloaded library that looks names up on its own behalf: RTLD_NEXT and RTLD_DEFAULT depend on who asks. Includers define PLACE. */
#include <dlfcn.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)
#define TEXT_(a)    #a
#define TEXT(a)     TEXT_(a)

const char *place_of_object(void);
void *JOIN(PLACE, _next)(const char *name);
void *JOIN(PLACE, _default)(const char *name);

/* Every object of the test defines this name. */
const char *place_of_object(void)
{
    return TEXT(PLACE);
}

/* The results are kept in a variable so that no call becomes a jump: its return address is what the loader goes by. */
void *JOIN(PLACE, _next)(const char *name)
{
    void *volatile found = dlsym(RTLD_NEXT, name);
    return found;
}

void *JOIN(PLACE, _default)(const char *name)
{
    void *volatile found = dlsym(RTLD_DEFAULT, name);
    return found;
}
