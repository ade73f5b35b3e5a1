// What the firmware on a CYW43439 does as a station, as its driver sees it: commands (ioctls and
// named variables), events, frames. The chip's own firmware is secret: this is what published
// traces show of it, and what the driver takes for an answer.

import { opens, scanResult } from './air.mjs';

const UP = 2; // commands
const GET_BSSID = 23;
const GET_SSID = 25;
const SET_SSID = 26;
const DISASSOCIATE = 52;
const GET_POWER_SAVE = 85;
const SET_POWER_SAVE = 86;
const GET_RSSI = 127;
const SET_SECURITY = 134;
const GET_VARIABLE = 262;
const SET_VARIABLE = 263;
const SET_KEY = 268;

const EVENTS = {
  SET_SSID: 0,
  JOIN: 1,
  AUTH: 3,
  DEAUTH_IND: 6,
  ASSOC: 7,
  DISASSOC: 11,
  DISASSOC_IND: 12,
  LINK: 16,
  PSK_SUP: 46,
  ICV_ERROR: 49,
  ESCAN_RESULT: 69,
  ASSOC_REQ_IE: 87,
  ASSOC_RESP_IE: 88,
};
const LINK_UP = 1; // flag of LINK
const FAILED = 1; // statuses
const NO_NETWORKS = 3;
const NO_ANSWER = 5;
const PARTIAL = 8;
const KEYED = 6; // statuses of PSK_SUP, and its reasons
const WAITED_FOR_KEYS = 8;
const DEAUTHENTICATED = 14;
const TIMED_OUT = 15;
const BEACONS_LOST = 1; // reasons of LINK
const LEFT = 2;
const UNSPECIFIED = 1; // reasons of 802.11
const INACTIVE = 4;
const STATION_LEAVES = 8;
const HANDSHAKE_TIMED_OUT = 15;

const NOT_ASSOCIATED = -17; // status of a command
const RETRY_MS = 20;
const MS = 1e6;
const MOST_HISTORY = 4000;

export class Wlan {
  // chip   Chip
  // air    Air
  // clock  {nanos}
  // mac    Buffer of 6 bytes
  // toAir  (frame) called with an Ethernet frame that an access point has got
  constructor({ chip, air, clock, mac, toAir }) {
    Object.assign(this, { chip, air, clock, mac, toAir });
    this.history = []; // [seconds, text]: what the driver asked and was told
    this.attempt = 0; // to join; a newer one ends what an older one had before it
    this.stop();
  }

  note(text) {
    this.history.push([+(this.clock.nanos / 1e9).toFixed(4), text]);
    if (this.history.length > MOST_HISTORY) this.history.shift();
  }

  start() {
    this.note('firmware ready');
  }

  // It has no power any more.
  stop() {
    this.variables = new Map([['cur_etheraddr', this.mac]]);
    this.numbers = new Map(); // that commands have set
    this.key = null;
    this.wanted = null; // the name of the network that it is to be in
    this.lastTraffic = 0;
    this.part();
  }

  // End what is under way, and the association.
  part() {
    this.attempt++;
    this.network = null; // that it is associated with
    this.secure = false; // with keys, or without the need of any
    this.forgotten = false; // by the access point, which has told nobody
  }

  // Do `work` after `ms`, unless something else was begun, or the power went, meanwhile.
  later(ms, work) {
    const { attempt } = this;
    this.chip.later(ms * MS, () => {
      if (attempt === this.attempt) work();
    });
  }

  event(name, fields = {}) {
    const { status = 0, reason = 0, flags = 0 } = fields;
    this.note(`event ${name} status=${status} reason=${reason} flags=${flags}`);
    this.chip.event({ type: EVENTS[name], ...fields });
  }

  // Commands

  // Return {status, data, nanos}, or null where no answer comes.
  ioctl({ command, set, data }) {
    let name = '';
    let value = data;
    if (command === GET_VARIABLE || command === SET_VARIABLE) {
      const end = data.indexOf(0);
      name = data.toString('latin1', 0, end);
      value = data.subarray(end + 1);
    }
    if (name !== 'clmload') this.note(`${set ? 'set' : 'get'} ${name || command} ${shown(value)}`);
    const { unanswered } = this.air.faults;
    if (['*', command, name].some((each) => each !== '' && unanswered.includes(each))) return null;
    const nanos = this.air.times[name === 'country' ? 'country' : 'ioctl'] * MS;
    if (set) {
      this.set(command, name, value);
      return { status: 0, data, nanos };
    }
    const found = this.get(command, name);
    const reply = Buffer.alloc(data.length);
    found?.copy(reply);
    return { status: found ? 0 : NOT_ASSOCIATED, data: reply, nanos };
  }

  set(command, name, value) {
    if (command === SET_VARIABLE) {
      if (name === 'escan') this.scan(textAt(value.subarray(8)));
      else if (name === 'join') this.join(textAt(value));
      else if (name !== 'clmload') this.variables.set(name, Buffer.from(value));
    } else if (command === SET_SSID) this.join(textAt(value));
    else if (command === DISASSOCIATE) this.leave();
    else if (command === SET_KEY) this.key = value.toString('latin1', 4, 4 + value.readUInt16LE(0));
    else if (command !== UP && value.length >= 4) this.numbers.set(command, value.readUInt32LE(0));
  }

  // Return a Buffer, or null where there is nothing.
  get(command, name) {
    const { network } = this;
    if (command === GET_VARIABLE) return this.variables.get(name) ?? number(0);
    if (command === GET_POWER_SAVE) return number(this.numbers.get(SET_POWER_SAVE) ?? 0);
    if (command === GET_RSSI) return number(network?.up ? network.rssi : 0);
    if (command === GET_BSSID) return network && network.bssid;
    if (command === GET_SSID) {
      const name = Buffer.from(network?.ssid ?? '');
      return Buffer.concat([number(name.length), name]);
    }
    return number(this.numbers.get(command + 1) ?? 0); // the command that sets it is the next
  }

  // Joining

  join(ssid) {
    this.part();
    this.wanted = ssid;
    this.search(true);
  }

  // asked  by the driver; else by the chip itself, which tells nobody that it finds nothing
  search(asked) {
    const { times } = this.air;
    const network = this.air.heard(this.wanted);
    if (network) this.later(times.find, () => this.authenticate(network));
    else if (asked) {
      this.later(times.give_up, () => this.event('SET_SSID', { status: NO_NETWORKS }));
    } else this.later(times.give_up + times.again, () => this.search(false));
  }

  authenticate(network) {
    const { times, faults } = this.air;
    const address = network.bssid;
    if (!network.up) {
      this.search(true);
      return;
    }
    if (faults.authentication === 'none') return;
    if (faults.authentication === 'silent') {
      this.later(times.no_answer, () => {
        this.event('AUTH', { status: NO_ANSWER, address });
        this.event('SET_SSID', { status: FAILED });
      });
      return;
    }
    this.event('ASSOC_REQ_IE', { address });
    this.later(times.authenticate, () => {
      this.event('AUTH', { address });
      this.later(times.associate, () => this.associate(network));
    });
  }

  associate(network) {
    const address = network.bssid;
    this.network = network;
    this.event('ASSOC_RESP_IE', { address });
    this.event('ASSOC', { address });
    this.event('LINK', { flags: LINK_UP, address });
    if (network.password === null && !this.numbers.get(SET_SECURITY)) this.settle();
    else this.exchangeKeys(network);
  }

  exchangeKeys(network) {
    const { times, faults } = this.air;
    const address = network.bssid;
    const right = opens(network, this.key);
    if (right && !faults.weak_joins) {
      this.later(times.keys, () => {
        this.event('PSK_SUP', { status: KEYED, address });
        this.settle();
      });
      return;
    }
    if (right) faults.weak_joins--;
    const end = right ? 'timeout' : faults.wrong_key;
    if (end === 'silent') return;
    if (end === 'timeout') {
      this.later(times.key_timeout, () => {
        this.network = null;
        this.event('PSK_SUP', { status: WAITED_FOR_KEYS, reason: TIMED_OUT, address });
      });
      return;
    }
    this.later(times.wrong_key, () => {
      this.network = null;
      this.event('DEAUTH_IND', { reason: HANDSHAKE_TIMED_OUT, address });
      this.event('PSK_SUP', { status: WAITED_FOR_KEYS, reason: DEAUTHENTICATED, address });
      this.event('LINK', { reason: LEFT, address });
      if (end === 'retry') this.later(RETRY_MS, () => this.authenticate(network));
    });
  }

  settle() {
    const address = this.network.bssid;
    this.secure = true;
    this.lastTraffic = this.clock.nanos;
    if (!this.air.faults.beacons) this.missBeacons();
    this.later(this.air.times.settle, () => {
      this.event('JOIN', { address });
      this.event('SET_SSID', { address });
    });
  }

  // The driver wants to leave.
  leave() {
    if (this.air.faults.deaf_leave) return;
    const address = this.network?.bssid;
    this.part();
    this.wanted = null;
    if (!address) return; // an error, which the driver does not look at, and no event
    this.later(this.air.times.leave, () => {
      this.event('DISASSOC', { reason: STATION_LEAVES, address });
      this.event('LINK', { reason: LEFT, address });
    });
  }

  // What happens to the association. Where there is none, nothing does.

  // It is over; tell the driver so by `events`, [name, fields].
  lose(...events) {
    if (!this.network) return;
    const address = this.network.bssid;
    this.part();
    for (const [name, fields] of events) this.event(name, { address, ...fields });
    if (this.air.faults.rejoins) this.search(false);
  }

  // The access point says goodbye: "deauth" or "disassoc". The chip tells that, which the driver
  // does not heed, and, where it is `told`, that the link is down.
  kick(how, { reason = INACTIVE, told = true } = {}) {
    const goodbye = { deauth: 'DEAUTH_IND', disassoc: 'DISASSOC_IND' }[how];
    if (!goodbye) throw new Error(`no goodbye ${how}: deauth, disassoc`);
    this.lose([goodbye, { reason }], ...(told ? [['LINK', { reason: LEFT }]] : []));
  }

  // The chip leaves by itself, as with WPA3 after 11 hours.
  lapse() {
    this.lose(['DISASSOC', { reason: UNSPECIFIED }]);
  }

  // The access point sends under a key that the chip does not know.
  keysDiffer() {
    if (this.network) this.event('ICV_ERROR');
  }

  forget() {
    this.forgotten = true;
  }

  // Its beacons do not come any more: notice that in time, unless they come again.
  missBeacons() {
    this.later(this.air.times.beacons_lost, () => {
      if (this.network && !this.air.heard(this.network.ssid)) {
        this.lose(['LINK', { reason: BEACONS_LOST }]);
      }
    });
  }

  scan(ssid) {
    const found = this.air.scanned(ssid);
    this.chip.later(this.air.times.scan * MS, () => {
      for (const network of found) {
        const fields = { status: PARTIAL, data: scanResult(network) };
        this.chip.event({ type: EVENTS.ESCAN_RESULT, ...fields });
      }
      this.event('ESCAN_RESULT');
    });
  }

  // Frames

  get carries() {
    const { network, secure, forgotten, air } = this;
    return network !== null && network.up && secure && !forgotten && air.faults.carries;
  }

  fromHost(frame) {
    this.lastTraffic = this.clock.nanos;
    if (this.carries) this.chip.later(this.air.times.frame * MS, () => this.toAir(frame));
  }

  fromAir(frame) {
    if (!this.carries) return;
    this.chip.later(this.air.times.frame * MS + this.sleepNanos(), () => {
      if (!this.carries) return;
      this.lastTraffic = this.clock.nanos;
      this.chip.frame(frame);
    });
  }

  // How long a frame waits at the access point for a chip that saves power: until the beacon at
  // which it wakes up, where it sleeps.
  sleepNanos() {
    if (!this.numbers.get(SET_POWER_SAVE)) return 0;
    const set = (name) => this.variables.get(name)?.readUInt32LE(0);
    const awake = (set('pm2_sleep_ret') ?? 200) * MS; // after the last frame
    if (this.clock.nanos - this.lastTraffic < awake) return 0;
    const beacons = set('bcn_li_dtim') || set('bcn_li_bcn') || 1;
    const period = this.air.times.beacon * beacons * MS;
    return period - (this.clock.nanos % period);
  }
}

function number(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

// The name in {length (4 bytes), name (32)}.
function textAt(bytes) {
  return bytes.toString('utf8', 4, 4 + Math.min(bytes.readUInt32LE(0), 32));
}

function shown(value) {
  return `[${value.length}] ${value.toString('hex', 0, 24)}${value.length > 24 ? '…' : ''}`;
}
