/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of arrays from their descriptors. */
#include "array_size.h"

#include <stdbool.h>
#include <stddef.h>

/* Formats have numbers here, not names: a header has those of its day, a program those of its own. */
struct format {
    uint16_t first, last;
    uint8_t side;   /* of a block of elements that is stored as one */
    uint8_t halves; /* half bytes that such a block takes, of a single channel if `each` */
    bool each;
};

static const struct format formats[] = {
    {0x01, 0x01, 1, 2, true},   {0x08, 0x08, 1, 2, true},   /* 8-bit integers */
    {0x02, 0x02, 1, 4, true},   {0x09, 0x09, 1, 4, true},   /* 16-bit integers */
    {0x03, 0x03, 1, 8, true},   {0x0a, 0x0a, 1, 8, true},   /* 32-bit integers */
    {0x10, 0x10, 1, 4, true},   {0x20, 0x20, 1, 8, true},   /* HALF, FLOAT */
    {0x50, 0x50, 1, 8, false},                              /* UNORM_INT_101010_2 */
    {0x91, 0x92, 4, 16, false},                             /* BC1 */
    {0x93, 0x96, 4, 32, false},                             /* BC2, BC3 */
    {0x97, 0x98, 4, 16, false},                             /* BC4 */
    {0x99, 0x9e, 4, 32, false},                             /* BC5, BC6H, BC7 */
    {0x9f, 0x9f, 1, 6, false},  {0xa1, 0xa1, 1, 6, false},  /* P010, P016 */
    {0xa2, 0xa2, 1, 4, false},  {0xa3, 0xa4, 1, 8, false},  /* NV16; P210, P216 */
    {0xa5, 0xa5, 1, 4, false},  {0xa6, 0xa7, 1, 8, false},  /* YUY2; Y210, Y216 */
    {0xa8, 0xa9, 1, 8, false},  {0xb1, 0xb1, 1, 16, false}, /* AYUV, Y410; Y416 */
    {0xb0, 0xb0, 1, 3, false},                              /* NV12 */
    {0xb2, 0xb2, 1, 6, false},  {0xb3, 0xb3, 1, 12, false}, /* Y444_PLANAR8, Y444_PLANAR10 */
    {0xb4, 0xb4, 1, 6, false},  {0xb5, 0xb5, 1, 12, false}, /* YUV444 in 8 and 16 bits, semi-planar */
    {0xc0, 0xc0, 1, 2, false},  {0xc1, 0xc1, 1, 4, false},  /* UNORM_INT8X1, X2 */
    {0xc2, 0xc2, 1, 8, false},  {0xc3, 0xc3, 1, 4, false},  /* X4; UNORM_INT16X1 */
    {0xc4, 0xc4, 1, 8, false},  {0xc5, 0xc5, 1, 16, false}, /* X2, X4 */
    {0xc6, 0xc6, 1, 2, false},  {0xc7, 0xc7, 1, 4, false},  /* SNORM likewise */
    {0xc8, 0xc8, 1, 8, false},  {0xc9, 0xc9, 1, 4, false},  {0xca, 0xca, 1, 8, false}, {0xcb, 0xcb, 1, 16, false},
};

#define WIDEST  32 /* half bytes: four channels of 32 bits */
#define PITCH   64 /* bytes and rows of the smallest tile */
#define ROWS    8
#define SMALL   512
#define LAYERED (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)

static uint64_t multiply(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return value > UINT64_MAX - (to - 1) ? UINT64_MAX : (value + to - 1) / to * to;
}

static struct format format_of(unsigned number)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (number >= formats[i].first && number <= formats[i].last)
            return formats[i];
    return (struct format){.side = 1, .halves = WIDEST};
}

static uint64_t level_size(const CUDA_ARRAY3D_DESCRIPTOR *array, const struct format *format, uint64_t width, uint64_t height,
                           uint64_t depth)
{
    uint64_t halves = multiply(format->halves, format->each ? array->NumChannels : 1);
    uint64_t blocks = round_up(width, format->side) / format->side, rows = round_up(height, format->side) / format->side;
    uint64_t pitch = multiply(blocks, halves);

    if (pitch == UINT64_MAX)
        return pitch;
    pitch = (pitch + 1) / 2;
    if (rows > 1)
        pitch = round_up(pitch, PITCH), rows = round_up(rows, ROWS);
    return multiply(round_up(multiply(pitch, rows), SMALL), depth);
}

static uint64_t half(uint64_t side)
{
    return side > 1 ? side / 2 : 1;
}

uint64_t array_size(const CUDA_ARRAY3D_DESCRIPTOR *array, unsigned levels)
{
    uint64_t width = array->Width, height = array->Height ? array->Height : 1, depth = array->Depth ? array->Depth : 1, bytes = 0;
    struct format format = format_of((unsigned)array->Format);

    if (!width)
        return 0;
    do {
        bytes = add(bytes, level_size(array, &format, width, height, depth));
        if (width == 1 && height == 1 && (depth == 1 || (array->Flags & LAYERED)))
            break; /* there are no more levels, however many are asked for */
        width = half(width), height = half(height);
        if (!(array->Flags & LAYERED))
            depth = half(depth);
    } while (levels-- > 1);
    return bytes;
}
