/*
 * A broker that was verified in full resumes its session (TLS 1.2): no certificates, no elliptic
 * curves, 0.1 s. Off until tls_steps.resume(seconds).
 *
 * There is one session, in memory that a reset keeps, not a power cut. It is offered where host
 * name, CAs and own certificate are those that it was made with, with or without a callback of the
 * app that saw the certificates, where the clock is between the time of
 * the full handshake and its end (`seconds` later, or when a certificate of the chain expires), and
 * where nothing of it was changed. Else, and where the broker does not want it, the handshake is a
 * full one.
 */
#include <string.h>

#include "py/objtuple.h"
#include "py/runtime.h"

#define MBEDTLS_ALLOW_PRIVATE_ACCESS
#include "mbedtls/platform_time.h"
#include "mbedtls/platform_util.h"
#include "mbedtls/sha256.h"
#include "mbedtls/x509_crt.h"
#if !defined(NO_QSTR)
#include "pico/platform.h"
#include "ssl_misc.h"
#include "tls_sessions.h"
#endif

#define SESSION_BYTES (1536) // a ticket of OpenSSL's with the rest takes 735
#define LONGEST_S (24 * 3600)
#define PLAUSIBLE_S (1767225600) // 2026: a clock before that was never set
#define HASH_BYTES (32)

typedef struct {
    uint8_t seal[HASH_BYTES];  // of all that follows: what is in RAM at power-on is no session
    uint8_t host[HASH_BYTES];  // the host name
    uint8_t trust[HASH_BYTES]; // CAs, own certificates, whether a callback saw the broker's
    uint32_t verified;         // seconds since 1970
    uint32_t until;
    uint32_t length; // of data
    uint8_t data[SESSION_BYTES];
} session_t;

static session_t __uninitialized_ram(kept_session);

static uint32_t longest_s; // 0: none is kept, none is offered
static unsigned full, offered, resumed;
static mbedtls_ssl_context *handshake;

static void seal_of(uint8_t seal[HASH_BYTES]) {
    mbedtls_sha256(kept_session.host, offsetof(session_t, data) - HASH_BYTES + kept_session.length, seal, 0);
}

static bool is_kept(void) {
    uint8_t seal[HASH_BYTES];
    if (kept_session.length == 0 || kept_session.length > SESSION_BYTES) {
        return false;
    }
    seal_of(seal);
    return memcmp(seal, kept_session.seal, HASH_BYTES) == 0;
}

static void forget(void) {
    mbedtls_platform_zeroize(&kept_session, sizeof kept_session);
}

static void hash_certificates(mbedtls_sha256_context *sha, const mbedtls_x509_crt *each) {
    uint32_t count = 0;
    for (; each != NULL; each = each->next) {
        uint32_t length = each->raw.len;
        mbedtls_sha256_update(sha, (const uint8_t *)&length, sizeof length);
        mbedtls_sha256_update(sha, each->raw.p, length);
        count++;
    }
    mbedtls_sha256_update(sha, (const uint8_t *)&count, sizeof count);
}

static void describe(const mbedtls_ssl_context *ssl, uint8_t host[HASH_BYTES], uint8_t trust[HASH_BYTES]) {
    mbedtls_sha256((const uint8_t *)ssl->hostname, strlen(ssl->hostname), host, 0);
    mbedtls_sha256_context sha;
    mbedtls_sha256_init(&sha);
    mbedtls_sha256_starts(&sha, 0);
    hash_certificates(&sha, ssl->conf->ca_chain);
    for (const mbedtls_ssl_key_cert *own = ssl->conf->key_cert; own != NULL; own = own->next) {
        hash_certificates(&sha, own->cert);
    }
    bool is_seen = mp_load_attr(MP_OBJ_FROM_PTR(ssl->conf->p_vrfy), MP_QSTR_verify_callback) != mp_const_none;
    mbedtls_sha256_update(&sha, (const uint8_t *)&is_seen, sizeof is_seen);
    mbedtls_sha256_finish(&sha, trust);
    mbedtls_sha256_free(&sha);
}

// Whether a handshake of this kind may leave a session, or resume one
static bool is_verified(const mbedtls_ssl_context *ssl) {
    const mbedtls_ssl_config *conf = ssl->conf;
    return longest_s != 0 && conf->endpoint == MBEDTLS_SSL_IS_CLIENT
        && conf->transport == MBEDTLS_SSL_TRANSPORT_STREAM
        && conf->authmode == MBEDTLS_SSL_VERIFY_REQUIRED && conf->ca_chain != NULL;
}

static uint32_t now(void) {
    return (uint32_t)mbedtls_time(NULL);
}

// Before the handshake

static void offer(mbedtls_ssl_context *ssl) {
    if (!is_kept()) {
        return;
    }
    uint8_t host[HASH_BYTES], trust[HASH_BYTES];
    describe(ssl, host, trust);
    if (memcmp(host, kept_session.host, HASH_BYTES) != 0) {
        return; // another host's
    }
    uint32_t at = now();
    mbedtls_ssl_session session;
    mbedtls_ssl_session_init(&session);
    if (is_verified(ssl) && memcmp(trust, kept_session.trust, HASH_BYTES) == 0
        && at >= PLAUSIBLE_S && at >= kept_session.verified && at < kept_session.until && at - kept_session.verified < longest_s
        && mbedtls_ssl_session_load(&session, kept_session.data, kept_session.length) == 0
        && mbedtls_ssl_set_session(ssl, &session) == 0) {
        offered++;
        mbedtls_ssl_set_user_data_n(ssl, OFFERED);
    } else {
        forget();
    }
    mbedtls_ssl_session_free(&session);
}

int __real_mbedtls_ssl_set_hostname(mbedtls_ssl_context *ssl, const char *name);

// MicroPython calls it once for each connection, when all else is known
int __wrap_mbedtls_ssl_set_hostname(mbedtls_ssl_context *ssl, const char *name) {
    int ret = __real_mbedtls_ssl_set_hostname(ssl, name);
    if (ret == 0 && name != NULL) {
        mbedtls_ssl_conf_session_tickets((mbedtls_ssl_config *)ssl->conf,
            is_verified(ssl) ? MBEDTLS_SSL_SESSION_TICKETS_ENABLED : MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
        offer(ssl);
    }
    return ret;
}

// In a full handshake

static uint32_t seconds(const mbedtls_x509_time *t) {
    // days since 1970 of a date of the Gregorian calendar, whose years begin with March here
    int year = t->year - (t->mon <= 2), month = (t->mon + 9) % 12;
    int64_t days = 365 * (int64_t)year + year / 4 - year / 100 + year / 400
        + (month * 153 + 2) / 5 + t->day - 1 - 719468;
    int64_t all = ((days * 24 + t->hour) * 60 + t->min) * 60 + t->sec;
    return all < 0 ? 0 : all > UINT32_MAX ? UINT32_MAX : all;
}

int __real_mbedtls_x509_crt_verify_restartable(mbedtls_x509_crt *chain, mbedtls_x509_crt *cas,
    mbedtls_x509_crl *crl, const mbedtls_x509_crt_profile *profile, const char *name, uint32_t *flags,
    int (*verify)(void *, mbedtls_x509_crt *, int, uint32_t *), void *context,
    mbedtls_x509_crt_restart_ctx *restart);

int __wrap_mbedtls_x509_crt_verify_restartable(mbedtls_x509_crt *chain, mbedtls_x509_crt *cas,
    mbedtls_x509_crl *crl, const mbedtls_x509_crt_profile *profile, const char *name, uint32_t *flags,
    int (*verify)(void *, mbedtls_x509_crt *, int, uint32_t *), void *context,
    mbedtls_x509_crt_restart_ctx *restart) {
    int ret = __real_mbedtls_x509_crt_verify_restartable(
        chain, cas, crl, profile, name, flags, verify, context, restart);
    if (ret != 0 || *flags != 0 || handshake == NULL || name == NULL) {
        return ret;
    }
    // what the broker sent, and each CA: one that verified nothing may end it early, never late
    uint32_t until = UINT32_MAX;
    for (const mbedtls_x509_crt *each = chain; each != NULL; each = each->next) {
        until = MIN(until, seconds(&each->valid_to));
    }
    for (const mbedtls_x509_crt *each = cas; each != NULL; each = each->next) {
        until = MIN(until, seconds(&each->valid_to));
    }
    uintptr_t known = mbedtls_ssl_get_user_data_n(handshake);
    mbedtls_ssl_set_user_data_n(handshake, (until & ~KNOWN) | (known & KNOWN));
    return ret;
}

// After it

static void keep(mbedtls_ssl_context *ssl, uint32_t until) {
    uint32_t at = now();
    if (until != 0) {
        full++;
        forget();
        if (at < PLAUSIBLE_S) {
            return;
        }
        kept_session.verified = at;
        kept_session.until = until;
    } else {
        resumed++;
        uint8_t host[HASH_BYTES], trust[HASH_BYTES];
        describe(ssl, host, trust);
        if (!is_kept() || memcmp(host, kept_session.host, HASH_BYTES) != 0
            || memcmp(trust, kept_session.trust, HASH_BYTES) != 0) {
            return; // another took its place meanwhile
        }
    }
    // with a new ticket, if there is one
    mbedtls_ssl_session session;
    mbedtls_ssl_session_init(&session);
    size_t length = 0;
    int ret = mbedtls_ssl_get_session(ssl, &session);
    if (ret == 0 && (session.ticket_len != 0 || session.id_len != 0)) {
        ret = mbedtls_ssl_session_save(&session, kept_session.data, SESSION_BYTES, &length);
    }
    mbedtls_ssl_session_free(&session);
    if (ret != 0 || length == 0) {
        forget();
        return;
    }
    kept_session.length = length;
    describe(ssl, kept_session.host, kept_session.trust);
    seal_of(kept_session.seal);
}

void tls_sessions_begin(mbedtls_ssl_context *ssl) {
    handshake = ssl;
}

void tls_sessions_end(mbedtls_ssl_context *ssl, int ret) {
    handshake = NULL;
    uintptr_t known = mbedtls_ssl_get_user_data_n(ssl);
    if (ret == 0) {
        mbedtls_ssl_set_user_data_n(ssl, known & WAITED); // it is done with
        uint32_t until = known & ~KNOWN;
        if (is_verified(ssl) && (until != 0 || known & OFFERED)) {
            keep(ssl, until);
        }
    } else if (known & OFFERED && ret != MBEDTLS_ERR_SSL_WANT_READ && ret != MBEDTLS_ERR_SSL_WANT_WRITE
        && ret != MBEDTLS_ERR_SSL_CRYPTO_IN_PROGRESS) {
        forget(); // perhaps because of it: the next one is full
    }
}

// The module's

static mp_obj_t resume(mp_obj_t seconds_in) {
    mp_int_t wanted = mp_obj_get_int(seconds_in);
    if (wanted < 0 || wanted > LONGEST_S) {
        mp_raise_ValueError(MP_ERROR_TEXT("seconds: 0 (no session is resumed) to 86400"));
    }
    longest_s = wanted;
    if (wanted == 0) {
        forget();
    }
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(tls_sessions_resume_obj, resume);

static mp_obj_t info(void) {
    static const qstr names[] = {
        MP_QSTR_seconds, MP_QSTR_kept, MP_QSTR_full, MP_QSTR_offered, MP_QSTR_resumed,
    };
    mp_obj_t values[] = {
        MP_OBJ_NEW_SMALL_INT(longest_s), mp_obj_new_bool(is_kept()), MP_OBJ_NEW_SMALL_INT(full),
        MP_OBJ_NEW_SMALL_INT(offered), MP_OBJ_NEW_SMALL_INT(resumed),
    };
    return mp_obj_new_attrtuple(names, MP_ARRAY_SIZE(values), values);
}
MP_DEFINE_CONST_FUN_OBJ_0(tls_sessions_info_obj, info);
