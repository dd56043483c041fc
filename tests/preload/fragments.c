/* SPDX-License-Identifier: Apache-2.0 */
/* What the GPU says is in use stays within the budget also where small blocks keep slabs alive that are nearly empty, and where each context
 * has slabs of its own. */
// run: SOFTSLICE_VRAM=1GiB
#include "../cuda_helper.h"

enum { BLOCKS = 8192 };

static CUdeviceptr block[BLOCKS];

static void within(const char *when)
{
    uint64_t used = t_used(0), limit = t_bytes("SOFTSLICE_VRAM", 0);
    t_check(used <= limit, "%s: the GPU says %llu bytes are in use, the limit is %llu", when, (unsigned long long)used,
            (unsigned long long)limit);
}

int main(void)
{
    CUcontext first = t_context(0), second;
    size_t size = 64 * T_KIB;
    int count = 0, in_slab = (int)(t_granule() / size);

    while (count < BLOCKS && (block[count] = t_alloc(size)))
        count++;
    within("small blocks");
    for (int i = 0; i < count; i++)
        if (i % in_slab)
            t_cuda(cuMemFree(block[i]));
    while (t_alloc(2 * T_MIB))
        ;
    within("large blocks beside slabs that are nearly empty");
    t_cuda(cuCtxDestroy(first));

    first = t_context(0);
    second = t_context(0);
    for (int i = 0; i < 1000; i++) {
        t_cuda(cuCtxSetCurrent(i % 2 ? first : second));
        if (!t_alloc(size))
            break;
    }
    while (t_alloc(2 * T_MIB))
        ;
    within("two contexts");
    return 0;
}
