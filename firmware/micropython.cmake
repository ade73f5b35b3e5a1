# What MicroPython's build reads: make -C ports/rp2 USER_C_MODULES=/path/of/this/folder
# (docs/firmware.md). All that it takes is here: MicroPython's sources stay as they are.

if(NOT DEFINED MICROPY_C_HEAP_SIZE)
    message(FATAL_ERROR "tls_steps is for MicroPython's rp2 port: a Pico W, a Pico 2 W")
endif()

# Bytes of memory for TLS, taken from MicroPython's heap: the one number to choose (docs/size.md),
# on cmake's command line. A board that has a C heap of its own has a smaller one.
if(NOT "$CACHE{MICROPY_C_HEAP_SIZE}")
    set(MICROPY_C_HEAP_SIZE 49152)
endif()

add_library(usermod_tls_steps INTERFACE)
set(TLS_STEPS_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/tls_steps.c ${CMAKE_CURRENT_LIST_DIR}/tls_sessions.c)
target_sources(usermod_tls_steps INTERFACE ${TLS_STEPS_SOURCES})
# of these files alone: they look into a handshake, which is private
set_source_files_properties(${TLS_STEPS_SOURCES} PROPERTIES INCLUDE_DIRECTORIES ${MICROPY_DIR}/lib/mbedtls/library)
target_compile_definitions(usermod_tls_steps INTERFACE
    MBEDTLS_USER_CONFIG_FILE="${CMAKE_CURRENT_LIST_DIR}/mbedtls_config.h"
    PICO_MALLOC_PANIC=0 # where the C heap is empty calloc says so; the board does not stop
)
# What a handshake does most of its time is compiled for speed
foreach(name bignum bignum_core constant_time ecp ecp_curves)
    set_source_files_properties(${MICROPY_DIR}/lib/mbedtls/library/${name}.c
        PROPERTIES COMPILE_OPTIONS -O2)
endforeach()
set(TLS_STEPS_WRAPS
    mbedtls_ssl_handshake mbedtls_ssl_conf_verify
    mbedtls_ssl_handshake_client_step mbedtls_pk_verify_ext
    mbedtls_ssl_set_hostname mbedtls_x509_crt_verify_restartable
)

# Arithmetic of P-256 for the RP2040, 7 KB of flash; -DTLS_STEPS_P256=OFF leaves it out. The core of
# a Pico 2 W has an instruction for what takes 21 here, and mbedTLS knows it.
option(TLS_STEPS_P256 "arithmetic of P-256 for an RP2040" ON)
if(TLS_STEPS_P256 AND PICO_PLATFORM STREQUAL "rp2040")
    set(TLS_STEPS_P256_C ${CMAKE_CURRENT_LIST_DIR}/p256.c)
    target_sources(usermod_tls_steps INTERFACE
        ${TLS_STEPS_P256_C} ${CMAKE_CURRENT_LIST_DIR}/p256_armv6m.S)
    set_source_files_properties(${TLS_STEPS_P256_C} PROPERTIES COMPILE_OPTIONS -O2)
    list(APPEND TLS_STEPS_WRAPS mbedtls_mpi_mul_mpi mbedtls_ecp_group_load)
    # what an elliptic curve inverts with changed in mbedTLS 3.6.5
    file(READ ${MICROPY_DIR}/lib/mbedtls/library/ecp.c ecp)
    if(ecp MATCHES "mbedtls_mpi_gcd_modinv_odd")
        list(APPEND TLS_STEPS_WRAPS mbedtls_mpi_gcd_modinv_odd)
        set_source_files_properties(${TLS_STEPS_P256_C}
            PROPERTIES COMPILE_DEFINITIONS P256_INVERTS_WITH_GCD)
    else()
        list(APPEND TLS_STEPS_WRAPS mbedtls_mpi_inv_mod)
    endif()
endif()
foreach(name ${TLS_STEPS_WRAPS})
    target_link_options(usermod_tls_steps INTERFACE LINKER:--wrap=${name})
endforeach()
target_link_libraries(usermod INTERFACE usermod_tls_steps)

# The linker drops what nobody calls. So a wrap that is not in the firmware binds to nothing: a
# newer MicroPython works in another way there.
set(TLS_STEPS_CHECK ${CMAKE_CURRENT_LIST_DIR}/check_wraps.cmake)
function(tls_steps_check)
    add_custom_command(TARGET ${MICROPY_TARGET} POST_BUILD
        COMMAND ${CMAKE_COMMAND} "-DNM=${CMAKE_NM}" "-DFIRMWARE=$<TARGET_FILE:${MICROPY_TARGET}>"
            "-DWRAPS=${TLS_STEPS_WRAPS}" -P ${TLS_STEPS_CHECK}
        VERBATIM
    )
endfunction()
cmake_language(DEFER CALL tls_steps_check)
