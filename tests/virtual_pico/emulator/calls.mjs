// Functions of a firmware, called one at a time on a chip that has started it.

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { Board } from './board.mjs';
import { Flash } from './flash.mjs';

const RAM = 0x20000000;
const FLASH_ID = 0x10;
const BKPT = 0xbe00;
const STARTED = 0xff; // its number where the firmware's start ends
const ROOM = 8192; // bytes for what is given to functions
const MOST_CYCLES = 4e9;
const SP = 13;
const LR = 14;
const PC = 15;

class Started extends Error {}

export class Firmware {
  // Start the image at `firmware` (a path) as far as its `symbols` ({name: address}) say that
  // `until` is called: then C's variables and heap are there, and no interrupt comes.
  constructor(firmware, symbols, until) {
    this.symbols = symbols;
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'calls-'));
    const file = path.join(folder, 'flash');
    const flash = new Flash({ image: firmware, file, random: Math.random });
    fs.rmSync(folder, { recursive: true });
    const board = new Board({
      flash,
      repl: { attach() {} },
      uniqueId: new Uint8Array(8),
      line: { receive() {}, restart() {} },
      reset() {
        throw new Error('the watchdog');
      },
    });
    board.start(null);
    const { mcu, core } = board;
    Object.assign(this, { core, mcu, cpu: mcu.core, ram: core.ram32, registers: core.registers });

    const at = this.address(until) & 0xffffff;
    const romBreak = mcu.onBreak;
    mcu.onBreak = (number) => {
      if (number === STARTED) throw new Started();
      romBreak(number);
    };
    flash.bytes.set([STARTED, BKPT >> 8], at);
    try {
      core.run(MOST_CYCLES);
      throw new Error(`${until} was not called`);
    } catch (error) {
      if (!(error instanceof Started)) throw error;
    }
    this.cpu.PM = true; // no interrupts from here on

    // Below the stack's end: where called functions return to, where they call us, their arguments
    this.stack = (this.registers[SP] - ROOM) & ~7;
    this.next = this.registers[SP] - ROOM;
    this.hooks = new Map();
    this.end = this.hook(null);
  }

  address(name) {
    if (!(name in this.symbols)) throw new Error(`no ${name} in the firmware`);
    return this.symbols[name] & ~1;
  }

  // Return the address of `bytes` bytes of RAM, zeroed, that are kept.
  room(bytes) {
    const at = this.next;
    this.next += (bytes + 7) & ~7;
    if (this.next > this.stack + ROOM) throw new Error('no more room');
    this.ram.fill(0, (at - RAM) >> 2, (this.next - RAM) >> 2);
    return at;
  }

  // Return the address of a function that is `work`(registers) => its result.
  hook(work) {
    const at = this.room(4);
    this.ram[(at - RAM) >> 2] = BKPT;
    this.hooks.set(at, work);
    return at | 1;
  }

  // The words at an address in RAM
  words(at, count) {
    return this.ram.subarray((at - RAM) >> 2, ((at - RAM) >> 2) + count);
  }

  put(at, bytes) {
    new Uint8Array(this.ram.buffer).set(bytes, at - RAM);
  }

  // Call a function (a name); return its result. `cycles` are those that it took.
  //
  // watch  called with (pc, opcode, registers) before each instruction
  call(name, parameters, watch = null) {
    const { registers, core, cpu } = this;
    const more = parameters.slice(4);
    registers[SP] = this.stack - ((4 * more.length + 7) & ~7);
    this.words(registers[SP], more.length).set(more);
    registers.set(parameters.slice(0, 4));
    registers[LR] = this.end;
    registers[PC] = this.address(name);
    this.cycles = 0;
    for (;;) {
      if (watch) watch(registers);
      this.cycles += core.burst(watch ? 1 : MOST_CYCLES);
      if (!core.stuck) continue;
      const work = this.hooks.get(registers[PC]);
      if (work === null) return registers[0];
      if (work) {
        registers[0] = work(registers);
        registers[PC] = registers[LR] & ~1;
      } else {
        this.cycles += cpu.executeInstruction();
      }
    }
  }
}
