// What mbedTLS is built with, besides MicroPython's own settings.

#define MBEDTLS_ECP_RESTARTABLE // elliptic curves can be interrupted

#if !defined(__riscv)
#define MBEDTLS_HAVE_ASM // products of large numbers in assembler
#endif

// A session can be resumed, and none but the one that was verified
#define MBEDTLS_SSL_SESSION_TICKETS
#define MBEDTLS_SSL_EXTENDED_MASTER_SECRET

// Curves that no broker uses, 12 KB: P-256, P-384 and P-521 are left
#undef MBEDTLS_ECP_DP_SECP192R1_ENABLED
#undef MBEDTLS_ECP_DP_SECP224R1_ENABLED
#undef MBEDTLS_ECP_DP_SECP192K1_ENABLED
#undef MBEDTLS_ECP_DP_SECP224K1_ENABLED
#undef MBEDTLS_ECP_DP_SECP256K1_ENABLED
