/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of CUDA_MPS_PINNED_DEVICE_MEM_LIMIT, and that what is not understood is passed over, never taken for a limit. */
#include <criterion/criterion.h>

#include "softslice/native.h"
#include "softslice/units.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static const uint8_t uuid[16] = {0x89, 0x32, 0xf9, 0x37, 0xd7, 0x2c, 0x41, 0x06, 0xc1, 0x2f, 0x20, 0xbd, 0x9f, 0xae, 0xd9, 0xf6};

static const struct {
    const char *text;
    int ordinal;
    uint64_t bytes;
} cases[] = {
    {NULL, 0, NATIVE_NONE},
    {"", 0, NATIVE_NONE},
    {"0=1G,1=512MB", 0, GIB},
    {"0=1G,1=512MB", 1, 512 * MIB},
    {"0=1G,1=512MB", 2, NATIVE_NONE},
    {"10=1G", 1, NATIVE_NONE},
    {" 0 = 2g , 1 = 3m ", 0, 2 * GIB},
    {"0=4096m", 0, 4 * GIB},
    {"0=5GB", 0, 5 * GIB},
    {"0=0M", 0, 0},
    {"0=2G,0=1G", 0, GIB},
    {"0=1G,0=2G", 0, GIB},
    {"GPU-8932f937-d72c-4106-c12f-20bd9faed9f6=1G", 3, GIB},
    {"gpu-8932F937=1G", 3, GIB},
    {"MIG-8932f937=1G", 3, GIB},
    {"GPU-8932f938=1G", 3, NATIVE_NONE},
    {"GPU-=1G", 3, NATIVE_NONE},
    {"GPU-8932f937-d72c-4106-c12f-20bd9faed9f60=1G", 3, NATIVE_NONE},
    {"1G", 0, NATIVE_NONE},
    {"0=", 0, NATIVE_NONE},
    {"0=G", 0, NATIVE_NONE},
    {"0=B", 0, NATIVE_NONE},
    {"0=1", 0, NATIVE_NONE},
    {"0=1T", 0, NATIVE_NONE},
    {"0=-1G", 0, NATIVE_NONE},
    {"0=1.5G", 0, NATIVE_NONE},
    {"=1G", 0, NATIVE_NONE},
    {"-0=1G", 0, NATIVE_NONE},
    {"0=99999999999999999999G", 0, NATIVE_NONE},
    {"0=17179869184G", 0, NATIVE_NONE},
    {",,,0=1G,", 0, GIB},
    {"nonsense,0=1G", 0, GIB},
};

Test(native, mps_grammar)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = native_mps_bytes(cases[i].text, cases[i].ordinal, uuid);

        cr_expect(bytes == cases[i].bytes, "\"%s\" for GPU %d: %llu, expected %llu", cases[i].text ? cases[i].text : "(none)",
                  cases[i].ordinal, (unsigned long long)bytes, (unsigned long long)cases[i].bytes);
    }
}

Test(native, cgroup_is_a_folder_under_the_mount)
{
    char path[4096], tiny[8];

    if (native_cgroup(path, sizeof(path)))
        cr_expect(strncmp(path, NATIVE_CGROUP_ROOT, strlen(NATIVE_CGROUP_ROOT)) == 0, "%s", path);
    cr_expect(!native_cgroup(tiny, sizeof(tiny)));
}
