/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fiber_switch(void **save [rdi], void *to [rsi]) for the System V x86-64 ABI: pushes what a call
 * must preserve (rbp rbx r12-r15), exchanges stacks, pops the same. The floating point control
 * words are the same everywhere in this program, so they are not saved. Order in memory, from the
 * stack pointer up: r15 r14 r13 r12 rbx rbp, return address.
 */
#ifdef __x86_64__
        .text
        .globl  fiber_switch
        .type   fiber_switch, @function
        .p2align 4
fiber_switch:
        .cfi_startproc
        endbr64
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret
        .cfi_endproc
        .size   fiber_switch, .-fiber_switch

        .globl  fiber_trampoline
        .type   fiber_trampoline, @function
        .p2align 4
fiber_trampoline:
        .cfi_startproc
        .cfi_undefined rip
        endbr64
        movq    %r12, %rdi
        call    fiber_main@PLT
        ud2
        .cfi_endproc
        .size   fiber_trampoline, .-fiber_trampoline
#endif
        .section .note.GNU-stack,"",@progbits
