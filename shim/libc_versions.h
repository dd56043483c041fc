/* SPDX-License-Identifier: Apache-2.0 */
/* Binds the loader's functions to the versions that glibc has always had, so that a library built on a new system runs on an old one. */
#ifndef SOFTSLICE_SHIM_LIBC_VERSIONS_H
#define SOFTSLICE_SHIM_LIBC_VERSIONS_H

#include <dlfcn.h>
#include <link.h>

#if defined(__x86_64__)
#    define LIBC_BASE_VERSION    "GLIBC_2.2.5"
#    define LIBC_DLADDR1_VERSION "GLIBC_2.3.3"
#elif defined(__aarch64__)
#    define LIBC_BASE_VERSION    "GLIBC_2.17"
#    define LIBC_DLADDR1_VERSION "GLIBC_2.17"
#else
#    error "softslice runs on x86-64 and aarch64"
#endif

__asm__(".symver dlopen,dlopen@" LIBC_BASE_VERSION);
__asm__(".symver dlclose,dlclose@" LIBC_BASE_VERSION);
__asm__(".symver dlerror,dlerror@" LIBC_BASE_VERSION);
__asm__(".symver dlvsym,dlvsym@" LIBC_BASE_VERSION);
__asm__(".symver dladdr1,dladdr1@" LIBC_DLADDR1_VERSION);

/* musl has neither, and does not start a program where a preloaded library refers to what it has not: NULL there. */
#pragma weak dlvsym
#pragma weak dladdr1

#endif
