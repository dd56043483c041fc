/* SPDX-License-Identifier: Apache-2.0 */
/* The exported dlsym. glibc reads its caller from the return address (RTLD_NEXT, RTLD_DEFAULT), so whatever is not ours to answer is
 * answered by a jump that leaves the caller's frame as it was; no compiler option can undo that here. */

    .text
    .balign 16
    .globl dlsym_2_34
    .globl dlsym_2_2_5
    .type dlsym_2_34, @function
    .type dlsym_2_2_5, @function
dlsym_2_34:
dlsym_2_2_5:
    .cfi_startproc
    endbr64
    pushq %rdi
    .cfi_adjust_cfa_offset 8
    pushq %rsi
    .cfi_adjust_cfa_offset 8
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    movq 24(%rsp), %rdx /* the caller */
    call dlsym_filter   /* rax: the answer, rdx: whether it is one */
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %rsi
    .cfi_adjust_cfa_offset -8
    popq %rdi
    .cfi_adjust_cfa_offset -8
    testq %rdx, %rdx
    jz 1f
    ret
1:  jmp *dlsym_next(%rip)
    .cfi_endproc
    .size dlsym_2_34, . - dlsym_2_34
    .size dlsym_2_2_5, . - dlsym_2_2_5

    .symver dlsym_2_34, dlsym@@GLIBC_2.34, remove
    .symver dlsym_2_2_5, dlsym@GLIBC_2.2.5, remove

    .section .note.GNU-stack, "", @progbits
    .section .note.gnu.property, "a"
    .balign 8
    .long 4, 16, 5
    .asciz "GNU"
    .long 0xc0000002, 4, 3, 0
