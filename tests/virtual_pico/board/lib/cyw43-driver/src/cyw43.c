// The stand-in of cyw43.h. Its chip is the emulator's (chip.mjs), the one that a Pico W's firmware
// finds: power on GP23, interrupts on GP24, and the same transfers. But for the bus between them,
// which is a window of registers here (window.mjs): a transfer is one write.

#include <string.h>

#include "lib/cyw43-driver/src/cyw43.h"

#include "hardware/dma.h"
#include "hardware/gpio.h"
#include "hardware/sync.h"
#include "lwip/dns.h"
#include "lwip/ethip6.h"
#include "lwip/etharp.h"
#include "lwip/igmp.h"
#include "lwip/mld6.h"
#include "netif/ethernet.h"

cyw43_t cyw43_state;

// The bus

typedef struct {
    uint32_t out; // address in RAM of what goes to the chip,
    uint32_t out_bytes;
    uint32_t in; // where its answer goes;
    uint32_t in_bytes; // writing this does it all
    uint32_t wait_us; // writing this lets so much time pass
} window_t;

#define WINDOW ((volatile window_t *)0x40070000)

enum { BUS, BACKPLANE, PACKETS }; // functions of the chip
enum { CONTROL = 0x00, INTERRUPT_MASK = 0x06, STATUS = 0x08, TEST = 0x14 }; // registers of BUS
#define PATTERN 0xfeedbead
#define WIDE_WORDS 0x000204b3
#define INTERRUPTS 0x00be
#define READY 0x20 // of STATUS
#define WAITS 0x100
#define WAITS_BYTES(status) ((status) >> 9 & 0x7ff)

#define PLACE 0x1000a // registers of BACKPLANE: which part of it is seen below 0x8000,
#define CLOCK 0x1000e
#define HAS_CLOCK 0x80
#define PART 0x8000
#define RAM_END 0x80000 // addresses on it
#define RESET 0x18103800

#define LONGEST 1600 // bytes of a packet, with its heads

static uint32_t out[1 + LONGEST / 4]; // a command of the bus, and data
static uint32_t in[LONGEST / 4];
#define OUT ((uint8_t *)(out + 1))
#define IN ((uint8_t *)in)

static void pass_us(uint32_t us) {
    for (; us > 1000; us -= 1000) { // interrupts come in between
        WINDOW->wait_us = 1000;
    }
    WINDOW->wait_us = us;
}

// Until it was told otherwise, the chip has words of 16 bits.
static bool wide;

static uint32_t ordered(uint32_t word) {
    return wide ? word : (word & 0xff00ff) << 8 | (word >> 8 & 0xff00ff);
}

static void transfer(bool write, int function, uint32_t address, size_t bytes) {
    size_t whole = (bytes + 3) & ~3;
    out[0] = ordered((uint32_t)write << 31 | 1 << 30 | function << 28 | address << 11 | bytes);
    out[1] = ordered(out[1]);
    __compiler_memory_barrier();
    WINDOW->out = (uint32_t)out;
    WINDOW->out_bytes = 4 + (write ? whole : 0);
    WINDOW->in = (uint32_t)in;
    WINDOW->in_bytes = write ? 0 : whole;
    __compiler_memory_barrier();
    in[0] = ordered(in[0]);
}

static void set(int function, uint32_t address, uint32_t value, size_t bytes) {
    out[1] = value;
    transfer(true, function, address, bytes);
}

static uint32_t get(int function, uint32_t address, size_t bytes) {
    transfer(false, function, address, bytes);
    return in[0];
}

// Write the word `value` to an address on the backplane.
static void set_far(uint32_t address, uint32_t value) {
    for (int byte = 0; byte < 3; byte++) {
        set(BACKPLANE, PLACE + byte, (address & ~(PART - 1)) >> (8 * (byte + 1)) & 0xff, 1);
    }
    set(BACKPLANE, address & (PART - 1), value, 4);
}

static bool comes(int function, uint32_t address, uint32_t bits, uint32_t ms) {
    for (; !(get(function, address, 4) & bits); ms--) {
        if (ms == 0) {
            return false;
        }
        pass_us(1000);
    }
    return true;
}

// Little and big endian

static uint32_t get16(const uint8_t *at) {
    return at[0] | at[1] << 8;
}

static uint32_t get32(const uint8_t *at) {
    return get16(at) | get16(at + 2) << 16;
}

static void put16(uint8_t *at, uint32_t value) {
    at[0] = value;
    at[1] = value >> 8;
}

static void put32(uint8_t *at, uint32_t value) {
    put16(at, value);
    put16(at + 2, value >> 16);
}

static uint32_t get32_big(const uint8_t *at) {
    return at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

// Packets: to the chip they are built in OUT, from it they are in IN.

enum { OF_CONTROL, OF_EVENTS, OF_FRAMES }; // channels
#define HEAD 12
#define CONTROL_HEAD 16
#define FRAME_AT 18 // two bytes that fill up, and a head of 4
#define TIMEOUT_US 1000000
#define BELIEVED 20 // how far on a credit may be

static bool receive(cyw43_t *self);

// Interrupts must not print: they may have met somebody who does.
#define COMPLAIN(...) do { \
        if (__get_current_exception() == 0) { \
            CYW43_PRINTF(__VA_ARGS__); \
        } \
} while (0)

// Receive until `self` may send, or until a second is over.
static int wait_for_credit(cyw43_t *self) {
    uint32_t begin = mp_hal_ticks_us();
    while (self->sequence == self->credit) {
        if (mp_hal_ticks_us() - begin >= TIMEOUT_US) {
            COMPLAIN("STALL(%u): timeout\n", self->sequence);
            return -CYW43_ETIMEDOUT;
        }
        if (!receive(self)) {
            pass_us(100);
        }
    }
    for (int tries = 1000; !(get(BUS, STATUS, 4) & READY); tries--) {
        if (tries == 0) {
            COMPLAIN("F2 not ready\n");
            return -CYW43_EIO;
        }
    }
    return 0;
}

// Send OUT, whose first HEAD bytes are to be filled in.
static void send(cyw43_t *self, int channel, size_t head, size_t bytes) {
    memset(OUT, 0, HEAD);
    put16(OUT, bytes);
    put16(OUT + 2, ~bytes);
    OUT[4] = self->sequence++;
    OUT[5] = channel;
    OUT[7] = head;
    transfer(true, PACKETS, 0, bytes);
}

// Ask `command` (CYW43_IOCTL_…, or as those) of the chip; the answer goes to `data`.
static int ask(cyw43_t *self, uint32_t command, void *data, size_t bytes) {
    if (self->waits || bytes > LONGEST - HEAD - CONTROL_HEAD) {
        return -CYW43_EINVAL; // one at a time: an event in the meantime may have led here
    }
    int error = wait_for_credit(self);
    if (error) {
        return error;
    }
    self->request++;
    uint8_t *head = OUT + HEAD;
    put32(head, command >> 1);
    put32(head + 4, bytes);
    put32(head + 8, self->request << 16 | (command & 1) << 1);
    put32(head + 12, 0);
    memcpy(head + CONTROL_HEAD, data, bytes);
    self->waits = true;
    self->reply = data;
    self->reply_bytes = bytes;
    send(self, OF_CONTROL, HEAD, HEAD + CONTROL_HEAD + bytes);
    uint32_t begin = mp_hal_ticks_us();
    while (self->waits) {
        if (mp_hal_ticks_us() - begin >= TIMEOUT_US) {
            self->waits = false;
            COMPLAIN("do_ioctl(%u, %u, %u): timeout\n", (unsigned)(command & 1),
                (unsigned)command >> 1, (unsigned)bytes);
            return -CYW43_ETIMEDOUT;
        }
        if (!receive(self)) {
            pass_us(100);
        }
    }
    return 0;
}

enum { // commands
    SET_UP = 2 << 1 | 1,
    SET_INFRASTRUCTURE = 20 << 1 | 1,
    SET_AUTHENTICATION = 22 << 1 | 1,
    SET_SSID = 26 << 1 | 1,
    DISASSOCIATE = 52 << 1 | 1,
    GET_POWER_SAVE = 85 << 1,
    SET_POWER_SAVE = 86 << 1 | 1,
    SET_MODE = 110 << 1 | 1,
    GET_RSSI = 127 << 1,
    SET_CIPHERS = 134 << 1 | 1,
    SET_BAND = 142 << 1 | 1,
    SET_WPA = 165 << 1 | 1,
    SET_KEY = 268 << 1 | 1,
};

static void set_number(cyw43_t *self, uint32_t command, uint32_t value) {
    ask(self, command, &value, sizeof(value));
}

// Variables of the chip have names.

static void set_variable(cyw43_t *self, const char *name, const void *value, size_t bytes) {
    uint8_t data[128];
    size_t named = strlen(name) + 1;
    memcpy(data, name, named);
    memcpy(data + named, value, bytes);
    ask(self, CYW43_IOCTL_SET_VAR, data, named + bytes);
}

static void set_variable_number(cyw43_t *self, const char *name, uint32_t value) {
    set_variable(self, name, &value, sizeof(value));
}

// One of the station among the chip's interfaces
static void set_variable_of_station(cyw43_t *self, const char *name, uint32_t value) {
    uint32_t values[] = {0, value};
    set_variable(self, name, values, sizeof(values));
}

static int get_variable(cyw43_t *self, const char *name, void *value, size_t bytes) {
    uint8_t data[128] = {0};
    strcpy((char *)data, name);
    size_t asked = strlen(name) + 1;
    int error = ask(self, CYW43_IOCTL_GET_VAR, data, asked > bytes ? asked : bytes);
    if (!error) {
        memcpy(value, data, bytes);
    }
    return error;
}

static uint32_t get_variable_number(cyw43_t *self, const char *name) {
    uint32_t value = 0;
    get_variable(self, name, &value, sizeof(value));
    return value;
}

// What the chip tells

enum { NO_KIND, ACTIVE, FAILED, NO_NET, BAD_AUTH };
enum { AUTHENTICATED = 1, LINKED = 2, KEYED = 4, ALL = 7 }; // bits of `told`
enum { DO_LEAVE = 1, DO_ASK_FOR_WPA = 2, DO_JOIN = 4 }; // bits of `todo`

enum { // events
    E_SET_SSID = 0,
    E_AUTH = 3,
    E_DEAUTH_IND = 6,
    E_DISASSOC = 11,
    E_LINK = 16,
    E_PRUNE = 23,
    E_PSK_SUP = 46,
    E_ICV_ERROR = 49,
    E_ESCAN_RESULT = 69,
};
#define EVENT_AT 24 // in its frame
#define EVENT_BYTES 48
#define PARTIAL 8 // status of E_ESCAN_RESULT
#define BSS_AT 12 // in the data of that
#define BSS_BYTES 128

static void interface_down(cyw43_t *self) {
    if (self->station) {
        netif_set_link_down(&self->netif[CYW43_ITF_STA]);
    }
}

static void found(cyw43_t *self, uint32_t status, const uint8_t *data, size_t bytes) {
    if (!self->scanning) {
        return;
    }
    if (status != PARTIAL) {
        self->scanning = false;
        return;
    }
    if (bytes < BSS_AT + BSS_BYTES) {
        return;
    }
    const uint8_t *bss = data + BSS_AT;
    cyw43_ev_scan_result_t result = {
        .ssid_len = MIN(bss[18], sizeof(result.ssid)),
        .auth_mode = (bss[16] & 0x10 ? 1 : 0) | (get32(bss + 120) ? 4 : 0),
        .channel = bss[72],
        .rssi = (int16_t)get16(bss + 78),
    };
    memcpy(result.bssid, bss + 8, sizeof(result.bssid));
    memcpy(result.ssid, bss + 19, result.ssid_len);
    self->on_found(self->found_env, &result);
}

static void happened(cyw43_t *self, const uint8_t *frame, size_t bytes) {
    if (bytes < EVENT_AT + EVENT_BYTES) {
        return;
    }
    const uint8_t *event = frame + EVENT_AT;
    bool flag = event[3] & 1;
    uint32_t type = get32_big(event + 4);
    uint32_t status = get32_big(event + 8);
    uint32_t reason = get32_big(event + 12);
    switch (type) {
        case E_SET_SSID:
            if (status) {
                self->kind = status == 3 && reason == 0 ? NO_NET : FAILED;
            }
            break;
        case E_AUTH:
            if (status == 0) {
                self->told |= AUTHENTICATED;
                if (self->kind == BAD_AUTH) {
                    self->kind = ACTIVE;
                }
            } else if (status != 6) {
                self->kind = BAD_AUTH;
            }
            break;
        case E_DEAUTH_IND:
            if (status == 0 && reason == 2) {
                self->todo |= DO_LEAVE;
            }
            break;
        case E_DISASSOC:
            interface_down(self);
            self->kind = NO_KIND;
            self->told = 0;
            break;
        case E_LINK:
            if (status == 0 && flag) {
                self->told |= LINKED;
            } else if (status == 0) {
                interface_down(self);
            }
            break;
        case E_PRUNE:
            if (status == 0 && reason == 8) {
                self->todo |= DO_ASK_FOR_WPA | DO_JOIN;
            }
            break;
        case E_PSK_SUP:
            if (status == 6) {
                self->told |= KEYED;
            } else if ((status == 4 || status == 8 || status == 10) && reason == 15) {
                self->todo |= DO_JOIN;
            } else {
                self->kind = BAD_AUTH;
            }
            break;
        case E_ICV_ERROR:
            self->todo |= DO_JOIN;
            break;
        case E_ESCAN_RESULT:
            found(self, status, event + EVENT_BYTES, bytes - EVENT_AT - EVENT_BYTES);
            break;
    }
    if (self->kind == ACTIVE && self->told == ALL) {
        self->told = 0;
        if (self->station) {
            netif_set_link_up(&self->netif[CYW43_ITF_STA]);
        }
    }
}

static void arrived(cyw43_t *self, const uint8_t *frame, size_t bytes) {
    struct netif *netif = &self->netif[CYW43_ITF_STA];
    // While lwIP deals with a frame, and waits for a credit to answer it, another one is lost: one
    // within the other would take the whole stack.
    if (!self->station || !netif_is_link_up(netif) || self->passing) {
        return;
    }
    struct pbuf *copy = pbuf_alloc(PBUF_RAW, bytes, PBUF_POOL);
    if (copy) {
        pbuf_take(copy, frame, bytes);
        self->passing = true;
        if (netif->input(copy, netif) != ERR_OK) {
            pbuf_free(copy);
        }
        self->passing = false;
    }
}

// Take a packet from the chip, and do what it says; return whether there was one.
static bool receive(cyw43_t *self) {
    uint32_t status = get(BUS, STATUS, 4);
    if (status == 0xffffffff || !(status & WAITS)) {
        return false;
    }
    size_t size = WAITS_BYTES(status);
    if (size < HEAD || size > LONGEST) {
        transfer(false, PACKETS, 0, 4);
        return true;
    }
    transfer(false, PACKETS, 0, size);
    size_t head = IN[7];
    if ((uint8_t)(IN[9] - self->credit) <= BELIEVED) {
        self->credit = IN[9];
    }
    if (get16(IN) != size || head > size) {
        return true;
    }
    const uint8_t *body = IN + head;
    size_t bytes = size - head;
    int channel = IN[5] & 15;
    if (channel == OF_CONTROL) {
        if (bytes >= CONTROL_HEAD && self->waits && get16(body + 10) == self->request) {
            memcpy(self->reply, body + CONTROL_HEAD, MIN(self->reply_bytes, bytes - CONTROL_HEAD));
            self->waits = false;
        }
    } else if (bytes >= 4u + 4 * body[3]) {
        size_t gap = 4 + 4 * body[3];
        (channel == OF_EVENTS ? happened : arrived)(self, body + gap, bytes - gap);
    }
    return true;
}

static void join(cyw43_t *self) {
    uint8_t wanted[sizeof(self->wanted)]; // the answer goes where the question was
    memcpy(wanted, self->wanted, sizeof(wanted));
    ask(self, SET_SSID, wanted, sizeof(wanted));
}

// MicroPython has this called when the chip interrupts.
void cyw43_poll(void) {
    cyw43_t *self = &cyw43_state;
    while (self->powered && (receive(self) || self->todo)) {
        uint8_t todo = self->todo;
        self->todo = 0;
        if (todo & DO_LEAVE) {
            ask(self, DISASSOCIATE, NULL, 0);
        }
        if (todo & DO_ASK_FOR_WPA) {
            set_number(self, SET_WPA, 4);
        }
        if (todo & DO_JOIN) {
            join(self);
        }
    }
    CYW43_POST_POLL_HOOK
}

// The interface in lwIP

int cyw43_send_ethernet(cyw43_t *self, int itf, size_t len, const void *buf, bool is_pbuf) {
    if (!self->powered || itf != CYW43_ITF_STA) {
        return -CYW43_EPERM;
    }
    if (len > LONGEST - FRAME_AT) {
        return -CYW43_EINVAL;
    }
    CYW43_THREAD_ENTER
    int error = wait_for_credit(self);
    if (!error) {
        memset(OUT + HEAD, 0, FRAME_AT - HEAD);
        OUT[FRAME_AT - 4] = 0x20; // the head's version
        if (is_pbuf) {
            pbuf_copy_partial(buf, OUT + FRAME_AT, len, 0);
        } else {
            memcpy(OUT + FRAME_AT, buf, len);
        }
        send(self, OF_FRAMES, FRAME_AT - 4, FRAME_AT + len);
    }
    CYW43_THREAD_EXIT
    return error;
}

static err_t put_frame(struct netif *netif, struct pbuf *frame) {
    int error = cyw43_send_ethernet(netif->state, CYW43_ITF_STA, frame->tot_len, frame, true);
    return error ? ERR_IF : ERR_OK;
}

#define MOST_GROUPS 10

// Have the chip take what goes to the groups whose frames have this address, or no longer.
static void change_groups(cyw43_t *self, const uint8_t address[6], bool listen) {
    struct {
        uint32_t count;
        uint8_t addresses[MOST_GROUPS][6];
    } list;
    if (get_variable(self, "mcast_list", &list, sizeof(list))) {
        return;
    }
    size_t at = 0;
    while (at < MIN(list.count, MOST_GROUPS) && memcmp(list.addresses[at], address, 6)) {
        at++;
    }
    if (listen && at == list.count && at < MOST_GROUPS) {
        memcpy(list.addresses[list.count++], address, 6);
    } else if (!listen && at < list.count) {
        memcpy(list.addresses[at], list.addresses[--list.count], 6);
    }
    set_variable(self, "mcast_list", &list, sizeof(list));
    pass_us(50000);
}

static err_t of_ip4(struct netif *netif, const ip4_addr_t *group,
    enum netif_mac_filter_action what) {
    uint32_t ip = lwip_ntohl(ip4_addr_get_u32(group));
    uint8_t address[6] = {0x01, 0x00, 0x5e, ip >> 16 & 0x7f, ip >> 8, ip};
    change_groups(netif->state, address, what == NETIF_ADD_MAC_FILTER);
    return ERR_OK;
}

static err_t of_ip6(struct netif *netif, const ip6_addr_t *group,
    enum netif_mac_filter_action what) {
    uint32_t ip = lwip_ntohl(group->addr[3]);
    uint8_t address[6] = {0x33, 0x33, ip >> 24, ip >> 16, ip >> 8, ip};
    change_groups(netif->state, address, what == NETIF_ADD_MAC_FILTER);
    return ERR_OK;
}

static err_t describe(struct netif *netif) {
    cyw43_t *self = netif->state;
    memcpy(netif->name, "w0", 2);
    netif->linkoutput = put_frame;
    netif->output = etharp_output;
    netif->output_ip6 = ethip6_output;
    netif->mtu = 1500;
    netif->hwaddr_len = sizeof(self->mac);
    memcpy(netif->hwaddr, self->mac, sizeof(self->mac));
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET
        | NETIF_FLAG_IGMP | NETIF_FLAG_MLD6;
    netif_set_igmp_mac_filter(netif, of_ip4);
    netif_set_mld_mac_filter(netif, of_ip6);
    return ERR_OK;
}

static void add_interface(cyw43_t *self) {
    struct netif *netif = &self->netif[CYW43_ITF_STA];
    ip4_addr_t address = {0}, mask, gateway;
    IP4_ADDR(&mask, 255, 255, 255, 0);
    IP4_ADDR(&gateway, 192, 168, 0, 1);
    netif_add(netif, &address, &mask, &gateway, self, describe, ethernet_input);
    netif_set_hostname(netif, CYW43_HOST_NAME);
    netif_create_ip6_linklocal_address(netif, 1);
    netif_set_default(netif);
    netif_set_up(netif);
    ip_addr_t server;
    IP_ADDR4(&server, 8, 8, 8, 8);
    dns_setserver(0, &server);
    dhcp_set_struct(netif, &self->dhcp);
    dhcp_start(netif);
    #ifdef CYW43_CB_TCPIP_INIT_EXTRA
    CYW43_CB_TCPIP_INIT_EXTRA(self, CYW43_ITF_STA);
    #endif
    self->station = true;
}

static void remove_interface(cyw43_t *self) {
    struct netif *netif = &self->netif[CYW43_ITF_STA];
    #ifdef CYW43_CB_TCPIP_DEINIT_EXTRA
    CYW43_CB_TCPIP_DEINIT_EXTRA(self, CYW43_ITF_STA);
    #endif
    dhcp_stop(netif);
    netif_remove(netif);
    netif->flags = 0;
    ip4_addr_set_zero(ip_2_ip4(&netif->ip_addr)); // a static one; its mask and router stay
    netif_set_client_data(netif, LWIP_NETIF_CLIENT_DATA_INDEX_DHCP, NULL);
    self->station = false;
}

int cyw43_tcpip_link_status(cyw43_t *self, int itf) {
    static const int8_t statuses[] = {
        CYW43_LINK_DOWN, CYW43_LINK_JOIN, CYW43_LINK_FAIL, CYW43_LINK_NONET, CYW43_LINK_BADAUTH,
    };
    if (itf != CYW43_ITF_STA) {
        return CYW43_LINK_DOWN;
    }
    struct netif *netif = &self->netif[itf];
    if (netif_is_up(netif) && netif_is_link_up(netif)) {
        return ip4_addr_isany(netif_ip4_addr(netif)) ? CYW43_LINK_NOIP : CYW43_LINK_UP;
    }
    return statuses[self->kind];
}

// The chip's power

#define PIN_POWER 23
#define DOWNLOAD_US 165000 // of the chip's firmware, which this one has no need of
#define PM_PERFORMANCE 0xa11142

void cyw43_init(cyw43_t *self) {
    memset(self, 0, sizeof(*self));
}

static void power(bool on) {
    gpio_init(PIN_POWER);
    gpio_set_dir(PIN_POWER, GPIO_OUT);
    gpio_put(PIN_POWER, on);
}

static int start(cyw43_t *self) {
    power(false);
    pass_us(20000);
    power(true);
    pass_us(50000);
    gpio_init(CYW43_PIN_WL_HOST_WAKE);
    // As the driver's bus does, which does not give them back when the start fails
    self->dma[0] = dma_claim_unused_channel(false);
    self->dma[1] = dma_claim_unused_channel(false);
    if (self->dma[1] < 0) {
        return -CYW43_EIO;
    }
    pass_us(250000);
    wide = false;
    for (int tries = 10; get(BUS, TEST, 4) != PATTERN; tries--) {
        if (tries == 1) {
            return -CYW43_EIO;
        }
        pass_us(1000);
    }
    set(BUS, CONTROL, WIDE_WORDS, 4);
    wide = true;
    set(BUS, INTERRUPT_MASK, INTERRUPTS, 2);
    set_far(0, 1); // an image, its parameters of no words, and off it goes
    pass_us(DOWNLOAD_US);
    set_far(RAM_END - 4, 0xffff0000);
    set_far(RESET, 0);
    if (!comes(BACKPLANE, CLOCK, HAS_CLOCK, 100) || !comes(BUS, STATUS, READY, 100)) {
        return -CYW43_EIO;
    }
    self->sequence = 0;
    self->credit = 1;
    self->waits = false;
    self->todo = self->told = 0;
    self->kind = NO_KIND;
    self->powered = true;
    set_variable_number(self, "bus:txglom", 0);
    set_variable_number(self, "apsta", 1);
    return get_variable(self, "cur_etheraddr", self->mac, sizeof(self->mac));
}

static int ensure_power(cyw43_t *self) {
    if (self->powered) {
        return 0;
    }
    int error = start(self);
    if (error) {
        self->powered = false;
        CYW43_PRINTF("Failed to start CYW43\n");
    }
    return error;
}

void cyw43_deinit(cyw43_t *self) {
    CYW43_THREAD_ENTER
    if (self->powered) {
        if (self->station) {
            remove_interface(self);
        }
        dma_channel_unclaim(self->dma[0]);
        dma_channel_unclaim(self->dma[1]);
        self->powered = self->scanning = false;
        self->kind = NO_KIND;
        power(false);
    }
    CYW43_THREAD_EXIT
}

// Calls for MicroPython

int cyw43_ioctl(cyw43_t *self, uint32_t command, size_t len, uint8_t *buf, uint32_t itf) {
    CYW43_THREAD_ENTER
    int error = ensure_power(self);
    if (!error) {
        error = ask(self, command, buf, len);
    }
    CYW43_THREAD_EXIT
    return error;
}

static void save_power(cyw43_t *self, uint32_t pm) {
    set_variable_number(self, "pm2_sleep_ret", (pm >> 4 & 0xff) * 10);
    set_variable_number(self, "bcn_li_bcn", pm >> 12 & 0xf);
    set_variable_number(self, "bcn_li_dtim", pm >> 16 & 0xf);
    set_variable_number(self, "assoc_listen", pm >> 20 & 0xf);
    set_number(self, SET_POWER_SAVE, pm & 0xf);
    set_number(self, SET_MODE, 1);
    set_number(self, SET_BAND, 0);
}

int cyw43_wifi_pm(cyw43_t *self, uint32_t pm) {
    CYW43_THREAD_ENTER
    int error = ensure_power(self);
    if (!error) {
        save_power(self, pm);
    }
    CYW43_THREAD_EXIT
    return error;
}

int cyw43_wifi_get_pm(cyw43_t *self, uint32_t *pm) {
    CYW43_THREAD_ENTER
    int error = ensure_power(self);
    if (!error) {
        uint32_t mode = 0;
        error = ask(self, GET_POWER_SAVE, &mode, sizeof(mode));
        *pm = get_variable_number(self, "assoc_listen") << 20
            | get_variable_number(self, "bcn_li_dtim") << 16
            | get_variable_number(self, "bcn_li_bcn") << 12
            | get_variable_number(self, "pm2_sleep_ret") / 10 << 4 | mode;
    }
    CYW43_THREAD_EXIT
    return error;
}

static void set_country(cyw43_t *self, uint32_t country) {
    uint8_t value[12] = {0};
    put16(value, country);
    put32(value + 4, country >> 16 ? country >> 16 : 0xffffffff);
    put16(value + 8, country);
    set_variable(self, "country", value, sizeof(value));
    pass_us(50000);
}

// What a station does not take note of
static const uint8_t unwanted_events[] = {19, 20, 40, 44, 54, 71, 124};
#define EVENT_MASK_BYTES 24

static void set_events(cyw43_t *self) {
    uint8_t value[4 + EVENT_MASK_BYTES];
    memset(value, 0xff, sizeof(value));
    put32(value, 0); // of the station
    for (size_t at = 0; at < sizeof(unwanted_events); at++) {
        value[4 + unwanted_events[at] / 8] &= ~(1 << unwanted_events[at] % 8);
    }
    set_variable(self, "bsscfg:event_msgs", value, sizeof(value));
    pass_us(50000);
}

void cyw43_wifi_set_up(cyw43_t *self, int itf, bool up, uint32_t country) {
    CYW43_THREAD_ENTER
    if (itf == CYW43_ITF_STA && up && !self->station && !ensure_power(self)) {
        set_country(self, country);
        set_number(self, CYW43_IOCTL_SET_ANTDIV, 0);
        set_variable_number(self, "bus:txglom", 0);
        set_variable_number(self, "apsta", 1);
        set_variable_number(self, "ampdu_ba_wsize", 8);
        set_variable_number(self, "ampdu_mpdu", 4);
        set_variable_number(self, "ampdu_rx_factor", 0);
        set_events(self);
        ask(self, SET_UP, NULL, 0);
        pass_us(50000);
        save_power(self, PM_PERFORMANCE);
        add_interface(self);
    }
    #if MICROPY_VERSION >= MICROPY_MAKE_VERSION(1, 28, 0)
    if (itf == CYW43_ITF_STA && !up && self->station) {
        remove_interface(self);
    }
    #endif
    CYW43_THREAD_EXIT
}

static void set_key(cyw43_t *self, const uint8_t *key, size_t len) {
    uint8_t value[68] = {0};
    put16(value, len);
    put16(value + 2, 1);
    memcpy(value + 4, key, len);
    pass_us(2000);
    ask(self, SET_KEY, value, sizeof(value));
}

int cyw43_wifi_join(cyw43_t *self, size_t ssid_len, const uint8_t *ssid, size_t key_len,
    const uint8_t *key, uint32_t auth, const uint8_t *bssid, uint32_t channel) {
    if (!self->station) {
        return -CYW43_EPERM;
    }
    if (ssid_len > 32 || (key && key_len > 64)) {
        return -CYW43_EINVAL;
    }
    CYW43_THREAD_ENTER
    set_variable_number(self, "ampdu_ba_wsize", 8);
    set_number(self, SET_CIPHERS, auth & 0xff);
    set_variable_of_station(self, "bsscfg:sup_wpa", auth != CYW43_AUTH_OPEN);
    set_variable_of_station(self, "bsscfg:sup_wpa2_eapver", -1);
    set_variable_of_station(self, "bsscfg:sup_wpa_tmo", 5000);
    if (auth != CYW43_AUTH_OPEN && key) {
        set_key(self, key, key_len);
    }
    set_number(self, SET_INFRASTRUCTURE, 1);
    set_number(self, SET_AUTHENTICATION, 0);
    if (auth != CYW43_AUTH_OPEN) {
        set_variable_number(self, "mfp", 1);
    }
    set_number(self, SET_WPA, auth >> 16);
    self->kind = ACTIVE;
    self->told = auth == CYW43_AUTH_OPEN ? KEYED : 0;
    self->todo = 0;
    memset(self->wanted, 0, sizeof(self->wanted));
    put32(self->wanted, ssid_len);
    memcpy(self->wanted + 4, ssid, ssid_len);
    if (bssid) {
        uint8_t value[sizeof(self->wanted) + 6];
        memcpy(value, self->wanted, sizeof(self->wanted));
        memcpy(value + sizeof(self->wanted), bssid, 6);
        set_variable(self, "join", value, sizeof(value));
    } else {
        join(self);
    }
    CYW43_THREAD_EXIT
    return 0;
}

int cyw43_wifi_leave(cyw43_t *self, int itf) {
    return cyw43_ioctl(self, DISASSOCIATE, 0, NULL, itf);
}

int cyw43_wifi_get_rssi(cyw43_t *self, int32_t *rssi) {
    if (!self->station) {
        return -CYW43_EPERM;
    }
    *rssi = 0;
    return cyw43_ioctl(self, GET_RSSI, sizeof(*rssi), (uint8_t *)rssi, CYW43_ITF_STA);
}

int cyw43_wifi_get_mac(cyw43_t *self, int itf, uint8_t mac[6]) {
    CYW43_THREAD_ENTER
    int error = ensure_power(self);
    memcpy(mac, self->mac, sizeof(self->mac));
    CYW43_THREAD_EXIT
    return error;
}

int cyw43_wifi_scan(cyw43_t *self, cyw43_wifi_scan_options_t *options, void *env,
    cyw43_scan_cb_t on_found) {
    CYW43_THREAD_ENTER
    int error = ensure_power(self);
    if (!error) {
        uint8_t value[72] = {1, 0, 0, 0, 1}; // version, to begin
        put32(value + 8, options->ssid_len);
        memcpy(value + 12, options->ssid, options->ssid_len);
        memcpy(value + 44, options->bssid, sizeof(options->bssid));
        self->on_found = on_found;
        self->found_env = env;
        self->scanning = true;
        set_variable(self, "escan", value, sizeof(value));
    }
    CYW43_THREAD_EXIT
    return error;
}

void cyw43_wifi_ap_set_ssid(cyw43_t *self, size_t len, const uint8_t *ssid) {
    self->ap_ssid_len = MIN(len, sizeof(self->ap_ssid));
    memcpy(self->ap_ssid, ssid, self->ap_ssid_len);
}

void cyw43_wifi_ap_get_stas(cyw43_t *self, int *count, uint8_t *macs) {
    *count = 0;
}
