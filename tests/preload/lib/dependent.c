/* SPDX-License-Identifier: Apache-2.0 */
/* A library that was linked with the driver, as a plugin is: its users find the driver through it. */
#include <cuda.h>
#include <dlfcn.h>

int dependent_version(void);
void *dependent_default(const char *name);

int dependent_version(void)
{
    int version = 0;
    cuDriverGetVersion(&version);
    return version;
}

/* RTLD_DEFAULT from here includes the scope that this library was loaded with. */
void *dependent_default(const char *name)
{
    void *volatile found = dlsym(RTLD_DEFAULT, name);
    return found;
}
