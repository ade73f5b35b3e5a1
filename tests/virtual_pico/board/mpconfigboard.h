#define MICROPY_HW_BOARD_NAME                   "Virtual Pico"

// As on the Pico W
#define MICROPY_HW_FLASH_STORAGE_BYTES          (848 * 1024)

#define MICROPY_PY_NETWORK                      1
#define MICROPY_PY_NETWORK_HOSTNAME_DEFAULT     "VirtualPico"
#define MICROPY_PY_NETWORK_PPP_LWIP             1
