/* SPDX-License-Identifier: Apache-2.0 */
/* load LIBRARY [FUNCTION(ARGUMENT,...)...]: load a library and call functions of it, so that it looks its driver up. An argument is a number,
 * pN (a pointer to the zeroed buffer N) or *N (what stands at the start of buffer N). What the functions return is printed. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS = 6, BUFFERS = 6 };

static union {
    char bytes[65536];
    uintptr_t word;
} buffer[BUFFERS];

static uintptr_t value_of(const char *text)
{
    if (*text == 'p')
        return (uintptr_t)buffer[atoi(text + 1) % BUFFERS].bytes;
    if (*text == '*')
        return buffer[atoi(text + 1) % BUFFERS].word;
    return strtoul(text, NULL, 0);
}

static int call(void *library, char *text)
{
    uintptr_t value[ARGUMENTS] = {0};
    char *name = strtok(text, "("), *word;

    for (int i = 0; i < ARGUMENTS && (word = strtok(NULL, ",)")); i++)
        value[i] = value_of(word);
    int (*function)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t) =
        (int (*)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t))dlsym(library, name);
    if (!function) {
        printf("there is no %s\n", name);
        return 1;
    }
    printf("%s returned %d\n", name, function(value[0], value[1], value[2], value[3], value[4], value[5]));
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) : NULL;

    if (!library) {
        printf("%s\n", argc > 1 ? dlerror() : "which library?");
        return 1;
    }
    for (int i = 2; i < argc; i++)
        if (call(library, argv[i]) != 0)
            return 1;
    return 0;
}
