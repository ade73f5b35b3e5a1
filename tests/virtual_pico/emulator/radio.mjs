// The Wi-Fi of a virtual Pico W: the chip, the air, the router; and the commands for all of that.

import { createHash } from 'node:crypto';

import { Air, NO_AIR_FAULTS } from './air.mjs';
import { Chip, NO_CHIP_FAULTS } from './chip.mjs';
import { Ether, LAST_OF_HOST, NO_ROUTER_FAULTS } from './ether.mjs';
import { Wlan } from './wlan.mjs';

const CHOICES = {
  wrong_key: ['deauth', 'timeout', 'retry', 'silent'],
  authentication: ['up', 'silent', 'none'],
  dhcp: ['up', 'silent', 'nak', 'offer'],
  arp: ['up', 'silent'],
};
const FIRST_ADDRESS = 2; // that the board gets at first
const VENDOR = [0x28, 0xcd, 0xc1]; // Raspberry Pi's MAC addresses

export class Radio {
  // networks  see Air
  // id        text that the MAC address is made of
  // host, device, clock  see Ether
  // receive   (packet) IP from the board
  // log       (text)
  constructor({ networks, id, host, device, clock, receive, log }) {
    this.device = device;
    this.air = new Air(networks);
    this.chip = new Chip({ clock, log });
    const mac = Buffer.from([...VENDOR, ...createHash('sha256').update(id).digest().subarray(0, 3)]);
    this.wlan = new Wlan({
      chip: this.chip,
      air: this.air,
      clock,
      mac,
      toAir: (frame) => this.ether.fromStation(frame),
    });
    this.chip.wlan = this.wlan;
    this.ether = new Ether({
      host,
      device,
      clock,
      send: (frame) => this.wlan.fromAir(frame),
      receive,
      note: (text) => this.wlan.note(text),
    });
  }

  // An IP packet for the board.
  send(packet) {
    this.ether.packet(packet);
  }

  // Commands of the control channel, as main.mjs's.
  commands = {
    // A network is there from now on, or is another than it was.
    wifi_add: (network) => this.air.add(network),
    // The access point gets, or loses, its power.
    wifi_access_point: ({ ssid, up }) => {
      const network = this.air.network(ssid);
      network.up = up;
      if (!up && this.wlan.network === network) this.wlan.missBeacons();
    },
    wifi_air: (changes) => {
      change(this.air.faults, changes, NO_AIR_FAULTS);
      if (changes.beacons === false && this.wlan.network) this.wlan.missBeacons();
    },
    wifi_chip: (changes) => this.chip.set(change({}, changes, NO_CHIP_FAULTS)),
    // address  what the board gets from now on, "10.77.0.N"
    wifi_router: ({ address = null, ...changes }) => {
      change(this.ether.faults, changes, NO_ROUTER_FAULTS);
      if (address !== null) this.renumber(address);
    },
    wifi_times: (changes) => change(this.air.times, changes, this.air.times),
    wifi_kick: ({ how = 'deauth', ...rest }) => this.wlan.kick(how, rest),
    wifi_lapse: () => this.wlan.lapse(),
    wifi_keys_differ: () => this.wlan.keysDiffer(),
    wifi_forget: () => this.wlan.forget(),
    wifi_heal: () => {
      Object.assign(this.air.faults, NO_AIR_FAULTS);
      Object.assign(this.ether.faults, NO_ROUTER_FAULTS);
      this.chip.set(NO_CHIP_FAULTS);
      for (const network of this.air.networks.values()) network.up = true;
      this.wlan.forgotten = false;
    },
    // [seconds, text] of what passed between driver and chip since the last call
    wifi_history: () => this.wlan.history.splice(0),
    wifi_state: () => ({
      powered: this.chip.on,
      ready: this.chip.ready,
      network: this.wlan.network?.ssid ?? null,
      carries: this.wlan.carries,
      country: this.wlan.variables.get('country')?.toString('latin1', 0, 2) ?? null,
      power_save: this.wlan.numbers.get(86) ?? null,
      ...this.chip.stats,
    }),
  };

  renumber(address) {
    const bytes = address.split('.').map(Number);
    const near = bytes.length === 4 && [0, 1, 2].every((at) => bytes[at] === this.device[at]);
    const last = bytes[3];
    if (!near || !(last === FIRST_ADDRESS || (last > LAST_OF_HOST && last < 255))) {
      const net = [...this.device.subarray(0, 3)].join('.');
      throw new Error(`no address for the board: ${address}; take ${net}.2, or .10 to .254`);
    }
    this.device.set(bytes);
  }
}

// Take over `changes` into `values`; the names and types of `known` are those that there are.
function change(values, changes, known) {
  for (const [name, value] of Object.entries(changes)) {
    if (!(name in known)) throw new Error(`no ${name}: ${Object.keys(known).join(', ')}`);
    const choices = CHOICES[name];
    if (choices ? !choices.includes(value) : typeof value !== typeof known[name]) {
      const may = choices ? choices.join(', ') : `a ${typeof known[name]}`;
      throw new Error(`${name} cannot be ${JSON.stringify(value)}, but: ${may}`);
    }
  }
  return Object.assign(values, changes);
}
