/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of load.c for a real GPU, in PTX of our own. */
#ifndef TESTS_SHARE_SPIN_H
#define TESTS_SHARE_SPIN_H

/* A chain of dependent multiplications, as long as it is told; the branch to the store is never taken, but who compiles it cannot know. */
static const char image[] = ".version 7.0\n"
                            ".target sm_75\n"
                            ".address_size 64\n"
                            ".visible .entry spin(.param .u64 loops, .param .u64 out)\n"
                            "{\n"
                            "  .reg .pred %p;\n"
                            "  .reg .u32 %x;\n"
                            "  .reg .u64 %n, %out;\n"
                            "  ld.param.u64 %n, [loops];\n"
                            "  ld.param.u64 %out, [out];\n"
                            "  mov.u32 %x, %tid.x;\n"
                            "again:\n"
                            "  mad.lo.u32 %x, %x, 1664525, 1013904223;\n"
                            "  mad.lo.u32 %x, %x, 22695477, 1;\n"
                            "  sub.u64 %n, %n, 1;\n"
                            "  setp.ne.u64 %p, %n, 0;\n"
                            "  @%p bra again;\n"
                            "  setp.ne.u32 %p, %x, 1431655765;\n"
                            "  @%p bra done;\n"
                            "  st.global.u32 [%out], %x;\n"
                            "done:\n"
                            "  ret;\n"
                            "}\n";

#endif
