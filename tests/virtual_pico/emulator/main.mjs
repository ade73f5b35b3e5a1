// An RP2040 with MicroPython: node main.mjs '{"firmware": "…", "flash": "…", …}'
//
// The argument is described at `settings`. Each line on standard input is a command, each line on
// standard output an answer or an event (control.mjs). It ends when standard input does.

import { createHash } from 'node:crypto';

import { Board } from './board.mjs';
import { Control } from './control.mjs';
import { Flash } from './flash.mjs';
import { DEVICE, HOST, Network, NO_FAULTS } from './ip.mjs';
import { Loop } from './loop.mjs';
import { ChipReset } from './power.mjs';
import { PPP } from './ppp.mjs';
import { Radio } from './radio.mjs';
import { ReplServer } from './usb.mjs';

const settings = {
  firmware: null, // path of the image
  flash: null, // path of the file that keeps the filesystem
  flash_bytes: undefined, // how large the flash is, where not as a Pico's;
  kept_from: undefined, // where the filesystem begins in it, where not as a Pico W's
  networks: null, // [{ssid, password, channel, rssi}]: a Pico W's Wi-Fi, with these; else PPP
  ports: {}, // {"port that the device uses": port of this computer}
  names: {}, // {name: address} for the built-in DNS server
  speed: 1, // of idle time
  id: '', // the chip's unique id is made from it
  seed: 1, // of what is left to chance
  ...JSON.parse(process.argv[2]),
};

const digest = (text) => createHash('sha256').update(text).digest();

// Numbers from 0 to 1, the same with the same seed.
let drawn = 0;
const random = () => digest(`${settings.seed} ${drawn++}`).readUInt32BE() / 2 ** 32;

const flash = new Flash({
  image: settings.firmware,
  size: settings.flash_bytes,
  kept: settings.kept_from,
  file: settings.flash,
  random,
});
const repl = new ReplServer(() => loop.wake());
const control = new Control();

// The board's, which a restart of the chip changes.
const clock = {
  get nanos() {
    return board.nanos;
  },
  after: (nanos, work) => board.after(nanos, work),
};
const link = settings.networks ? wifi() : ppp();

const board = new Board({
  flash,
  repl,
  uniqueId: digest(settings.id).subarray(0, 8),
  ...link.board,
  reset: (watchdog) => {
    throw new ChipReset(watchdog);
  },
});
const network = new Network({
  ...settings,
  random,
  clock: board,
  send: (packet) => {
    loop.packet();
    link.send(packet);
  },
  wake: () => loop.wake(),
});
const loop = new Loop(board, settings.speed, {
  reset: (watchdog) => start('watchdog', watchdog),
  powerLost: () => {
    board.powerOff();
    control.tell({ event: 'power_off' });
  },
  crashed: (error) => {
    board.powerOff();
    control.tell({ event: 'crashed', error: String(error.stack) });
  },
});

// The way of packets between the board and the network:
//
//   board      what Board wants of it
//   send       (packet) to the board
//   commands   of the control channel
//   terminate  () end it, as far as its protocol can
//   stats      () => object
function wifi() {
  const radio = new Radio({
    networks: settings.networks,
    id: settings.id,
    host: HOST,
    device: DEVICE,
    clock,
    receive: (packet) => {
      loop.packet();
      network.fromDevice(packet);
    },
    log: (text) => console.error(`${(board.nanos / 1e9).toFixed(4)} ${text}`),
  });
  return {
    board: { radio: radio.chip },
    send: (packet) => radio.send(packet),
    commands: radio.commands,
    terminate: () => {},
    stats: () => ({}),
  };
}

function ppp() {
  const line = new PPP({
    host: HOST,
    device: DEVICE,
    send: (bytes) => board.serial.send(bytes),
    receive: (packet) => {
      loop.packet();
      board.after(board.serial.behind, () => network.fromDevice(packet));
    },
    isCut: () => network.faults.link !== 'up',
  });
  return {
    board: { line: { receive: (byte) => line.input(byte), restart: () => line.restart() } },
    send: (packet) => line.sendPacket(packet),
    commands: {},
    terminate: () => line.terminate(),
    stats: () => ({ bad_frames: line.badFrames }),
  };
}

function start(cause, watchdog = null) {
  board.start(watchdog);
  network.tcp.startTimer();
  control.tell({ event: 'boot', cause });
  loop.wake();
}

const commands = {
  ...link.commands,
  power_on() {
    if (!board.powered) start('power');
  },
  reset() {
    start('run_pin');
  },
  // Without `after`: now. Else during the operation of flash after `after` more of them.
  power_cut({ after = null, part = 0 }) {
    if (after !== null) {
      flash.cutPower(after, part);
      return;
    }
    board.powerOff();
    control.tell({ event: 'power_off' });
  },
  fault(changes) {
    for (const name of Object.keys(changes)) {
      if (!(name in NO_FAULTS)) throw new Error(`no fault ${name}: ${Object.keys(NO_FAULTS)}`);
    }
    if (changes.link === 'down') link.terminate();
    Object.assign(network.faults, changes);
  },
  heal() {
    Object.assign(network.faults, NO_FAULTS);
  },
  reset_connections() {
    network.tcp.resetAll();
  },
  names({ names }) {
    network.names = names;
  },
  ports({ ports }) {
    network.ports = ports;
  },
  speed({ speed }) {
    loop.speed = speed;
  },
  stats() {
    return {
      ...network.stats,
      ...link.stats(),
      connections: network.tcp.connections.size,
      flash_writes: flash.operations,
      emulated_s: board.nanos / 1e9,
      powered: board.powered,
    };
  },
};

const replPort = await repl.listen();
control.serve((name, parameters) => {
  if (!Object.hasOwn(commands, name)) throw new Error(`no command ${name}`);
  const result = commands[name](parameters);
  loop.wake();
  return result;
});
control.tell({ event: 'ready', repl_port: replPort });
