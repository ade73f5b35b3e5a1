// The serial bus to the flash chip, as far as the firmware speaks to the chip itself.
//
// rp2040js answers every byte with 0, and so every board would have the unique id 0. A command
// that the firmware sends itself (pico-sdk: flash_do_cmd) begins when it forces the chip select
// low through IO_QSPI, of which rp2040js has nothing.

import { BasePeripheral } from './rp2040js.mjs';

const SSI = 0x18000; // keys of rp2040js' table of peripherals
const IO_QSPI = 0x40018;
const DATA = 0x60;
const SELECT_CONTROL = 0x0c; // IO_QSPI: GPIO_QSPI_SS_CTRL
const OVERRIDE = 0x300;
const FORCED_LOW = 0x200;
const READ_UNIQUE_ID = 0x4b;
const ID_AT = 5; // after the command and four dummy bytes

class FlashBus extends BasePeripheral {
  // ssi  rp2040js' peripheral, for all that is not such a command
  constructor(mcu, ssi, uniqueId) {
    super(mcu, 'SSI');
    this.ssi = ssi;
    this.uniqueId = uniqueId;
    this.selected = false;
    this.sent = []; // bytes of the command so far
    this.answers = [];
  }

  select(low) {
    this.selected = low;
    this.sent = [];
    this.answers = [];
  }

  writeUint32(offset, value) {
    if (offset !== DATA || !this.selected) return this.ssi.writeUint32(offset, value);
    this.answers.push(
      this.sent[0] === READ_UNIQUE_ID ? (this.uniqueId[this.sent.length - ID_AT] ?? 0) : 0,
    );
    this.sent.push(value & 0xff);
  }

  readUint32(offset) {
    if (offset !== DATA || !this.selected) return this.ssi.readUint32(offset);
    return this.answers.shift() ?? 0;
  }
}

class QspiPins extends BasePeripheral {
  constructor(mcu, bus) {
    super(mcu, 'IO_QSPI_BASE');
    this.bus = bus;
    this.registers = new Uint32Array(1024);
  }

  readUint32(offset) {
    return this.registers[offset >> 2];
  }

  writeUint32(offset, value) {
    this.registers[offset >> 2] = value;
    if (offset === SELECT_CONTROL) this.bus.select((value & OVERRIDE) === FORCED_LOW);
  }
}

// uniqueId  8 bytes
export function installFlashBus(mcu, uniqueId) {
  const bus = new FlashBus(mcu, mcu.peripherals[SSI], uniqueId);
  mcu.peripherals[SSI] = bus;
  mcu.peripherals[IO_QSPI] = new QspiPins(mcu, bus);
}
