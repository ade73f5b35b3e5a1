// The host's side of a CYW43439, all that the gSPI bus reaches: the registers of the bus (function
// 0), the backplane (function 1) and packets (function 2), which packets.mjs knows the form of. What
// the firmware on the chip does is in wlan.mjs.
//
// A command is a word of 32 bits: write << 31 | increment << 30 | function << 28 | address << 11 |
// size; the data follow. After power-on the bytes of each 16 bits are swapped on the wire.

import * as packets from './packets.mjs';

const BUS = 0; // functions
const BACKPLANE = 1;
const PACKETS = 2;

const CONTROL = 0x00; // registers of the bus
const INTERRUPT = 0x04;
const INTERRUPT_MASK = 0x06;
const STATUS = 0x08;
const TEST = 0x14;
const RESPONSE_DELAY = 0x1d; // bytes before the answers of the backplane
const PATTERN = 0xfeedbead;
const WORD_32 = 1; // of CONTROL
const PACKET_AVAILABLE = 0x20; // of INTERRUPT
const READY_FOR_PACKETS = 0x20; // of STATUS
const PACKET_WAITS = 0x100;
const LENGTH_SHIFT = 9; // of the packet that waits

const BYTES = 0x10000; // from this address on the backplane has registers of a byte; below, a window
const WINDOW_BYTES = 0x8000;
const WINDOW = [0x1000a, 0x1000b, 0x1000c]; // bits 8 to 31 of where it is
const CLOCK = 0x1000e;
const SLEEP = 0x1001f;
const SLOW_CLOCK = 0x40; // of CLOCK
const FAST_CLOCK = 0x80;
const KEEP_ON = 1; // of SLEEP
const AWAKE = 2;

const RAM_BYTES = 512 * 1024; // addresses on the backplane
const RESETS = [0x18103800, 0x18104800]; // of the ARM and of its RAM; 1 after power-on
const CLOCK_NANOS = 29e6; // from the release of the ARM until it has its clock,
const READY_NANOS = 40e6; // and until its firmware takes packets

const LEAD = 10; // packets that the host may be ahead

// What can be wrong with a chip, and how it is without.
export const NO_CHIP_FAULTS = {
  dead: false, // it answers nothing, and switching it off and on does not heal that
  hung: false, // the bus answers, its firmware does nothing any more; as the next two healed so
  clogged: false, // it never gets ready for a packet
  creditless: false, // it takes packets, and allows no more
};

export class Chip {
  // clock  {nanos, after(nanos, work)} in emulated time; `after` forgets when the board is reset
  // log    (text)
  // wlan, which has to be set, is {mac, start(), stop(), ioctl(…), fromHost(frame)}
  constructor({ clock, log }) {
    Object.assign(this, { clock, log });
    this.onInterrupt = () => {};
    this.wlan = null;
    this.on = false;
    this.life = 0; // counts changes of the power: what was to happen in an older life does not
    this.faults = { ...NO_CHIP_FAULTS };
    this.stats = {
      power_ons: 0,
      transfers: 0,
      bytes: 0,
      ioctls: 0,
      events: 0,
      frames_to_host: 0,
      frames_from_host: 0,
    };
    this.clear();
  }

  clear() {
    this.registers = Buffer.alloc(32); // of the bus
    this.bytes = new Map(); // of the backplane, of a byte each
    this.words = new Map(RESETS.map((address) => [address, 1])); // others of the backplane
    this.ram = null;
    this.wide = false; // words of 32 bits on the bus
    this.clocked = false; // the ARM runs
    this.ready = false; // its firmware does
    this.queue = []; // packets for the host
    this.sequence = 0; // of the last of them
    this.credit = 1;
    this.update();
  }

  power(on) {
    if (on === this.on) return;
    this.on = on;
    this.life++;
    this.wlan?.stop();
    this.clear();
    if (on) this.stats.power_ons++;
    else this.faults = { ...NO_CHIP_FAULTS, dead: this.faults.dead };
    this.log(on ? 'the radio has power' : 'the radio has no power');
  }

  // Do `work` after `nanos`, unless the power goes meanwhile.
  later(nanos, work) {
    const { life } = this;
    this.clock.after(nanos, () => {
      if (life === this.life) work();
    });
  }

  set(faults) {
    Object.assign(this.faults, faults);
    this.update();
  }

  // Tell the host by the interrupt line whether there is something for it.
  update() {
    const wanted = this.registers.readUInt16LE(INTERRUPT_MASK);
    this.onInterrupt(this.on && !this.faults.dead && (this.interrupts & wanted) !== 0);
  }

  get interrupts() {
    return this.queue.length ? PACKET_AVAILABLE : 0;
  }

  // One transfer of the bus: take the bytes `sent`, return a Buffer of `count`.
  transfer(sent, count) {
    this.stats.transfers++;
    this.stats.bytes += sent.length + count;
    const back = Buffer.alloc(count);
    if (!this.on || this.faults.dead) return back;
    const { wide } = this; // as it was when the command came
    if (!wide) sent.swap16();
    const command = sent.readUInt32LE(0);
    const unit = (command >>> 28) & 3;
    const address = (command >>> 11) & 0x1ffff;
    const size = command & 0x7ff || 2048;
    if (command >>> 31) this.write(unit, address, sent.subarray(4, 4 + size));
    else {
      const delay = unit === BACKPLANE ? this.registers[RESPONSE_DELAY] : 0;
      this.read(unit, address, size).copy(back, delay);
    }
    if (!wide) back.swap16();
    return back;
  }

  read(unit, address, size) {
    if (unit === BUS) return this.readBus(address, size);
    if (unit === BACKPLANE) return this.readBackplane(address, size);
    const packet = this.queue.shift() ?? Buffer.alloc(size);
    this.update();
    return packet.subarray(0, size);
  }

  readBus(address, size) {
    const { registers, queue } = this;
    let status = this.ready && !this.faults.clogged ? READY_FOR_PACKETS : 0;
    if (queue.length) status |= PACKET_WAITS | (queue[0].length << LENGTH_SHIFT);
    registers.writeUInt32LE(PATTERN, TEST);
    registers.writeUInt16LE(this.interrupts, INTERRUPT);
    registers.writeUInt32LE(status, STATUS);
    const value = Buffer.alloc(size);
    registers.subarray(address, address + size).copy(value);
    return value;
  }

  readBackplane(address, size) {
    const value = Buffer.alloc(Math.max(size, 4));
    if (address >= BYTES) {
      value[0] = this.byte(address);
      return value;
    }
    const at = this.inWindow(address);
    if (at < RAM_BYTES && this.ram) this.ram.copy(value, 0, at, at + size);
    else value.writeUInt32LE(this.words.get(at) ?? 0);
    return value;
  }

  byte(address) {
    const written = this.bytes.get(address) ?? 0;
    if (address === CLOCK) return written | SLOW_CLOCK | (this.clocked ? FAST_CLOCK : 0);
    if (address === SLEEP && written & KEEP_ON) return written | AWAKE;
    return written;
  }

  // Where on the backplane it is what the host calls `address`.
  inWindow(address) {
    const [low, middle, high] = WINDOW.map((each) => this.byte(each));
    const window = ((high << 24) | (middle << 16) | (low << 8)) >>> 0;
    return window - (window % WINDOW_BYTES) + (address % WINDOW_BYTES);
  }

  write(unit, address, data) {
    if (unit === BACKPLANE) this.writeBackplane(address, data);
    else if (unit === PACKETS) this.fromHost(data);
    else if (unit === BUS) {
      // An interrupt that is acknowledged is there again as long as its cause is.
      if (address !== INTERRUPT && address < this.registers.length) {
        data.copy(this.registers, address);
      }
      if (address === CONTROL) this.wide = (data[0] & WORD_32) !== 0;
      this.update();
    }
  }

  writeBackplane(address, data) {
    if (address >= BYTES) {
      this.bytes.set(address, data[0]);
      return;
    }
    const at = this.inWindow(address);
    if (at < RAM_BYTES) {
      this.ram ??= Buffer.alloc(RAM_BYTES);
      data.copy(this.ram, at);
      return;
    }
    const value = data.length >= 4 ? data.readUInt32LE(0) : data[0];
    this.words.set(at, value);
    if (at === RESETS[0] && value === 0) this.run();
  }

  // The ARM is released. Its image is not run, and not looked at, but for whether there is one and
  // whether the last word says how long the NVRAM before it is: a number of words, and its
  // complement above it.
  run() {
    if (this.clocked) return;
    const token = this.ram?.readUInt32LE(RAM_BYTES - 4) ?? 0;
    const loaded = this.ram?.subarray(0, WINDOW_BYTES).some((byte) => byte);
    if (!loaded || token >>> 16 !== (~token & 0xffff)) {
      this.log(`no firmware in the radio's memory, or no NVRAM: ${token.toString(16)}`);
      return;
    }
    this.later(CLOCK_NANOS, () => (this.clocked = true));
    this.later(READY_NANOS, () => {
      this.ready = true;
      this.wlan.start();
    });
  }

  // Packets

  fromHost(bytes) {
    if (!this.ready || this.faults.hung) return;
    const packet = packets.parsed(bytes);
    if (!packet) {
      this.log(`the driver sent a broken packet: ${bytes.toString('hex', 0, 16)}`);
      return;
    }
    if (!this.faults.creditless) this.credit = (packet.sequence + 1 + LEAD) & 0xff;
    if (packet.channel === packets.CONTROL) this.ioctl(packets.request(packet.body));
    else if (packet.channel === packets.DATA) {
      this.stats.frames_from_host++;
      this.wlan.fromHost(packets.frameOf(packet.body));
      // the credit alone, where nothing else carries it
      if (!this.queue.length) this.toHost(packets.CONTROL, Buffer.alloc(0));
    }
  }

  ioctl(request) {
    this.stats.ioctls++;
    const answer = this.wlan.ioctl(request);
    if (!answer) return;
    const reply = packets.reply(request, answer.status, answer.data);
    this.later(answer.nanos, () => this.toHost(packets.CONTROL, reply));
  }

  // frame  Buffer: Ethernet
  frame(frame) {
    this.stats.frames_to_host++;
    this.toHost(packets.DATA, packets.ofFrame(frame));
  }

  // fields  see packets.ofEvent
  event(fields) {
    this.stats.events++;
    this.toHost(packets.EVENT, packets.ofEvent(this.wlan.mac, fields));
  }

  toHost(channel, body) {
    if (this.faults.hung) return;
    this.sequence = (this.sequence + 1) & 0xff;
    this.queue.push(packets.packed(channel, this.sequence, this.credit, body));
    this.update();
  }
}
