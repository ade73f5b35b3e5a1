// The radio of a virtual Pico W, held against what is known of the real one: node radio_checks.mjs
//
// A small driver speaks the bus to the chip, and looks at what comes. Prints a line of JSON for each
// check: {"name": …, "error": null or text}. test_radio.py shows them as tests.

import assert from 'node:assert/strict';

import { Gspi } from './gspi.mjs';
import { Radio } from './radio.mjs';
import { RP2040 } from './rp2040js.mjs';

const BUS = 0;
const BACKPLANE = 1;
const PACKETS = 2;
const NVRAM = Buffer.alloc(744, 0x11);
const MAC = Buffer.from([0x02, 1, 2, 3, 4, 5]);
const HOST = Buffer.from([10, 77, 0, 1]);
const MS = 1e6;

// Time that goes on when a check says so.
class Clock {
  nanos = 0;
  planned = [];

  after(nanos, work) {
    this.planned.push({ at: this.nanos + nanos, work });
  }

  pass(ms) {
    const end = this.nanos + ms * MS;
    for (;;) {
      this.planned.sort((a, b) => a.at - b.at); // which keeps the order of what is due together
      if (!this.planned.length || this.planned[0].at > end) break;
      const { at, work } = this.planned.shift();
      this.nanos = Math.max(this.nanos, at);
      work();
    }
    this.nanos = end;
  }
}

// What the firmware's driver does, as far as a check needs it.
class Driver {
  constructor(networks = [{ ssid: 'home', password: 'correct horse' }]) {
    this.clock = new Clock();
    this.received = []; // IP packets that have got to the network
    this.log = [];
    this.radio = new Radio({
      networks,
      id: 'a board',
      host: HOST,
      device: Buffer.from([10, 77, 0, 2]),
      clock: this.clock,
      receive: (packet) => this.received.push(packet),
      log: (text) => this.log.push(text),
    });
    this.chip = this.radio.chip;
    this.chip.onInterrupt = (level) => (this.interrupt = level);
    this.sequence = 0;
    this.id = 0;
    this.wide = false;
  }

  // Words of the bus
  transfer(write, unit, address, size, data = Buffer.alloc(0)) {
    const command = (((write ? 0xc0000000 : 0x40000000) | (unit << 28)) + (address << 11) + size) >>> 0;
    const sent = Buffer.alloc(4 + Math.ceil(data.length / 4) * 4);
    sent.writeUInt32LE(command);
    data.copy(sent, 4);
    const delay = !write && unit === BACKPLANE ? 16 : 0;
    const count = write ? 0 : Math.ceil((delay + size) / 4) * 4;
    if (!this.wide) sent.swap16();
    const back = this.chip.transfer(sent, count);
    if (!this.wide) back.swap16();
    return back.subarray(delay, delay + size);
  }

  read(unit, address, size = 4) {
    const back = this.transfer(false, unit, address, size);
    return back.readUIntLE(0, Math.min(size, 4));
  }

  write(unit, address, value, size = 4) {
    const data = Buffer.alloc(size);
    data.writeUIntLE(value, 0, size);
    this.transfer(true, unit, address, size, data);
  }

  window(address) {
    this.write(BACKPLANE, 0x1000a, (address >>> 8) & 0x80, 1);
    this.write(BACKPLANE, 0x1000b, (address >>> 16) & 0xff, 1);
    this.write(BACKPLANE, 0x1000c, address >>> 24, 1);
    return address & 0x7fff;
  }

  load(address, bytes) {
    for (let at = 0; at < bytes.length; at += 64) {
      const piece = bytes.subarray(at, at + 64);
      this.transfer(true, BACKPLANE, this.window(address + at), piece.length, piece);
    }
  }

  configureBus() {
    this.write(BUS, 0x00, 0x000204b3);
    this.wide = true;
    this.write(BUS, 0x1d, 16, 1);
  }

  release() {
    this.write(BACKPLANE, this.window(0x18103800), 0);
  }

  download({ token = ((~186 & 0xffff) << 16) | 186 } = {}) {
    this.load(0, Buffer.alloc(4096, 0x5a));
    this.load(0x80000 - 4 - NVRAM.length, NVRAM);
    const word = Buffer.alloc(4);
    word.writeUInt32LE(token >>> 0);
    this.load(0x80000 - 4, word);
    this.release();
  }

  // All of it, until the chip takes packets.
  start() {
    this.chip.power(true);
    this.configureBus();
    this.download();
    this.clock.pass(50);
    this.write(BUS, 0x06, 0xbe, 2);
    return this;
  }

  // Packets

  send(channel, body, head = channel === 0 ? 12 : 14) {
    const packet = Buffer.alloc(head + body.length);
    packet.writeUInt16LE(packet.length, 0);
    packet.writeUInt16LE(~packet.length & 0xffff, 2);
    packet[4] = this.sequence++ & 0xff;
    packet[5] = channel;
    packet[7] = head;
    body.copy(packet, head);
    this.transfer(true, PACKETS, 0, packet.length, packet);
  }

  // The next packet, or null: {channel, sequence, credit, body}.
  next() {
    const status = this.read(BUS, 0x08);
    if (!(status & 0x100)) return null;
    const packet = Buffer.from(this.transfer(false, PACKETS, 0, (status >>> 9) & 0x7ff));
    assert.equal(packet.readUInt16LE(0), packet.length);
    assert.equal(packet.readUInt16LE(2), ~packet.length & 0xffff);
    const [sequence, channel, , head, , credit] = packet.subarray(4);
    return { channel, sequence, credit, body: packet.subarray(head) };
  }

  all() {
    const list = [];
    for (let packet = this.next(); packet; packet = this.next()) list.push(packet);
    return list;
  }

  ioctl(set, command, data) {
    const head = Buffer.alloc(16);
    head.writeUInt32LE(command, 0);
    head.writeUInt32LE(data.length, 4);
    head.writeUInt32LE(((++this.id << 16) | (set ? 2 : 0)) >>> 0, 8);
    this.send(0, Buffer.concat([head, data]));
  }

  variable(set, name, value) {
    this.ioctl(set, set ? 263 : 262, Buffer.concat([Buffer.from(`${name}\0`), value]));
  }

  key(password) {
    const data = Buffer.alloc(68);
    data.writeUInt16LE(password.length, 0);
    data.writeUInt16LE(1, 2);
    data.write(password, 4);
    this.ioctl(true, 268, data);
  }

  join(ssid = 'home', password = 'correct horse') {
    this.ioctl(true, 134, word(password ? 6 : 0));
    if (password) this.key(password);
    const name = Buffer.alloc(36);
    name.writeUInt32LE(name.write(ssid, 4), 0);
    this.ioctl(true, 26, name);
    return this;
  }

  // [name of the number, status, reason, flags] of each event that is there
  events() {
    const found = this.all().filter(({ channel }) => channel === 1);
    return found.map(({ body }) => {
      const frame = body.subarray(4);
      assert.equal(frame.readUInt16BE(12), 0x886c);
      assert.equal(frame.toString('hex', 19, 22), '001018');
      return [frame.readUInt32BE(28), frame.readUInt32BE(32), frame.readUInt32BE(36), frame.readUInt16BE(26)];
    });
  }

  eventsAfter(ms) {
    this.clock.pass(ms);
    return this.events();
  }

  joined(options) {
    this.start().join(options);
    this.clock.pass(1000);
    this.all();
    return this;
  }

  frame(target, type, body) {
    const head = Buffer.alloc(14);
    target.copy(head, 0);
    MAC.copy(head, 6);
    head.writeUInt16BE(type, 12);
    this.send(2, Buffer.concat([Buffer.from([0x20, 0, 0, 0]), head, body]));
  }

  // Ethernet frames that come within `ms`
  frames(ms = 20) {
    this.clock.pass(ms);
    const data = this.all().filter(({ channel }) => channel === 2);
    return data.map(({ body }) => body.subarray(4));
  }

  // Ask DHCP; return [kind, address] of the answer, or null.
  dhcp(kind, wanted = null, ms = 100) {
    const message = Buffer.alloc(244);
    message.set([1, 1, 6]);
    message.writeUInt32BE(0x12345678, 4);
    MAC.copy(message, 28);
    message.writeUInt32BE(0x63825363, 236);
    message.set([53, 1, kind, 0], 240);
    const asked = wanted ? Buffer.from([50, 4, ...wanted]) : Buffer.alloc(0);
    const data = Buffer.concat([message, asked, Buffer.from([255])]);
    this.frame(Buffer.alloc(6, 255), 0x0800, datagram([0, 0, 0, 0], [255, 255, 255, 255], 68, 67, data));
    const [answer] = this.frames(ms);
    if (!answer) return null;
    const reply = answer.subarray(14 + 28);
    assert.equal(reply.readUInt32BE(4), 0x12345678);
    assert.deepEqual(reply.subarray(28, 34), MAC);
    assert.deepEqual([...reply.subarray(240, 242)], [53, 1]);
    return [reply[242], [...reply.subarray(16, 20)]];
  }
}

function word(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

function datagram(source, target, from, to, data) {
  const head = Buffer.alloc(28);
  head[0] = 0x45;
  head.writeUInt16BE(28 + data.length, 2);
  head[8] = 64;
  head[9] = 17;
  head.set([...source, ...target], 12);
  head.writeUInt16BE(from, 20);
  head.writeUInt16BE(to, 22);
  head.writeUInt16BE(8 + data.length, 24);
  return Buffer.concat([head, data]);
}

const JOINED = [[87, 0, 0, 0], [3, 0, 0, 0], [88, 0, 0, 0], [7, 0, 0, 0], [16, 0, 0, 1]];
const GOOD = [...JOINED, [46, 6, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]];
const LOST = [16, 0, 1, 0];

const checks = {
  // The bus

  'the test pattern is there in words of 16 bits, and of 32 after the first write'() {
    const driver = new Driver();
    assert.equal(driver.read(BUS, 0x14), 0); // no power
    driver.chip.power(true);
    assert.equal(driver.read(BUS, 0x14), 0xfeedbead);
    driver.configureBus();
    assert.equal(driver.read(BUS, 0x14), 0xfeedbead);
    driver.wide = false;
    assert.notEqual(driver.read(BUS, 0x14), 0xfeedbead);
  },
  'the pattern is on the wire as BE AD FE ED before that'() {
    const driver = new Driver();
    driver.chip.power(true);
    // read, increment, function 0, address 0x14, 4 bytes: 0x4000a004, its halves swapped
    const back = driver.chip.transfer(Buffer.from([0xa0, 0x04, 0x40, 0x00]), 4);
    assert.equal(back.toString('hex'), 'beadfeed');
  },
  'registers keep what is written, an interrupt that is acknowledged stays with its cause'() {
    const driver = new Driver().start();
    driver.write(BUS, 0x06, 0x20, 2);
    assert.equal(driver.read(BUS, 0x06, 2), 0x20);
    assert.equal(driver.read(BUS, 0x04, 2), 0);
    driver.variable(false, 'cur_etheraddr', Buffer.alloc(6));
    driver.clock.pass(5);
    driver.write(BUS, 0x04, 0x20, 2);
    assert.equal(driver.read(BUS, 0x04, 2), 0x20);
    assert.equal(driver.interrupt, true);
    driver.all();
    assert.equal(driver.read(BUS, 0x04, 2), 0);
    assert.equal(driver.interrupt, false);
  },
  'answers of the backplane come after the delay'() {
    const driver = new Driver();
    driver.chip.power(true);
    driver.configureBus();
    const window = driver.window(0x18103800);
    const command = (0x50000000 | (window << 11) | 4) >>> 0;
    const back = driver.chip.transfer(word(command | 0), 20);
    assert.deepEqual([...back.subarray(0, 16)], new Array(16).fill(0));
    assert.equal(back.readUInt32LE(16), 1); // in reset, as after power-on
  },
  'the window moves over the backplane'() {
    const driver = new Driver();
    driver.chip.power(true);
    driver.configureBus();
    for (const at of [0x0, 0x7ffc, 0x8000, 0x12340, 0x7fffc]) driver.load(at, word(at + 1));
    for (const at of [0x7fffc, 0x12340, 0x8000, 0x7ffc, 0x0]) {
      assert.equal(driver.read(BACKPLANE, driver.window(at)), at + 1);
    }
  },
  'the clocks come, the fast one after the firmware was started'() {
    const driver = new Driver();
    driver.chip.power(true);
    driver.configureBus();
    driver.write(BACKPLANE, 0x1000e, 0x08, 1);
    assert.equal(driver.read(BACKPLANE, 0x1000e, 1), 0x48);
    driver.download();
    driver.clock.pass(20);
    assert.equal(driver.read(BACKPLANE, 0x1000e, 1) & 0x80, 0);
    driver.clock.pass(10);
    assert.equal(driver.read(BACKPLANE, 0x1000e, 1) & 0x80, 0x80);
    driver.write(BACKPLANE, 0x1001f, 1, 1);
    assert.equal(driver.read(BACKPLANE, 0x1001f, 1), 3); // awake
  },
  'the firmware that is downloaded is swallowed; without one, or its NVRAM, nothing starts'() {
    for (const [load, ready] of [
      [(driver) => driver.download(), true],
      [(driver) => driver.download({ token: 186 }), false],
      [(driver) => driver.release(), false],
    ]) {
      const driver = new Driver();
      driver.chip.power(true);
      driver.configureBus();
      load(driver);
      driver.clock.pass(100);
      assert.equal((driver.read(BUS, 0x08) & 0x20) !== 0, ready);
      assert.equal(driver.log.some((text) => /no firmware/.test(text)), !ready);
    }
  },
  'without power all is forgotten'() {
    const driver = new Driver().joined();
    driver.chip.power(false);
    assert.equal(driver.radio.wlan.carries, false);
    driver.chip.power(true);
    driver.wide = false;
    assert.equal(driver.read(BUS, 0x14), 0xfeedbead);
    driver.configureBus();
    assert.equal(driver.read(BUS, 0x08) & 0x20, 0);
    driver.clock.pass(10_000); // what was to happen before does not
    assert.equal(driver.interrupt, false);
  },
  'the PIO of an RP2040 carries it, and takes the time of its bits'() {
    const { chip } = new Driver();
    const mcu = new RP2040();
    const gspi = new Gspi(mcu, chip);
    chip.power(true);
    const [pio] = mcu.pio;
    const machine = pio.machines[2];
    machine.writeUint32(0x14, (1 << 29) | (1 << 26) | (29 << 10) | 24); // PINCTRL
    machine.writeUint32(0x00, 2 << 16); // CLKDIV
    machine.writeUint32(0x04, (4 << 12) | (0 << 7)); // EXECCTRL: wrap over both loops
    machine.x = 31;
    machine.y = 31;
    pio.writeUint32(0x000, 1 << 2); // CTRL
    pio.writeUint32(0x018, 0xa0044000); // TXF2
    assert.equal(gspi.active, true);
    const stalled = 1 << 26;
    assert.equal(pio.readUint32(0x008) & stalled, 0); // FDEBUG
    const nanos = (64 * 2 * 2 * 1e9) / mcu.clkSys;
    mcu.clock.tick(nanos - 10);
    assert.equal(pio.readUint32(0x008) & stalled, 0);
    mcu.clock.tick(20);
    assert.equal(pio.readUint32(0x008) & stalled, stalled);
    assert.equal(pio.readUint32(0x028) >>> 0, 0xbeadfeed); // RXF2
  },

  // Packets

  'credit goes ten packets ahead of what came, and comes with every packet'() {
    const driver = new Driver().start();
    for (let count = 1; count < 30; count++) {
      driver.ioctl(true, 64, word(0));
      driver.clock.pass(2);
      const [answer] = driver.all();
      assert.equal(answer.credit, (count - 1 + 11) & 0xff);
      assert.equal(answer.sequence, count);
    }
  },
  'a frame gets its credit alone'() {
    const driver = new Driver().joined();
    driver.frame(Buffer.alloc(6, 255), 0x0800, Buffer.alloc(4));
    const [credit] = driver.all();
    assert.deepEqual([credit.channel, credit.body.length], [0, 0]);
  },
  'a broken packet is told and nothing else'() {
    const driver = new Driver().start();
    driver.transfer(true, PACKETS, 0, 16, Buffer.alloc(16, 7));
    driver.send(0, Buffer.alloc(3));
    assert.equal(driver.log.filter((text) => /broken packet/.test(text)).length, 2);
    assert.equal(driver.next(), null);
  },
  'answers to commands carry the id of the request'() {
    const driver = new Driver().start();
    driver.variable(false, 'cur_etheraddr', Buffer.alloc(6));
    assert.equal(driver.next(), null); // it takes its time
    driver.clock.pass(1);
    const { channel, body } = driver.next();
    assert.equal(channel, 0);
    assert.equal(body.readUInt32LE(0), 262);
    assert.equal(body.readUInt32LE(8) >>> 16, driver.id);
    assert.equal(body.readInt32LE(12), 0);
    assert.equal(body.toString('hex', 16, 19), '28cdc1'); // an address of Raspberry Pi's
    driver.ioctl(false, 23, Buffer.alloc(6)); // the address of the access point: there is none
    driver.clock.pass(1);
    const refused = driver.next().body;
    assert.deepEqual([refused.readUInt32LE(8) & 1, refused.readInt32LE(12)], [1, -17]);
  },
  'what was set is got'() {
    const driver = new Driver().start();
    driver.variable(true, 'mcast_list', word(77));
    driver.ioctl(true, 86, word(2));
    driver.clock.pass(2);
    driver.all();
    driver.variable(false, 'mcast_list', Buffer.alloc(8));
    driver.ioctl(false, 85, Buffer.alloc(4));
    driver.clock.pass(2);
    const [list, mode] = driver.all();
    assert.equal(list.body.readUInt32LE(16), 77);
    assert.equal(mode.body.readUInt32LE(16), 2);
  },

  // Joining

  'a good join gives the events of the real one, in order and in time'() {
    const driver = new Driver().start().join();
    assert.deepEqual(driver.eventsAfter(639), []);
    assert.deepEqual(driver.eventsAfter(45), GOOD);
    assert.equal(driver.radio.wlan.carries, true);
  },
  'an open network needs no keys'() {
    const driver = new Driver([{ ssid: 'cafe' }]).start().join('cafe', null);
    assert.deepEqual(driver.eventsAfter(700), GOOD.filter(([type]) => type !== 46));
  },
  'the key may be the 64 digits'() {
    // IEEE 802.11, annex J.4: passphrase "password", SSID "IEEE"
    const digits = 'f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e';
    const driver = new Driver([{ ssid: 'IEEE', password: 'password' }]).start().join('IEEE', digits);
    assert.deepEqual(driver.eventsAfter(700), GOOD);
  },
  'a network that is not there is told after 930 ms'() {
    const driver = new Driver().start().join('other');
    assert.deepEqual(driver.eventsAfter(925), []);
    assert.deepEqual(driver.eventsAfter(10), [[0, 3, 0, 0]]);
  },
  'a wrong password ends in each of the known ways'() {
    const refused = [[6, 0, 15, 0], [46, 8, 14, 0], [16, 0, 2, 0]];
    const ways = {
      deauth: refused,
      timeout: [[46, 8, 15, 0]],
      retry: [...refused, ...JOINED, ...refused, ...JOINED],
      silent: [],
    };
    for (const [wrong_key, told] of Object.entries(ways)) {
      const driver = new Driver().start();
      driver.radio.commands.wifi_air({ wrong_key });
      driver.join('home', 'incorrect');
      assert.deepEqual(driver.eventsAfter(9000), [...JOINED, ...told], wrong_key);
      assert.equal(driver.radio.wlan.carries, false);
    }
  },
  'a weak signal fails as often as asked for'() {
    const driver = new Driver().start();
    driver.radio.commands.wifi_air({ weak_joins: 1 });
    driver.join();
    assert.deepEqual(driver.eventsAfter(6000), [...JOINED, [46, 8, 15, 0]]);
    driver.join();
    assert.deepEqual(driver.eventsAfter(1000), GOOD);
  },
  'an access point that does not answer is told, or is not'() {
    const driver = new Driver().start();
    driver.radio.commands.wifi_air({ authentication: 'silent' });
    driver.join();
    assert.deepEqual(driver.eventsAfter(2000), [[3, 5, 0, 0], [0, 1, 0, 0]]);
    driver.radio.commands.wifi_air({ authentication: 'none' });
    driver.join();
    assert.deepEqual(driver.eventsAfter(60_000), []);
  },
  'a command to leave is an event, where there was something to leave'() {
    const driver = new Driver().joined();
    driver.ioctl(true, 52, Buffer.alloc(0));
    assert.deepEqual(driver.eventsAfter(10), [[11, 0, 8, 0], [16, 0, 2, 0]]);
    driver.ioctl(true, 52, Buffer.alloc(0));
    assert.deepEqual(driver.eventsAfter(3000), []);
  },
  'a join is ended by another one'() {
    const driver = new Driver().start().join('other');
    driver.clock.pass(900);
    driver.join();
    assert.deepEqual(driver.eventsAfter(1000), GOOD);
  },

  // Losing it

  'an access point without power is missed after 8 s, and joined again when it is back'() {
    const driver = new Driver().joined();
    driver.radio.commands.wifi_access_point({ ssid: 'home', up: false });
    assert.deepEqual(driver.eventsAfter(7900), []);
    assert.equal(driver.radio.wlan.carries, false);
    assert.deepEqual(driver.eventsAfter(200), [LOST]);
    assert.deepEqual(driver.eventsAfter(5000), []);
    driver.radio.commands.wifi_access_point({ ssid: 'home', up: true });
    assert.deepEqual(driver.eventsAfter(4000), GOOD);
  },
  'beacons that are lost for a while cost nothing, for longer the network'() {
    const driver = new Driver().joined();
    driver.radio.commands.wifi_air({ beacons: false });
    driver.clock.pass(5000);
    driver.radio.commands.wifi_air({ beacons: true });
    assert.deepEqual(driver.eventsAfter(10_000), []);
    driver.radio.commands.wifi_air({ beacons: false, rejoins: false });
    assert.deepEqual(driver.eventsAfter(10_000), [LOST]);
    driver.radio.commands.wifi_air({ beacons: true });
    assert.deepEqual(driver.eventsAfter(60_000), []);
  },
  'a goodbye is told with the link, or without, and the chip joins again'() {
    for (const [how, type] of [['deauth', 6], ['disassoc', 12]]) {
      for (const told of [true, false]) {
        const driver = new Driver().joined();
        driver.radio.commands.wifi_kick({ how, told });
        const events = [[type, 0, 4, 0], ...(told ? [[16, 0, 2, 0]] : [])];
        assert.deepEqual(driver.events(), events);
        assert.deepEqual(driver.eventsAfter(1000), GOOD);
      }
    }
    assert.throws(() => new Driver().radio.commands.wifi_kick({ how: 'kindly' }), /no goodbye/);
  },
  'an association that the access point forgot carries nothing, and nobody is told'() {
    const driver = new Driver().joined();
    driver.radio.commands.wifi_forget();
    assert.equal(driver.dhcp(1), null);
    assert.deepEqual(driver.eventsAfter(60_000), []);
    driver.join();
    driver.clock.pass(1000);
    driver.all();
    assert.equal(driver.dhcp(1)[0], 2);
  },
  'a chip that leaves by itself says so'() {
    const driver = new Driver().joined();
    driver.radio.commands.wifi_lapse();
    assert.deepEqual(driver.events(), [[11, 0, 1, 0]]);
    driver.radio.commands.wifi_keys_differ(); // there is no association any more
    assert.deepEqual(driver.events(), []);
    driver.clock.pass(1000);
    driver.all();
    driver.radio.commands.wifi_keys_differ();
    assert.deepEqual(driver.events(), [[49, 0, 0, 0]]);
  },

  // The chip

  'a dead chip answers nothing, and a power cycle does not heal it'() {
    const driver = new Driver().joined();
    driver.radio.commands.wifi_chip({ dead: true });
    assert.equal(driver.read(BUS, 0x08), 0);
    driver.chip.power(false);
    driver.chip.power(true);
    driver.wide = false;
    assert.equal(driver.read(BUS, 0x14), 0);
    driver.radio.commands.wifi_heal();
    assert.equal(driver.read(BUS, 0x14), 0xfeedbead);
  },
  'a chip that hangs is healed by a power cycle'() {
    for (const fault of ['hung', 'clogged', 'creditless']) {
      const driver = new Driver().joined();
      driver.radio.commands.wifi_chip({ [fault]: true });
      assert.equal(driver.read(BUS, 0x08) & 0x20, fault === 'clogged' ? 0 : 0x20);
      const { credit } = driver.chip;
      driver.ioctl(true, 64, word(0));
      driver.clock.pass(5);
      const answers = driver.all();
      assert.equal(answers.length, fault === 'hung' ? 0 : 1);
      if (fault === 'creditless') assert.equal(answers[0].credit, credit);
      driver.chip.power(false);
      driver.wide = false;
      driver.sequence = 0;
      driver.start().join();
      assert.deepEqual(driver.eventsAfter(1000), GOOD);
    }
  },
  'a command, or a variable, may stay unanswered'() {
    const driver = new Driver().start();
    driver.radio.commands.wifi_air({ unanswered: [86, 'country'] });
    driver.ioctl(true, 86, word(0));
    driver.variable(true, 'country', Buffer.alloc(12));
    driver.ioctl(true, 64, word(0));
    driver.clock.pass(100);
    assert.deepEqual(driver.all().map(({ body }) => body.readUInt32LE(0)), [64]);
  },
  'a scan tells of each network, and then of its end'() {
    const driver = new Driver([{ ssid: 'a' }, { ssid: 'b', password: 'secret secret' }]).start();
    driver.variable(true, 'escan', Buffer.alloc(64));
    driver.clock.pass(1600);
    const events = driver.all().filter(({ channel }) => channel === 1);
    const names = events.map(({ body }) => body.subarray(4 + 72)).map((data) =>
      data.length ? data.toString('utf8', 12 + 19, 12 + 19 + data[12 + 18]) : null,
    );
    assert.deepEqual(names, ['a', 'b', null]);
    assert.deepEqual(events.map(({ body }) => body.readUInt32BE(4 + 32)), [8, 8, 0]);
  },

  // Behind the access point

  'ARP finds the host at its addresses, and nobody at others'() {
    const driver = new Driver().joined();
    for (const [last, there] of [[1, true], [9, true], [2, false], [10, false]]) {
      const request = Buffer.alloc(28);
      request.set([0, 1, 8, 0, 6, 4, 0, 1, ...MAC, 10, 77, 0, 2, 0, 0, 0, 0, 0, 0, 10, 77, 0, last]);
      driver.frame(Buffer.alloc(6, 255), 0x0806, request);
      const [reply] = driver.frames();
      assert.equal(reply !== undefined, there, `10.77.0.${last}`);
      if (!there) continue;
      assert.deepEqual(reply.subarray(0, 6), MAC);
      const body = reply.subarray(14);
      assert.equal(body.readUInt16BE(6), 2);
      assert.deepEqual([...body.subarray(14, 18)], [10, 77, 0, last]);
      assert.deepEqual(body.subarray(8, 14), reply.subarray(6, 12));
    }
    driver.radio.commands.wifi_router({ arp: 'silent' });
    driver.frame(Buffer.alloc(6, 255), 0x0806, Buffer.from(
      [0, 1, 8, 0, 6, 4, 0, 1, ...MAC, 10, 77, 0, 2, 0, 0, 0, 0, 0, 0, 10, 77, 0, 1]));
    assert.deepEqual(driver.frames(), []);
  },
  'DHCP offers and acknowledges the address, and refuses another'() {
    const driver = new Driver().joined();
    assert.deepEqual(driver.dhcp(1), [2, [10, 77, 0, 2]]);
    assert.deepEqual(driver.dhcp(3, [10, 77, 0, 2]), [5, [10, 77, 0, 2]]);
    assert.deepEqual(driver.dhcp(3, [10, 77, 0, 66]), [6, [0, 0, 0, 0]]);
    assert.equal(driver.dhcp(7), null); // a release
  },
  'DHCP is silent, slow, says no, only offers, or gives another address'() {
    const driver = new Driver().joined();
    const router = (faults) => driver.radio.commands.wifi_router(faults);
    router({ dhcp: 'silent' });
    assert.equal(driver.dhcp(1), null);
    router({ dhcp: 'nak' });
    assert.equal(driver.dhcp(3, [10, 77, 0, 2])[0], 6);
    router({ dhcp: 'offer' });
    assert.equal(driver.dhcp(1)[0], 2);
    assert.equal(driver.dhcp(3, [10, 77, 0, 2]), null);
    router({ dhcp: 'up', dhcp_ms: 4000 });
    assert.equal(driver.dhcp(1), null);
    assert.equal(driver.frames(4000).length, 1);
    router({ dhcp_ms: 5, address: '10.77.0.42' });
    assert.deepEqual(driver.dhcp(1), [2, [10, 77, 0, 42]]);
    assert.equal(driver.dhcp(3, [10, 77, 0, 2])[0], 6);
    assert.throws(() => router({ address: '10.77.0.5' }), /no address for the board/);
    assert.throws(() => router({ dhcp: 'perhaps' }), /dhcp cannot be "perhaps"/);
    assert.throws(() => router({ dhcpp: 'up' }), /no dhcpp/);
  },
  'broken frames and messages of DHCP are dropped'() {
    const driver = new Driver().joined();
    const everyone = Buffer.alloc(6, 255);
    for (const [type, body] of [
      [0x0806, Buffer.alloc(10)],
      [0x0800, Buffer.alloc(10)],
      [0x0800, datagram([0, 0, 0, 0], [255, 255, 255, 255], 68, 67, Buffer.alloc(100))],
      [0x86dd, Buffer.alloc(60)],
    ]) {
      driver.frame(everyone, type, body);
    }
    driver.send(2, Buffer.from([0x20, 0, 0, 0, 1, 2, 3]));
    assert.deepEqual(driver.frames(), []);
    assert.equal(driver.dhcp(1)[0], 2);
  },
  'IP goes to the network from the address that the router gave, and from no other'() {
    const driver = new Driver().joined();
    const router = Buffer.from([0x02, 0x00, 0x5e, 0x10, 0x00, 0x01]);
    for (const last of [2, 3]) {
      driver.frame(router, 0x0800, datagram([10, 77, 0, last], [10, 77, 0, 1], 5000, 53, word(1)));
    }
    driver.clock.pass(20);
    assert.equal(driver.received.length, 1);
    driver.radio.send(driver.received[0]);
    const [frame] = driver.frames();
    assert.deepEqual(frame.subarray(0, 6), MAC);
    assert.deepEqual(frame.subarray(14), driver.received[0]);
  },
  'what comes for a chip that sleeps waits for its beacon'() {
    const driver = new Driver().joined();
    const packet = datagram([10, 77, 0, 1], [10, 77, 0, 2], 53, 5000, word(1));
    driver.ioctl(true, 86, word(2));
    driver.clock.pass(1000);
    driver.all();
    driver.clock.pass(102.4 - ((driver.clock.nanos / MS) % 102.4) + 2);
    driver.radio.send(packet);
    assert.equal(driver.frames(95).length, 0);
    assert.equal(driver.frames(10).length, 1);
    driver.radio.send(packet); // it is awake for 200 ms
    assert.equal(driver.frames(5).length, 1);
  },
};

let failed = false;
for (const [name, check] of Object.entries(checks)) {
  let error = null;
  try {
    check();
  } catch (caught) {
    error = caught.stack;
    failed = true;
  }
  console.log(JSON.stringify({ name, error }));
}
process.exitCode = failed ? 1 : 0;
