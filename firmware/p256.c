/*
 * Arithmetic of P-256 on an RP2040: what mbedTLS's elliptic curves do most of their time.
 *
 * mbedTLS's own works for each curve and each length. Here are the product, the square, the
 * reduction (p256_armv6m.S) and the inversion modulo p, each in constant time. They are linked in
 * the place of mbedTLS's, which still does what is not of P-256; the curve itself stays mbedTLS's,
 * as do its steps.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MBEDTLS_ALLOW_PRIVATE_ACCESS
#include "mbedtls/bignum.h"
#include "mbedtls/ecp.h"
#include "mbedtls/platform_util.h"

#define WORDS (8)

typedef uint32_t number[WORDS];
typedef uint32_t product[2 * WORDS];

// p256_armv6m.S
void p256_mul(product x, const number a, const number b);
void p256_sqr(product x, const number a);
void p256_reduce(product x);

static const number p = {
    0xffffffff, 0xffffffff, 0xffffffff, 0, 0, 0, 1, 0xffffffff,
};

// Whether `n` is a number of the size of P-256's, not negative
static bool is_number(const mbedtls_mpi *n) {
    uint32_t more = n->s < 0;
    for (size_t i = WORDS; i < n->n; i++) {
        more |= n->p[i];
    }
    return n->n >= WORDS && more == 0;
}

// `x` has `words` words: what is above becomes 0
static void set_words(mbedtls_mpi *x, size_t words) {
    for (size_t i = words; i < x->n; i++) {
        x->p[i] = 0;
    }
    x->s = 1;
}

// Products

int __real_mbedtls_mpi_mul_mpi(mbedtls_mpi *x, const mbedtls_mpi *a, const mbedtls_mpi *b);

int __wrap_mbedtls_mpi_mul_mpi(mbedtls_mpi *x, const mbedtls_mpi *a, const mbedtls_mpi *b) {
    if (!is_number(a) || !is_number(b)) {
        return __real_mbedtls_mpi_mul_mpi(x, a, b);
    }
    int ret = mbedtls_mpi_grow(x, 2 * WORDS);
    if (ret != 0) {
        return ret;
    }
    if (a == b) {
        p256_sqr(x->p, a->p);
    } else {
        p256_mul(x->p, a->p, b->p);
    }
    set_words(x, 2 * WORDS);
    return 0;
}

// Reduction. mbedTLS has seen to it that `n` is not negative and has 512 bits at most.

static int modulo_p(mbedtls_mpi *n) {
    int ret = mbedtls_mpi_grow(n, 2 * WORDS);
    if (ret == 0) {
        p256_reduce(n->p);
        set_words(n, WORDS);
    }
    return ret;
}

int __real_mbedtls_ecp_group_load(mbedtls_ecp_group *group, mbedtls_ecp_group_id id);

int __wrap_mbedtls_ecp_group_load(mbedtls_ecp_group *group, mbedtls_ecp_group_id id) {
    int ret = __real_mbedtls_ecp_group_load(group, id);
    if (ret == 0 && id == MBEDTLS_ECP_DP_SECP256R1) {
        group->modp = modulo_p;
    }
    return ret;
}

// Inversion: 1 / a modulo p is a^(p - 2), by Fermat's little theorem

// x = a^(2^count) * b
static void square_and_multiply(number x, const number a, int count, const number b) {
    product wide;
    p256_sqr(wide, a);
    p256_reduce(wide);
    while (--count > 0) {
        p256_sqr(wide, wide);
        p256_reduce(wide);
    }
    p256_mul(wide, wide, b);
    p256_reduce(wide);
    memcpy(x, wide, sizeof(number));
    mbedtls_platform_zeroize(wide, sizeof wide);
}

// x = 1 / a; x may be where a is
static void invert(number x, const number a) {
    number ones[6], t; // ones[i] = a^(2^2^i - 1): its exponent is 2^i ones in binary
    memcpy(ones[0], a, sizeof(number));
    for (int i = 0; i < 5; i++) {
        square_and_multiply(ones[i + 1], ones[i], 1 << i, ones[i]);
    }
    // p - 2 in words is ffffffff 00000001 00000000 00000000 00000000 ffffffff ffffffff fffffffd
    square_and_multiply(t, ones[5], 32, a);
    square_and_multiply(t, t, 128, ones[5]);
    square_and_multiply(t, t, 32, ones[5]);
    for (int i = 4; i > 0; i--) {
        square_and_multiply(t, t, 1 << i, ones[i]);
    }
    square_and_multiply(x, t, 2, a);
    mbedtls_platform_zeroize(ones, sizeof ones);
    mbedtls_platform_zeroize(t, sizeof t);
}

// Whether n is p, and 0 < a < p
static bool is_of_field(const mbedtls_mpi *a, const mbedtls_mpi *n) {
    if (!is_number(a) || !is_number(n) || memcmp(n->p, p, sizeof p) != 0) {
        return false;
    }
    uint32_t any = 0, borrow = 0;
    for (int i = 0; i < WORDS; i++) {
        any |= a->p[i];
        borrow = ((uint64_t)a->p[i] - p[i] - borrow) >> 63;
    }
    return any != 0 && borrow != 0;
}

static int set_inverse(mbedtls_mpi *x, const mbedtls_mpi *a) {
    int ret = mbedtls_mpi_grow(x, WORDS);
    if (ret == 0) {
        invert(x->p, a->p);
        set_words(x, WORDS);
    }
    return ret;
}

#if defined(P256_INVERTS_WITH_GCD) // see micropython.cmake

int __real_mbedtls_mpi_gcd_modinv_odd(mbedtls_mpi *gcd, mbedtls_mpi *x, const mbedtls_mpi *a, const mbedtls_mpi *n);

int __wrap_mbedtls_mpi_gcd_modinv_odd(mbedtls_mpi *gcd, mbedtls_mpi *x, const mbedtls_mpi *a, const mbedtls_mpi *n) {
    if (gcd == NULL && x != NULL && is_of_field(a, n)) {
        return set_inverse(x, a);
    }
    return __real_mbedtls_mpi_gcd_modinv_odd(gcd, x, a, n);
}

#else

int __real_mbedtls_mpi_inv_mod(mbedtls_mpi *x, const mbedtls_mpi *a, const mbedtls_mpi *n);

int __wrap_mbedtls_mpi_inv_mod(mbedtls_mpi *x, const mbedtls_mpi *a, const mbedtls_mpi *n) {
    return is_of_field(a, n) ? set_inverse(x, a) : __real_mbedtls_mpi_inv_mod(x, a, n);
}

#endif
