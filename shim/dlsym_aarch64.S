/* SPDX-License-Identifier: Apache-2.0 */
/* dlsym_x86_64.S for aarch64: the caller is in x30, which the jump leaves as it was. */

    .text
    .balign 16
    .globl dlsym_2_34
    .globl dlsym_2_17
    .type dlsym_2_34, %function
    .type dlsym_2_17, %function
dlsym_2_34:
dlsym_2_17:
    .cfi_startproc
    bti c
    stp x29, x30, [sp, #-32]!
    .cfi_def_cfa_offset 32
    .cfi_offset x29, -32
    .cfi_offset x30, -24
    mov x29, sp
    stp x0, x1, [sp, #16]
    mov x2, x30         /* the caller */
    bl dlsym_filter     /* x0: the answer, x1: whether it is one */
    mov x9, x0
    mov x10, x1
    ldp x0, x1, [sp, #16]
    ldp x29, x30, [sp], #32
    .cfi_restore x30
    .cfi_restore x29
    .cfi_def_cfa_offset 0
    cbz x10, 1f
    mov x0, x9
    ret
1:  adrp x16, dlsym_next
    ldr x16, [x16, #:lo12:dlsym_next]
    br x16
    .cfi_endproc
    .size dlsym_2_34, . - dlsym_2_34
    .size dlsym_2_17, . - dlsym_2_17

    .symver dlsym_2_34, dlsym@@GLIBC_2.34, remove
    .symver dlsym_2_17, dlsym@GLIBC_2.17, remove

    .section .note.GNU-stack, "", %progbits
