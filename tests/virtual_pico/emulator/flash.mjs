// The flash chip: what it holds survives resets, power cuts and restarts of the emulator.

import fs from 'node:fs';

import { PowerLost } from './power.mjs';

const SIZE = 2 * 1024 * 1024; // a Pico's
const FILESYSTEM = 1200 * 1024; // where MicroPython keeps its files on a Pico W, to the end
const SECTOR = 4096;
const PAGE = 256;

// Typical times of the chip on a Pico (W25Q16JV). Interrupts are off meanwhile.
const ERASE_NANOS = 45e6;
const PROGRAM_NANOS = 0.4e6;

export class Flash {
  // image   path of the firmware, which is at the start of flash
  // size    of the flash, in bytes
  // kept    where begins what is kept, MicroPython's filesystem, to the end
  // file    path of the file that holds that; made where there is none
  // random  () => number from 0 to 1, for what a power cut leaves
  constructor({ image, size = SIZE, kept = FILESYSTEM, file, random }) {
    this.bytes = new Uint8Array(size).fill(0xff);
    this.bytes.set(fs.readFileSync(image));
    this.kept = kept;
    if (!fs.existsSync(file)) fs.writeFileSync(file, this.bytes.subarray(kept));
    this.bytes.set(fs.readFileSync(file), kept);
    this.file = fs.openSync(file, 'r+');
    this.random = random;
    this.operations = 0; // erases and programs so far
    this.cutAt = null; // the operation that the power does not outlast
    this.part = 0; // how much of it is done
    this.spend = () => {}; // set by the board: lets nanoseconds pass
  }

  // Cut the power during the operation after `after` more of them, when `part` of it is done.
  cutPower(after, part) {
    this.cutAt = this.operations + after;
    this.part = part;
  }

  erase(offset, count) {
    this.operate(offset, count, (ERASE_NANOS * count) / SECTOR, (at) => [0xff, this.bytes[at]]);
  }

  program(offset, data) {
    const nanos = (PROGRAM_NANOS * data.length) / PAGE;
    this.operate(offset, data.length, nanos, (at) => {
      const now = this.bytes[at];
      return [now & data[at - offset], now];
    });
  }

  // What every operation has in common. `change(address)` gives [byte when done, byte before].
  operate(offset, count, nanos, change) {
    const cut = this.operations === this.cutAt;
    this.operations++;
    const whole = cut ? Math.floor(count * this.part) : count;
    for (let at = offset; at < offset + whole; at++) this.bytes[at] = change(at)[0];
    if (cut) {
      // A page that was being written: of the bits that were to change, some have.
      const torn = Math.min(offset + count, offset + whole + PAGE);
      for (let at = offset + whole; at < torn; at++) {
        const [done, before] = change(at);
        this.bytes[at] = before ^ ((before ^ done) & (this.random() * 256));
      }
    }
    this.save(offset, count);
    if (cut) {
      this.cutAt = null;
      throw new PowerLost();
    }
    this.spend(nanos);
  }

  // Written at once: the emulator may be killed at any time.
  save(offset, count) {
    const from = Math.max(offset, this.kept);
    const length = offset + count - from;
    if (length > 0) fs.writeSync(this.file, this.bytes, from, length, from - this.kept);
  }
}
