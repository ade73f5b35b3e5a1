// Stands in for the driver of a Pico W's Wi-Fi chip, which Debian does not carry: what MicroPython
// wants of it, under the names that it uses. It is written from what the driver was seen to do,
// and from MicroPython's calls; nothing of the driver is in it.
//
// What is here: a station. What is not: an access point, Bluetooth, the LED on the chip.
#ifndef STAND_IN_CYW43_H
#define STAND_IN_CYW43_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cyw43_configport.h"
#include "lwip/dhcp.h"
#include "lwip/netif.h"

enum { CYW43_ITF_STA, CYW43_ITF_AP };

enum { // what status() says
    CYW43_LINK_DOWN = 0,
    CYW43_LINK_JOIN = 1,
    CYW43_LINK_NOIP = 2,
    CYW43_LINK_UP = 3,
    CYW43_LINK_FAIL = -1,
    CYW43_LINK_NONET = -2,
    CYW43_LINK_BADAUTH = -3,
};

// How a network is secured: the version of WPA << 16 | its ciphers
#define CYW43_AUTH_OPEN 0
#define CYW43_AUTH_WPA2_AES_PSK 0x00800004
#define CYW43_AUTH_WPA2_MIXED_PSK 0x00800006
#define CYW43_AUTH_WPA3_SAE_AES_PSK 0x01000004
#define CYW43_AUTH_WPA3_WPA2_AES_PSK 0x01800004

enum { CYW43_NO_POWERSAVE_MODE, CYW43_PM1_POWERSAVE_MODE, CYW43_PM2_POWERSAVE_MODE };

#define CYW43_CHANNEL_NONE 0xffffffff
#define CYW43_TRACE_MAC 1

// Commands of the chip: number << 1 | whether it sets something
#define CYW43_IOCTL_GET_SSID (25 << 1)
#define CYW43_IOCTL_GET_CHANNEL (29 << 1)
#define CYW43_IOCTL_GET_ANTDIV (63 << 1)
#define CYW43_IOCTL_SET_ANTDIV (64 << 1 | 1)
#define CYW43_IOCTL_SET_MONITOR (108 << 1 | 1)
#define CYW43_IOCTL_GET_VAR (262 << 1)
#define CYW43_IOCTL_SET_VAR (263 << 1 | 1)

typedef struct {
    uint8_t bssid[6];
    uint8_t ssid[32];
    uint8_t ssid_len;
    uint8_t auth_mode; // bits: 1 encrypted, 4 WPA2
    uint16_t channel;
    int16_t rssi;
} cyw43_ev_scan_result_t;

typedef int (*cyw43_scan_cb_t)(void *env, const cyw43_ev_scan_result_t *found);

typedef struct {
    uint8_t scan_type;
    uint8_t bssid[6];
    uint32_t ssid_len;
    uint8_t ssid[32];
} cyw43_wifi_scan_options_t;

typedef struct {
    struct netif netif[2];
    struct dhcp dhcp;
    uint8_t mac[6];
    uint32_t trace_flags;

    // The chip
    bool powered;
    int dma[2]; // channels, taken as the driver's bus takes them
    uint8_t sequence; // of the next packet,
    uint8_t credit; // which must not be this one
    bool waits; // for the answer to a command,
    uint16_t request; // which has this id;
    uint8_t *reply; // where it goes
    size_t reply_bytes;

    // The station
    bool station; // it has an interface,
    bool passing; // to which a frame is given
    uint8_t kind; // of the join, and what of it was told
    uint8_t told;
    uint8_t todo; // what events ask for, which needs a command
    uint8_t wanted[36]; // the network: the length of its name (4 bytes), the name
    uint32_t wpa;

    bool scanning;
    cyw43_scan_cb_t on_found;
    void *found_env;

    // Of an access point, which does not come up
    uint8_t ap_ssid[32];
    size_t ap_ssid_len;
    uint32_t ap_auth;
} cyw43_t;

extern cyw43_t cyw43_state;

void cyw43_init(cyw43_t *self);
void cyw43_deinit(cyw43_t *self);
void cyw43_poll(void);

int cyw43_ioctl(cyw43_t *self, uint32_t command, size_t len, uint8_t *buf, uint32_t itf);
int cyw43_send_ethernet(cyw43_t *self, int itf, size_t len, const void *buf, bool is_pbuf);
int cyw43_tcpip_link_status(cyw43_t *self, int itf);

void cyw43_wifi_set_up(cyw43_t *self, int itf, bool up, uint32_t country);
int cyw43_wifi_join(cyw43_t *self, size_t ssid_len, const uint8_t *ssid, size_t key_len,
    const uint8_t *key, uint32_t auth, const uint8_t *bssid, uint32_t channel);
int cyw43_wifi_leave(cyw43_t *self, int itf);
int cyw43_wifi_pm(cyw43_t *self, uint32_t pm);
int cyw43_wifi_get_pm(cyw43_t *self, uint32_t *pm);
int cyw43_wifi_get_rssi(cyw43_t *self, int32_t *rssi);
int cyw43_wifi_get_mac(cyw43_t *self, int itf, uint8_t mac[6]);
int cyw43_wifi_scan(cyw43_t *self, cyw43_wifi_scan_options_t *options, void *env,
    int (*on_found)(void *env, const cyw43_ev_scan_result_t *found));

static inline bool cyw43_wifi_scan_active(cyw43_t *self) {
    return self->scanning;
}

void cyw43_wifi_ap_set_ssid(cyw43_t *self, size_t len, const uint8_t *ssid);
void cyw43_wifi_ap_get_stas(cyw43_t *self, int *count, uint8_t *macs);

static inline void cyw43_wifi_ap_get_ssid(cyw43_t *self, size_t *len, const uint8_t **ssid) {
    *len = self->ap_ssid_len;
    *ssid = self->ap_ssid;
}

static inline void cyw43_wifi_ap_set_auth(cyw43_t *self, uint32_t auth) {
    self->ap_auth = auth;
}

static inline uint32_t cyw43_wifi_ap_get_auth(cyw43_t *self) {
    return self->ap_auth;
}

static inline void cyw43_wifi_ap_set_password(cyw43_t *self, size_t len, const uint8_t *key) {
}

static inline void cyw43_wifi_ap_set_channel(cyw43_t *self, uint32_t channel) {
}

#endif
