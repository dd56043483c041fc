/* SPDX-License-Identifier: Apache-2.0 */
/* cuLinkComplete: R7, links on the host */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_MODULE_BYTES=4M
#include "snippet.h"

static void snippet(void)
{
    CUlinkState link;
    size_t size;
    void *image;

    t_cuda(cuLinkCreate_v2(0, NULL, NULL, &link));
    t_cuda(cuLinkAddData_v2(link, CU_JIT_INPUT_PTX, "image", 6, "image", 0, NULL, NULL));
    t_cuda(CALL(cuLinkComplete)(link, &image, &size));
    EXPECT(0);
}
