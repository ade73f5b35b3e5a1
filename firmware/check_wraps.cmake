# Fail unless each function of WRAPS (a list) is wrapped in FIRMWARE (an .elf). NM: the program nm.

execute_process(COMMAND ${NM} ${FIRMWARE} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
foreach(name ${WRAPS})
    if(NOT symbols MATCHES " __wrap_${name}\n")
        message(FATAL_ERROR "tls_steps does not work with this MicroPython: nothing calls ${name}")
    endif()
endforeach()
