# An RP2040 with 2 MB of flash, as on the Pico W, whose network is Wi-Fi, or PPP over a UART.

set(PICO_BOARD "pico")
set(PICO_PLATFORM "rp2040")
set(MICROPY_PY_LWIP ON)

# What the Wi-Fi boards set
list(APPEND MICROPY_DEF_BOARD MICROPY_PY_SOCKET_DEFAULT_TIMEOUT_MS=30000)
list(APPEND MICROPY_DEF_BOARD MICROPY_PY_NETWORK_CYW43=1)

# The Wi-Fi driver's stand-in. Its headers come before those of a driver that MicroPython's tree
# may have; MICROPY_PY_NETWORK_CYW43 for CMake would want that one.
include_directories(${MICROPY_BOARD_DIR})
list(APPEND MICROPY_SOURCE_BOARD ${MICROPY_BOARD_DIR}/lib/cyw43-driver/src/cyw43.c)

# No real Wi-Fi driver and no Bluetooth take their share of the memory here: leave MicroPython the
# 190 KB of heap that it has on a Pico W. (The linker evaluates this: what the C heap gets is kept
# from MicroPython's, and nothing uses it.) With a C heap that is used, a block of about that size
# is kept from both.
if(USER_C_MODULES)
    list(APPEND MICROPY_SOURCE_BOARD ${MICROPY_BOARD_DIR}/radio.c)
    add_link_options(LINKER:--undefined=radio)
else()
    set(MICROPY_C_HEAP_SIZE "0x20040000-__bss_end__-190*1024")
endif()

# The SDK from 2.2.0 on has a folder of headers that MicroPython 1.26 does not know
list(APPEND MICROPY_CPP_INC_EXTRA
    ${MICROPY_DIR}/lib/pico-sdk/src/rp2_common/pico_platform_common/include)

# One file in six has no code for this board, but each would cost a compiler's start. (Were
# one of them wanted after all, the linker would say so.)
set(lib ${MICROPY_DIR}/lib)
set(mbedtls ${lib}/mbedtls/library)
set(ppp ${lib}/lwip/src/netif/ppp)
file(GLOB empty
    ${MICROPY_DIR}/extmod/*bluetooth*.c
    ${MICROPY_DIR}/extmod/vfs_posix*.c
    ${MICROPY_DIR}/py/asm[!bt]*.c
    ${MICROPY_DIR}/py/emitinline[!t]*.c
    ${MICROPY_DIR}/py/emitn[!t]*.c
    ${MICROPY_DIR}/py/nlr[!.t]*.c
    ${lib}/tinyusb/src/class/[!c]*/*.c
    ${mbedtls}/aria.c ${mbedtls}/camellia.c ${mbedtls}/ccm.c ${mbedtls}/chacha20.c
    ${mbedtls}/chachapoly.c ${mbedtls}/cmac.c ${mbedtls}/des.c ${mbedtls}/dhm.c
    ${mbedtls}/ecjpake.c ${mbedtls}/hmac_drbg.c ${mbedtls}/mps_reader.c ${mbedtls}/mps_trace.c
    ${mbedtls}/nist_kw.c ${mbedtls}/pem.c ${mbedtls}/pkcs12.c ${mbedtls}/pkwrite.c
    ${mbedtls}/poly1305.c ${mbedtls}/ripemd160.c ${mbedtls}/ssl_cache.c
    ${mbedtls}/ssl_ticket.c ${mbedtls}/x509_create.c ${mbedtls}/x509_crl.c
    ${mbedtls}/x509_csr.c ${mbedtls}/x509write_crt.c ${mbedtls}/x509write_csr.c
    ${ppp}/ccp.c ${ppp}/chap_ms.c ${ppp}/demand.c ${ppp}/eap.c ${ppp}/ecp.c ${ppp}/mppe.c
    ${ppp}/multilink.c ${ppp}/pppapi.c ${ppp}/pppcrypt.c ${ppp}/pppoe.c ${ppp}/pppol2tp.c
    ${ppp}/vj.c
)
set_source_files_properties(${empty} PROPERTIES HEADER_FILE_ONLY ON)

# The SDK's one file of C++. Without it gcc links instead of g++ (which knows -lm by itself), and
# the C++ library, 300 MB in Debian, is not wanted: MicroPython takes nothing of it.
link_libraries(m)
set_source_files_properties(
    ${lib}/pico-sdk/src/rp2_common/pico_cxx_options/new_delete.cpp
    PROPERTIES HEADER_FILE_ONLY ON LANGUAGE C
)
