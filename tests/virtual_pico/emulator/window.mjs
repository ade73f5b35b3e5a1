// The way to the Wi-Fi chip of a firmware that has the driver's stand-in (board/lib/cyw43-driver):
// a window of registers where an RP2040 has nothing. A transfer is one write, and costs no more of
// this computer's time than that. It takes as much emulated time as over the bus of a Pico W.

import { BasePeripheral } from './rp2040js.mjs';

const PLACE = 0x40070; // key of rp2040js' table of peripherals: address 0x40070000
const OUT = 0x00; // address in RAM of what goes to the chip
const OUT_BYTES = 0x04;
const IN = 0x08; // where its answer goes
const IN_BYTES = 0x0c; // writing this does the transfer
const WAIT_US = 0x10; // writing this lets so much time pass

const RAM = 0x20000000;
const NANOS_A_BYTE = 8 * 32; // 31.25 MHz

class Window extends BasePeripheral {
  // chip  Chip, or null: nothing answers
  constructor(mcu, chip) {
    super(mcu, 'WINDOW');
    this.mcu = mcu;
    this.chip = chip;
    this.registers = new Map();
  }

  readUint32(offset) {
    return this.registers.get(offset) ?? 0;
  }

  writeUint32(offset, value) {
    this.registers.set(offset, value >>> 0);
    if (offset === IN_BYTES) this.transfer();
    else if (offset === WAIT_US) this.mcu.clock.tick(1e3 * (value >>> 0));
  }

  transfer() {
    const { sram } = this.mcu;
    const order = [OUT, OUT_BYTES, IN, IN_BYTES];
    const [from, count, to, wanted] = order.map((at) => this.readUint32(at));
    const sent = Buffer.from(sram.subarray(from - RAM, from - RAM + count));
    this.mcu.clock.tick((count + wanted) * NANOS_A_BYTE);
    const back = this.chip?.transfer(sent, wanted) ?? new Uint8Array(wanted);
    sram.set(back, to - RAM);
  }
}

export function installWindow(mcu, chip) {
  mcu.peripherals[PLACE] = new Window(mcu, chip);
}
