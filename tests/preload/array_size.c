/* SPDX-License-Identifier: Apache-2.0 */
/* What a description comes to where no driver tells: every format of cuda.h at least its elements, padding bounded, no size small because it
 * overflowed. The simulated GPU has few formats, so this asks the function itself. */
// preload: no
#include "../../shim/array_size.c"

#include "../helper.h"

static const struct {
    unsigned char first, last;
    unsigned channels; /* 0: as many as the description says */
    double bytes;      /* of an element, or of one channel */
} known[] = {
    {0x01, 0x01, 0, 1}, {0x02, 0x02, 0, 2}, {0x03, 0x03, 0, 4}, {0x08, 0x08, 0, 1},   {0x09, 0x09, 0, 2},   {0x0a, 0x0a, 0, 4},
    {0x10, 0x10, 0, 2}, {0x20, 0x20, 0, 4}, {0x50, 0x50, 4, 4}, {0x91, 0x92, 4, 0.5}, {0x93, 0x96, 4, 1},   {0x97, 0x98, 1, 0.5},
    {0x99, 0x9a, 2, 1}, {0x9b, 0x9c, 3, 1}, {0x9d, 0x9e, 4, 1}, {0x9f, 0x9f, 3, 3},   {0xa1, 0xa1, 3, 3},   {0xa2, 0xa2, 3, 2},
    {0xa3, 0xa4, 3, 4}, {0xa5, 0xa5, 2, 2}, {0xa6, 0xa7, 2, 4}, {0xa8, 0xa9, 4, 4},   {0xb0, 0xb0, 3, 1.5}, {0xb1, 0xb1, 4, 8},
    {0xb2, 0xb2, 3, 3}, {0xb3, 0xb3, 3, 6}, {0xb4, 0xb4, 3, 3}, {0xb5, 0xb5, 3, 6},   {0xc0, 0xc0, 1, 1},   {0xc1, 0xc1, 2, 2},
    {0xc2, 0xc2, 4, 4}, {0xc3, 0xc3, 1, 2}, {0xc4, 0xc4, 2, 4}, {0xc5, 0xc5, 4, 8},   {0xc6, 0xc6, 1, 1},   {0xc7, 0xc7, 2, 2},
    {0xc8, 0xc8, 4, 4}, {0xc9, 0xc9, 1, 2}, {0xca, 0xca, 2, 4}, {0xcb, 0xcb, 4, 8},
};

static void check(unsigned number, unsigned channels, double element)
{
    static const size_t sides[][3] = {{4096, 4096, 0}, {4095, 4093, 0}, {65536, 0, 0}, {65533, 0, 0}, {500, 300, 70}, {1, 1, 1}};

    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        CUDA_ARRAY3D_DESCRIPTOR d = {sides[i][0], sides[i][1], sides[i][2], (CUarray_format)number, channels, 0};
        double elements = (double)d.Width * (double)(d.Height ? d.Height : 1) * (double)(d.Depth ? d.Depth : 1);
        double size = (double)array_size(&d, 0);

        t_check(size >= elements * element, "format 0x%02x, %u channels, %zu x %zu x %zu: %.0f bytes", number, channels, d.Width,
                d.Height, d.Depth, size);
        if (d.Width >= 4093 && d.Height >= 4093)
            t_check(size <= elements * element * 1.02 + 4096, "format 0x%02x, %u channels, %zu x %zu: %.0f bytes", number, channels,
                    d.Width, d.Height, size);
        t_check((double)array_size(&d, 1) == size, "one level is not the array's size");
        double levels = (double)array_size(&d, 40);
        t_check(levels >= size && levels <= size * 2.5 + 40 * 512, "format 0x%02x: %.0f bytes, all levels %.0f", number, size,
                levels);
    }
}

int main(void)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        for (unsigned number = known[i].first; number <= known[i].last; number++) {
            if (known[i].channels)
                check(number, known[i].channels, known[i].bytes);
            for (unsigned channels = 1; !known[i].channels && channels <= 4; channels++)
                check(number, channels, known[i].bytes * channels);
        }
    /* A format of tomorrow counts as the widest of today. */
    check(0x7e, 1, 16);

    /* Levels: 4/3 of the first; layers keep their number, depth halves. */
    CUDA_ARRAY3D_DESCRIPTOR d = {1024, 1024, 16, CU_AD_FORMAT_FLOAT, 1, 0};
    t_equal(array_size(&d, 2), 64 * T_MIB + 8 * T_MIB);
    d.Flags = CUDA_ARRAY3D_LAYERED;
    t_equal(array_size(&d, 2), 64 * T_MIB + 16 * T_MIB);

    /* What does not fit in 64 bits is not small. */
    static const size_t huge[][3] = {{SIZE_MAX, 1, 1},
                                     {SIZE_MAX, SIZE_MAX, SIZE_MAX},
                                     {(size_t)1 << 62, 1, 1},
                                     {(size_t)1 << 32, (size_t)1 << 32, 1},
                                     {((size_t)1 << 32) + 1, (size_t)1 << 32, 1},
                                     {1, SIZE_MAX, 1},
                                     {(size_t)1 << 22, (size_t)1 << 21, (size_t)1 << 21}};
    for (size_t i = 0; i < sizeof(huge) / sizeof(huge[0]); i++)
        for (unsigned levels = 0; levels < 70; levels += 69)
            t_equal(array_size(&(CUDA_ARRAY3D_DESCRIPTOR){huge[i][0], huge[i][1], huge[i][2], CU_AD_FORMAT_FLOAT, 4, 0}, levels),
                    UINT64_MAX);
    t_equal(array_size(&(CUDA_ARRAY3D_DESCRIPTOR){64, 64, 0, CU_AD_FORMAT_FLOAT, UINT32_MAX, 0}, 0),
            (uint64_t)64 * 64 * 4 * UINT32_MAX);
    t_equal(array_size(&(CUDA_ARRAY3D_DESCRIPTOR){0, 64, 64, CU_AD_FORMAT_FLOAT, 4, 0}, 5), 0);
    return 0;
}
