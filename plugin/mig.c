/* SPDX-License-Identifier: Apache-2.0 */
/* Capabilities of MIG instances. */
#include <string.h>

#include "mig.h"

static int read_number(const char *path)
{
    FILE *file = fopen(path, "re");
    char line[128];
    int number = -1;

    while (file && number < 0 && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "DeviceFileMinor: %d", &number) != 1)
            number = -1;
    }
    if (file)
        fclose(file);
    return number;
}

unsigned mig_capabilities(const char *directory, const struct gpu *gpu, int number[2])
{
    char path[512];
    unsigned count = 0;

    if (gpu->minor < 0 || gpu->gpu_instance < 0)
        return 0;
    snprintf(path, sizeof(path), "%s/gpu%d/mig/gi%d/access", directory, gpu->minor, gpu->gpu_instance);
    number[count] = read_number(path);
    count += number[count] >= 0;
    if (gpu->compute_instance < 0)
        return count;
    snprintf(path, sizeof(path), "%s/gpu%d/mig/gi%d/ci%d/access", directory, gpu->minor, gpu->gpu_instance, gpu->compute_instance);
    number[count] = read_number(path);
    return count + (number[count] >= 0);
}
