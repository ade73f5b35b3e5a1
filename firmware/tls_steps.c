/*
 * tls_steps: a TLS handshake in short steps, and memory of its own for TLS.
 *
 * Steps. Where a socket does not block, mbedTLS interrupts its elliptic curves after so many
 * operations, and goes on at the next read or write: asyncio's other tasks have their turns. A
 * socket that blocks has its handshake at once, as ever.
 *
 * Memory. mbedTLS takes it from the C heap. What does not fit there comes from MicroPython's heap,
 * as it does without this module.
 *
 * Not for TLS on both cores at once: how many operations a step has is one variable of mbedTLS.
 */
#include <malloc.h>
#include <stdlib.h>

#include "py/gc.h"
#include "py/objtuple.h"
#include "py/runtime.h"

#define MBEDTLS_ALLOW_PRIVATE_ACCESS // to where a handshake is
#include "mbedtls/ecp.h"
#include "mbedtls/platform.h"
#include "mbedtls/ssl.h"
#if !defined(NO_QSTR)
#include "ssl_misc.h"
#endif
#include "tls_sessions.h"

#if !defined(NO_QSTR) && !(defined(MBEDTLS_ECP_RESTARTABLE) && defined(MBEDTLS_PLATFORM_MEMORY))
#error "tls_steps: micropython.cmake beside this file defines what is missing here"
#endif

// Of an RP2040 at 125 MHz a step with P-256 takes 25 ms
#define OPERATIONS (250)
// A connection's two buffers are larger than this, all else that it takes is smaller
#define BUFFER_BYTES (4096)

// What a verify_callback raises would jump over what mbedTLS has to give back: it waits until
// mbedTLS has returned.

typedef int verify_t(void *context, mbedtls_x509_crt *certificate, int depth, uint32_t *flags);

static verify_t *verify; // MicroPython's, which calls the callback
MP_REGISTER_ROOT_POINTER(mp_obj_t tls_steps_raised);

static int verify_and_return(void *context, mbedtls_x509_crt *certificate, int depth, uint32_t *flags) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        int ret = verify(context, certificate, depth, flags);
        nlr_pop();
        return ret;
    }
    MP_STATE_VM(tls_steps_raised) = MP_OBJ_FROM_PTR(nlr.ret_val);
    return MBEDTLS_ERR_X509_FATAL_ERROR;
}

void __real_mbedtls_ssl_conf_verify(mbedtls_ssl_config *conf, verify_t *function, void *context);

void __wrap_mbedtls_ssl_conf_verify(mbedtls_ssl_config *conf, verify_t *micropythons, void *context) {
    verify = micropythons;
    __real_mbedtls_ssl_conf_verify(conf, verify_and_return, context);
}

// Steps

static unsigned operations = OPERATIONS;
static mbedtls_ssl_context *in_step; // the handshake of which a step is under way, or NULL
static unsigned heavy;               // what took long in this step

int __real_mbedtls_ssl_handshake(mbedtls_ssl_context *ssl);

// All of MicroPython's handshakes come here: those of wrap_socket, and those in a read or write.
int __wrap_mbedtls_ssl_handshake(mbedtls_ssl_context *ssl) {
    uintptr_t known = mbedtls_ssl_get_user_data_n(ssl);
    if (known & RAISED) {
        return MBEDTLS_ERR_X509_FATAL_ERROR;
    }
    bool stream = ssl->conf->transport == MBEDTLS_SSL_TRANSPORT_STREAM;
    in_step = known & WAITED && operations != 0 && stream ? ssl : NULL;
    heavy = 0;
    mbedtls_ecp_set_max_ops(in_step ? operations : 0);
    tls_sessions_begin(ssl);
    int ret = __real_mbedtls_ssl_handshake(ssl);
    tls_sessions_end(ssl, ret);
    in_step = NULL;
    mp_obj_t raised = MP_STATE_VM(tls_steps_raised);
    if (raised != MP_OBJ_NULL) {
        MP_STATE_VM(tls_steps_raised) = MP_OBJ_NULL;
        mbedtls_ssl_set_user_data_n(ssl, RAISED);
        nlr_raise(raised);
    }
    if (ret == MBEDTLS_ERR_SSL_CRYPTO_IN_PROGRESS) {
        return MBEDTLS_ERR_SSL_WANT_WRITE; // a socket can nearly always be written to: at once
    }
    if (ret == MBEDTLS_ERR_SSL_WANT_READ || ret == MBEDTLS_ERR_SSL_WANT_WRITE) {
        mbedtls_ssl_set_user_data_n(ssl, mbedtls_ssl_get_user_data_n(ssl) | WAITED);
    }
    return ret;
}

// mbedTLS interrupts itself only where the broker's key is of an elliptic curve. With RSA keys the
// curves of the key exchange are interrupted, too, and each of the messages that take long has a
// step of its own.
int __real_mbedtls_ssl_handshake_client_step(mbedtls_ssl_context *ssl);

int __wrap_mbedtls_ssl_handshake_client_step(mbedtls_ssl_context *ssl) {
    if (ssl == in_step) {
        switch (ssl->state) {
            case MBEDTLS_SSL_SERVER_CERTIFICATE:
                ssl->handshake->ecrs_enabled = 1;
                break;
            case MBEDTLS_SSL_SERVER_KEY_EXCHANGE:
            case MBEDTLS_SSL_CLIENT_KEY_EXCHANGE:
            case MBEDTLS_SSL_CERTIFICATE_VERIFY:
                if (heavy++ != 0) {
                    return MBEDTLS_ERR_SSL_CRYPTO_IN_PROGRESS;
                }
        }
    }
    return __real_mbedtls_ssl_handshake_client_step(ssl);
}

// A signature of RSA in the broker's chain: one a step
int __real_mbedtls_pk_verify_ext(mbedtls_pk_type_t type, const void *options, mbedtls_pk_context *key,
    mbedtls_md_type_t digest, const unsigned char *hash, size_t hash_len,
    const unsigned char *signature, size_t signature_len);

int __wrap_mbedtls_pk_verify_ext(mbedtls_pk_type_t type, const void *options, mbedtls_pk_context *key,
    mbedtls_md_type_t digest, const unsigned char *hash, size_t hash_len,
    const unsigned char *signature, size_t signature_len) {
    if (in_step != NULL && in_step->state == MBEDTLS_SSL_SERVER_CERTIFICATE && heavy++ != 0) {
        return MBEDTLS_ERR_ECP_IN_PROGRESS;
    }
    return __real_mbedtls_pk_verify_ext(type, options, key, digest, hash, hash_len, signature, signature_len);
}

// Memory

extern char __bss_end__, __StackLimit; // the C heap is between them

static size_t used, peak, missed;
static bool collected;

static void *take(size_t count, size_t size) {
    bool is_buffer = count >= BUFFER_BYTES || size >= BUFFER_BYTES;
    if (is_buffer) {
        collected = false; // a new connection begins
    }
    void *block = calloc(count, size);
    if (block == NULL && !collected && MP_STATE_MEM(gc_auto_collect_enabled) && !gc_is_locked()) {
        // Connections that nobody has any more hold memory that MicroPython does not see. Looking
        // for them takes its time: for each buffer, and once for all else of a connection
        gc_collect();
        collected = !is_buffer;
        block = calloc(count, size);
    }
    if (block == NULL) {
        missed++;
        return m_tracked_calloc(count, size);
    }
    used += malloc_usable_size(block);
    peak = MAX(peak, used);
    return block;
}

static void give_back(void *block) {
    if ((char *)block < &__bss_end__ || (char *)block >= &__StackLimit) {
        m_tracked_free(block);
        return;
    }
    used -= malloc_usable_size(block);
    free(block);
}

// Before main()
static void __attribute__((constructor)) begin(void) {
    mbedtls_platform_set_calloc_free(take, give_back);
}

// The module

static mp_obj_t info(void) {
    static const qstr names[] = {
        MP_QSTR_operations, MP_QSTR_heap_bytes, MP_QSTR_used_bytes, MP_QSTR_peak_bytes, MP_QSTR_missed,
    };
    mp_obj_t values[] = {
        MP_OBJ_NEW_SMALL_INT(operations), MP_OBJ_NEW_SMALL_INT(&__StackLimit - &__bss_end__),
        MP_OBJ_NEW_SMALL_INT(used), MP_OBJ_NEW_SMALL_INT(peak), MP_OBJ_NEW_SMALL_INT(missed),
    };
    return mp_obj_new_attrtuple(names, MP_ARRAY_SIZE(values), values);
}
static MP_DEFINE_CONST_FUN_OBJ_0(info_obj, info);

static mp_obj_t set_operations(mp_obj_t count) {
    mp_int_t wanted = mp_obj_get_int(count);
    if (wanted < 0) {
        mp_raise_ValueError(MP_ERROR_TEXT("operations: 0 (a handshake at once) or more"));
    }
    operations = wanted;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(set_operations_obj, set_operations);

static const mp_rom_map_elem_t globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_tls_steps) },
    { MP_ROM_QSTR(MP_QSTR_info), MP_ROM_PTR(&info_obj) },
    { MP_ROM_QSTR(MP_QSTR_operations), MP_ROM_PTR(&set_operations_obj) },
    { MP_ROM_QSTR(MP_QSTR_resume), MP_ROM_PTR(&tls_sessions_resume_obj) },
    { MP_ROM_QSTR(MP_QSTR_sessions), MP_ROM_PTR(&tls_sessions_info_obj) },
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t tls_steps_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&globals,
};
MP_REGISTER_MODULE(MP_QSTR_tls_steps, tls_steps_module);
