/* SPDX-License-Identifier: Apache-2.0 */
/* A library that has functions of the driver's names and nothing else to do with it. */
int cuInit(unsigned flags);
int cuMemAlloc_v2(void *pointer, unsigned long size);

int cuInit(unsigned flags)
{
    return (int)flags + 4711;
}

int cuMemAlloc_v2(void *pointer, unsigned long size)
{
    (void)pointer;
    return (int)size + 4711;
}
