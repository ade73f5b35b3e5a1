// Sessions of TLS that are resumed: what tls_steps.c asks of tls_sessions.c

#include "mbedtls/ssl.h"

// What is known of a connection, in its user data; at first nothing. The upper bits are the time at
// which the first of the certificates that were verified expires, in seconds since 1970.
enum {
    WAITED = 1,  // its socket had nothing for it, and did not wait: it does not block
    RAISED = 2,  // a callback raised: mbedTLS must not go on with it
    OFFERED = 4, // a session was offered to the broker
    KNOWN = 15,  // all of these bits
};

// Of the handshake `ssl` a call of mbedTLS begins; or none any more, NULL
void tls_sessions_begin(mbedtls_ssl_context *ssl);
// A call of its has returned `ret`
void tls_sessions_end(mbedtls_ssl_context *ssl, int ret);

extern const mp_obj_fun_builtin_fixed_t tls_sessions_resume_obj, tls_sessions_info_obj;
