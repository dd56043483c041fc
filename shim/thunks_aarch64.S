/* SPDX-License-Identifier: Apache-2.0 */
/* thunks_x86_64.S for aarch64: the same tables and stubs; x16 and x17 are the ABI's scratch registers for such veneers. */

    .set index, 0

    .section .data.rel.local, "aw", %progbits
    .balign 8
    .globl real
    .hidden real
    .type real, %object
real:
    .section .data.rel.ro, "aw", %progbits
    .balign 8
    .globl hook_wrappers
    .hidden hook_wrappers
    .type hook_wrappers, %object
hook_wrappers:
    .text

.macro row symbol:req, body:req
    .section .data.rel.local, "aw", %progbits
    .quad lazy_\symbol
    .section .data.rel.ro, "aw", %progbits
    .quad \symbol
    .text
    .balign 16
    .type lazy_\symbol, %function
lazy_\symbol:
    .cfi_startproc
    bti jc
    mov w17, #index
    b lazy
    .cfi_endproc
    .size lazy_\symbol, . - lazy_\symbol
    .ifc \body, FORWARD
    .balign 16
    .globl \symbol
    .type \symbol, %function
\symbol:
    .cfi_startproc
    bti jc
    adrp x16, real + 8 * index
    ldr x16, [x16, #:lo12:(real + 8 * index)]
    br x16
    .cfi_endproc
    .size \symbol, . - \symbol
    .endif
    .set index, index + 1
.endm

    .type lazy, %function
lazy: /* w17: index of the row */
    .cfi_startproc
    stp x29, x30, [sp, #-224]!
    .cfi_def_cfa_offset 224
    .cfi_offset x29, -224
    .cfi_offset x30, -216
    mov x29, sp
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    str x8, [sp, #80]
    stp q0, q1, [sp, #96]
    stp q2, q3, [sp, #128]
    stp q4, q5, [sp, #160]
    stp q6, q7, [sp, #192]
    mov w0, w17
    bl real_lookup
    mov x16, x0
    ldp q6, q7, [sp, #192]
    ldp q4, q5, [sp, #160]
    ldp q2, q3, [sp, #128]
    ldp q0, q1, [sp, #96]
    ldr x8, [sp, #80]
    ldp x6, x7, [sp, #64]
    ldp x4, x5, [sp, #48]
    ldp x2, x3, [sp, #32]
    ldp x0, x1, [sp, #16]
    ldp x29, x30, [sp], #224
    .cfi_restore x30
    .cfi_restore x29
    .cfi_def_cfa_offset 0
    br x16
    .cfi_endproc
    .size lazy, . - lazy

#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) row symbol, body
#include "hooks.def"
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) row symbol, body
#include "nvml.def"

    .section .data.rel.local, "aw", %progbits
    .size real, . - real
    .section .data.rel.ro, "aw", %progbits
    .size hook_wrappers, . - hook_wrappers
    .section .note.GNU-stack, "", %progbits
