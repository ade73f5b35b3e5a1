// Compares core.mjs with rp2040js: node compare.mjs FIRMWARE
//
// Every opcode, with registers at random, in RAM and in flash; then the begin of the firmware's
// start. Prints what differs and fails, or prints how much was compared.

import fs from 'node:fs';

import { Core } from './core.mjs';
import { installRom } from './rom.mjs';
import { ConsoleLogger, LogLevel, RP2040 } from './rp2040js.mjs';

const RAM = 0x20000000;
const FLASH = 0x10000000;
const START_CYCLES = 10e6; // of the firmware's start
const BURST = 1000;

let seed = 1;
function random(below) {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
}

function chip() {
  const mcu = new RP2040();
  mcu.logger = new ConsoleLogger(LogLevel.Error + 1); // it complains of what is random
  mcu.flash = new Uint8Array(2 * 1024 * 1024);
  mcu.flash16 = new Uint16Array(mcu.flash.buffer);
  mcu.flashView = new DataView(mcu.flash.buffer);
  return mcu;
}

function state({ core }) {
  const { registers, N, Z, C, V, PM, IPSR, waiting } = core;
  const values = [...registers].map((value) => value.toString(16));
  values[15] = ((registers[15] & ~1) >>> 0).toString(16); // rp2040js keeps the Thumb bit at times
  return JSON.stringify({ values, N, Z, C, V, PM, IPSR, waiting });
}

function check(what, ours, theirs) {
  let differs = state(ours) !== state(theirs);
  differs ||= Buffer.compare(ours.sram, theirs.sram) !== 0;
  if (!differs) return;
  console.log(`${what}:\n  rp2040js ${state(theirs)}\n  core.mjs ${state(ours)}`);
  process.exit(1);
}

// A register's value: often an address, often a small or a special number.
function value() {
  switch (random(5)) {
    case 0:
      return RAM + 0x8000 + random(0x1000);
    case 1:
      return RAM + 0x8000 + 4 * random(0x400);
    case 2:
      return FLASH + 4 * random(0x1000);
    case 3:
      return [0, 1, 31, 32, 33, 255, 0x7fffffff, 0x80000000, 0xffffffff][random(9)];
    default:
      return random(2 ** 32);
  }
}

function compareOpcodes() {
  const [ours, theirs] = [chip(), chip()];
  ours.sram.forEach((_, at) => (ours.sram[at] = theirs.sram[at] = random(256)));
  ours.flash.forEach((_, at) => (ours.flash[at] = theirs.flash[at] = random(256)));
  const core = new Core(ours);
  let known = 0;
  for (let op = 0; op < 65536; op++) {
    const pc = random(2) ? RAM + 0x100 : FLASH + 0x100;
    const second = random(65536) | (random(2) ? 0xd000 : 0);
    for (const mcu of [ours, theirs]) {
      mcu.core.registers.set([pc], 15);
      const view = pc < RAM ? mcu.flashView : mcu.sramView;
      view.setUint16(0x100, op, true);
      view.setUint16(0x102, second, true);
    }
    for (let i = 0; i < 15; i++) {
      const chosen = i === 13 ? RAM + 0x8000 + 4 * random(0x400) : value();
      ours.core.registers[i] = theirs.core.registers[i] = chosen;
    }
    const [N, C, V] = [random(2) === 1, random(2) === 1, random(2) === 1];
    const Z = !N && random(2) === 1; // never both
    Object.assign(ours.core, { N, Z, C, V });
    Object.assign(theirs.core, { N, Z, C, V });
    const cycles = core.burst(1);
    if (core.stuck) {
      // Then nothing has happened, and rp2040js has its turn.
      if (cycles !== 0 || ours.core.registers[15] !== pc) {
        console.log(`opcode ${op.toString(16)}: stuck, but not where it was`);
        process.exit(1);
      }
      check(`opcode ${op.toString(16)}, stuck`, ours, theirs);
      continue;
    }
    known++;
    const expected = theirs.core.executeInstruction();
    check(`opcode ${op.toString(16)} ${second.toString(16)}`, ours, theirs);
    if (cycles !== expected) {
      console.log(`opcode ${op.toString(16)}: ${cycles} cycles, not ${expected}`);
      process.exit(1);
    }
  }
  return known;
}

function compareStart(firmware) {
  const [ours, theirs] = [chip(), chip()];
  for (const mcu of [ours, theirs]) {
    mcu.flash.set(fs.readFileSync(firmware));
    installRom(mcu, {
      erase: (offset, count) => mcu.flash.fill(0xff, offset, offset + count),
      program: (offset, data) => mcu.flash.set(data, offset),
    });
    mcu.core.reset();
    mcu.core.PC = FLASH;
  }
  const core = new Core(ours);
  let cycles = 0;
  let executed = 0;
  let behind = 0; // cycles of rp2040js
  while (cycles < START_CYCLES && !ours.core.waiting) {
    const done = core.run(BURST);
    cycles += done;
    behind += done;
    while (behind > 0) {
      const nanos = 1e9 / theirs.clkSys;
      const more = theirs.core.executeInstruction();
      theirs.clock.tick(more * nanos);
      behind -= more;
      executed++;
    }
    check(`start, after ${cycles} cycles`, ours, theirs);
  }
  return executed;
}

const opcodes = compareOpcodes();
const instructions = compareStart(process.argv[2]);
console.log(JSON.stringify({ opcodes, instructions }));
