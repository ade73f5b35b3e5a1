/*
 * Arithmetic of P-256 for ARMv6-M (Cortex-M0+), which multiplies 32 bits by 32 but keeps the low 32
 * bits alone: p256_mul, p256_sqr, p256_reduce. Numbers are little-endian words.
 *
 * Constant time: no branch, no address that depends on what is computed, and no instruction of
 * this core takes longer for some values than for others (its product takes one cycle).
 */
    .syntax unified
    .cpu cortex-m0plus
    .thumb

.macro function name
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
    .thumb_func
    .balign 4
\name:
.endm

.macro end name
    .size \name, . - \name
.endm

// From where `from` (a register) points to, 8 words go where r0 points to; both move on.
.macro copy8 from
    .rept 2
    ldmia   \from!, {r4-r7}
    stmia   r0!, {r4-r7}
    .endr
.endm

// Set \words words of the stack to 0: factors lay there, which may be secret.
.macro clear words
    mov     r0, sp
    .irp each, r4, r5, r6, r7
    movs    \each, #0
    .endr
    .rept \words / 4
    stmia   r0!, {r4-r7}
    .endr
    add     sp, #4 * \words
.endm

// r0:r1 += \middle * 2^16. Changes r2 and \middle.
.macro add_middle middle
    lsrs    r2, \middle, #16
    lsls    \middle, #16
    adds    r1, \middle
    adcs    r0, r2
.endm

// r7:r6:r5 += r0:r1. Changes r4.
.macro accumulate
    movs    r4, #0
    adds    r5, r1
    adcs    r6, r0
    adcs    r7, r4
.endm

// r7:r6:r5 += r0 * r1, as four products of 16 bits by 16. Changes r0-r4.
.macro add_product
    uxth    r2, r0
    lsrs    r0, #16
    lsrs    r3, r1, #16
    uxth    r1, r1
    movs    r4, r1
    muls    r4, r0
    muls    r0, r3
    muls    r3, r2
    muls    r1, r2
    add_middle r3
    add_middle r4
    accumulate
.endm

// r7:r6:r5 += r0 * r0. Changes r0-r4.
.macro add_square
    uxth    r1, r0
    lsrs    r0, #16
    movs    r2, r1
    muls    r2, r0
    muls    r1, r1
    muls    r0, r0
    lsrs    r3, r2, #15
    lsls    r2, #17
    adds    r1, r2
    adcs    r0, r3
    accumulate
.endm

// Column k of a product has the words i and k - i of the factors, from this i on
.macro first_of_column
    .if k > 7
    .set i, k - 7
    .else
    .set i, 0
    .endif
.endm

// void p256_mul(uint32_t x[16], const uint32_t a[8], const uint32_t b[8]): x = a * b
// x may lie where a or b does.
function p256_mul
    push    {r0, r4-r7, lr}
    sub     sp, #64
    mov     r0, sp
    copy8   r1
    copy8   r2
    movs    r5, #0
    movs    r6, #0
    movs    r7, #0
    .set k, 0
    .rept 15
        first_of_column
        .rept 8
        .if i <= k && i <= 7
            ldr     r0, [sp, #4 * i]
            ldr     r1, [sp, #32 + 4 * (k - i)]
            add_product
        .endif
        .set i, i + 1
        .endr
        ldr     r0, [sp, #64]
        str     r5, [r0, #4 * k]
        movs    r5, r6
        movs    r6, r7
        movs    r7, #0
        .set k, k + 1
    .endr
    str     r5, [r0, #60]
    clear   16
    add     sp, #4
    pop     {r4-r7, pc}
end p256_mul

// void p256_sqr(uint32_t x[16], const uint32_t a[8]): x = a * a
// x may lie where a does.
function p256_sqr
    push    {r0, r4-r7, lr}
    mov     r4, r8
    mov     r5, r9
    push    {r4, r5}
    sub     sp, #32
    mov     r0, sp
    copy8   r1
    movs    r0, #0
    mov     r8, r0
    mov     r9, r0
    .set k, 0
    .rept 15
        // r7:r6:r5 = the products of two different words, twice; r9:r8 comes from the column before
        movs    r5, #0
        movs    r6, #0
        movs    r7, #0
        first_of_column
        .rept 4
        .if 2 * i < k
            ldr     r0, [sp, #4 * i]
            ldr     r1, [sp, #4 * (k - i)]
            add_product
        .endif
        .set i, i + 1
        .endr
        .if k > 0 && k < 14
        adds    r5, r5
        adcs    r6, r6
        adcs    r7, r7
        .endif
        .if k % 2 == 0
        ldr     r0, [sp, #2 * k]
        add_square
        .endif
        mov     r1, r8
        mov     r0, r9
        accumulate
        ldr     r0, [sp, #40]
        str     r5, [r0, #4 * k]
        mov     r8, r6
        mov     r9, r7
        .set k, k + 1
    .endr
    mov     r5, r8
    str     r5, [r0, #60]
    clear   8
    pop     {r4, r5}
    mov     r8, r4
    mov     r9, r5
    add     sp, #4
    pop     {r4-r7, pc}
end p256_sqr

// r4:r3 (signed) += or -= a word of r0's. Changes r2; r5 is 0.
.macro plus word
    ldr     r2, [r0, #4 * \word]
    adds    r3, r2
    adcs    r4, r5
.endm

.macro minus word
    ldr     r2, [r0, #4 * \word]
    subs    r3, r2
    sbcs    r4, r5
.endm

// The sum is complete: it is word \k of the result, and its upper half goes on.
.macro next k
    str     r3, [r0, #4 * \k]
    movs    r3, r4
    asrs    r4, #31
.endm

// r4:r3 += (or -=) r6 times what c = 2^256 - p = 2^224 - 2^192 - 2^96 + 1 has in column \k.
.macro fold k, add=adds, with_carry=adcs, subtract=subs, with_borrow=sbcs
    .if \k == 0 || \k == 7
    \add    r3, r6
    \with_carry r4, r5
    .elseif \k == 3 || \k == 6
    \subtract r3, r6
    \with_borrow r4, r5
    .endif
.endm

.macro fold_back k
    fold    \k, subs, sbcs, adds, adcs
.endm

// Word \k, and those of the upper half that NIST's sum has in its column
.macro column k, added, subtracted
    plus    \k
    fold_back \k
    .irp word, \added
    plus    \word
    .endr
    .irp word, \subtracted
    minus   \word
    .endr
    next    \k
.endm

// x += \register in column \k, with the carry of the one before
.macro add_to k, register
    ldr     r2, [r0, #4 * \k]
    adcs    r2, \register
    str     r2, [r0, #4 * \k]
.endm

// void p256_reduce(uint32_t x[16]): the lower half of x becomes x modulo p, where
// p = 2^256 - 2^224 + 2^192 + 2^96 - 1; the upper half stays
//
// The columns are those of FIPS 186-4, D.2.3. With 5 * p = 5 * 2^256 - 5 * c more, so that it is
// never negative, their sum is t * 2^256 + y, where 0 <= t < 12. Modulo p that is y + t * c, which
// is less than 2 * p. So y + t * c - p = y + (t + 1) * c - 2^256 is the result, or is p less.
function p256_reduce
    push    {r4-r7, lr}
    movs    r3, #0
    movs    r4, #0
    movs    r5, #0
    movs    r6, #5
    column  0, "8, 9", "11, 12, 13, 14"
    column  1, "9, 10", "12, 13, 14, 15"
    column  2, "10, 11", "13, 14, 15"
    column  3, "11, 11, 12, 12, 13", "15, 8, 9"
    column  4, "12, 12, 13, 13, 14", "9, 10"
    column  5, "13, 13, 14, 14, 15", "10, 11"
    column  6, "14, 14, 14, 15, 15, 13", "8, 9"
    column  7, "15, 15, 15, 8", "10, 11, 12, 13"
    adds    r3, #6 // t + 1
    movs    r6, r3
    movs    r3, #0
    movs    r4, #0
    .irp k, 0, 1, 2, 3, 4, 5, 6, 7
    plus    \k
    fold    \k
    next    \k
    .endr
    // r3 is 1, or 0 where p has to be added
    subs    r6, r3, #1
    lsrs    r7, r6, #31
    ldr     r2, [r0, #0]
    adds    r2, r6
    str     r2, [r0, #0]
    add_to  1, r6
    add_to  2, r6
    add_to  3, r5
    add_to  4, r5
    add_to  5, r5
    add_to  6, r7
    add_to  7, r6
    pop     {r4-r7, pc}
end p256_reduce
