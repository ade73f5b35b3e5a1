#define MICROPY_HW_BOARD_NAME                   "Virtual Pico"

// As on the Pico W
#define MICROPY_HW_FLASH_STORAGE_BYTES          (848 * 1024)

#define MICROPY_PY_NETWORK                      1
#define MICROPY_PY_NETWORK_HOSTNAME_DEFAULT     "VirtualPico"
#define MICROPY_PY_NETWORK_PPP_LWIP             1

// The Wi-Fi chip: its interrupt, which a soft reset leaves as it is
#define CYW43_PIN_WL_DYNAMIC                    0
#define CYW43_DEFAULT_PIN_WL_HOST_WAKE          24
int mp_hal_is_pin_reserved(int pin);
#define MICROPY_HW_PIN_RESERVED(pin)            mp_hal_is_pin_reserved(pin)
