/* SPDX-License-Identifier: Apache-2.0 */
/* From the rows of hooks.def and nvml.def: the table of real functions, the table of wrappers, and the exports of FORWARD rows.
 *
 * An entry of `real` starts out as a stub that looks the function up at its first call, as a PLT does, so no wrapper ever needs to ask
 * whether the driver is there. A FORWARD export saves nothing and changes nothing: one indirect jump, whatever the prototype. */

#define SAVED_FP 128 /* xmm0-7: cuParamSetf and its like pass a float */

    .set index, 0

    .section .data.rel.local, "aw", @progbits
    .balign 8
    .globl real
    .hidden real
    .type real, @object
real:
    .section .data.rel.ro, "aw", @progbits
    .balign 8
    .globl hook_wrappers
    .hidden hook_wrappers
    .type hook_wrappers, @object
hook_wrappers:
    .text

.macro row symbol:req, body:req
    .section .data.rel.local, "aw", @progbits
    .quad lazy_\symbol
    .section .data.rel.ro, "aw", @progbits
    .quad \symbol
    .text
    .balign 16
    .type lazy_\symbol, @function
lazy_\symbol:
    .cfi_startproc
    endbr64
    movl $index, %r11d
    jmp lazy
    .cfi_endproc
    .size lazy_\symbol, . - lazy_\symbol
    .ifc \body, FORWARD
    .balign 16
    .globl \symbol
    .type \symbol, @function
\symbol:
    .cfi_startproc
    endbr64
    jmp *(real + 8 * index)(%rip)
    .cfi_endproc
    .size \symbol, . - \symbol
    .endif
    .set index, index + 1
.endm

    .type lazy, @function
lazy: /* r11: index of the row; everything else is the program's */
    .cfi_startproc
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    pushq %rax
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    pushq %r10
    subq $SAVED_FP, %rsp
    movups %xmm0, 0(%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp)
    movups %xmm5, 80(%rsp)
    movups %xmm6, 96(%rsp)
    movups %xmm7, 112(%rsp)
    movl %r11d, %edi
    call real_lookup
    movq %rax, %r11
    movups 0(%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4
    movups 80(%rsp), %xmm5
    movups 96(%rsp), %xmm6
    movups 112(%rsp), %xmm7
    addq $SAVED_FP, %rsp
    popq %r10
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rax
    popq %rbp
    .cfi_def_cfa %rsp, 8
    jmp *%r11
    .cfi_endproc
    .size lazy, . - lazy

#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) row symbol, body
#include "hooks.def"
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) row symbol, body
#include "nvml.def"

    .section .data.rel.local, "aw", @progbits
    .size real, . - real
    .section .data.rel.ro, "aw", @progbits
    .size hook_wrappers, . - hook_wrappers
    .section .note.GNU-stack, "", @progbits
    /* IBT and SHSTK: every indirect target above starts with endbr64. */
    .section .note.gnu.property, "a"
    .balign 8
    .long 4, 16, 5
    .asciz "GNU"
    .long 0xc0000002, 4, 3, 0
