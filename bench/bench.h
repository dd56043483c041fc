/* SPDX-License-Identifier: Apache-2.0 */
/* What the benchmarks share: clocks, medians, random orders, a barrier that they can stop the clock at. */
#ifndef SOFTSLICE_BENCH_H
#define SOFTSLICE_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double bench_clock(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static inline double bench_now(void)
{
    return bench_clock(CLOCK_MONOTONIC);
}

static inline int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The value below which `part` of the values lie; sorts them. */
static inline double bench_quantile(double *values, size_t count, double part)
{
    size_t index = (size_t)(part * (double)count);

    qsort(values, count, sizeof(*values), bench_compare);
    return values[index < count ? index : count - 1];
}

static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline void bench_shuffle(uint64_t *values, size_t count, uint64_t *state)
{
    for (size_t i = count; i > 1; i--) {
        size_t j = bench_random(state) % i;
        uint64_t value = values[j];

        values[j] = values[i - 1];
        values[i - 1] = value;
    }
}

static inline void *bench_need(void *pointer, const char *what)
{
    if (!pointer) {
        fprintf(stderr, "bench: %s: not available\n", what);
        exit(1);
    }
    return pointer;
}

#endif
