// The board: a chip with its flash, its USB port, and its way to the network: a serial line (PPP), or
// the Wi-Fi chip of a Pico W.

import { Core } from './core.mjs';
import { Gspi } from './gspi.mjs';
import { installRom } from './rom.mjs';
import { ConsoleLogger, LogLevel, RP2040 } from './rp2040js.mjs';
import { installFlashBus } from './ssi.mjs';
import { SerialLine } from './uart.mjs';
import { installWindow } from './window.mjs';

const FLASH_START = 0x10000000;
const WATCHDOG = 0x40058; // key of rp2040js' table of peripherals

export class Board {
  // flash     Flash
  // repl      ReplServer
  // uniqueId  8 bytes
  // line      {receive(byte), restart()}: what is at the other end of UART 1; null: nothing
  // radio     Chip, the one for Wi-Fi; null: there is none
  // reset     (watchdog) called from within an instruction when the watchdog resets the chip
  constructor({ flash, repl, uniqueId, line = null, radio = null, reset }) {
    Object.assign(this, { flash, repl, uniqueId, line, radio, reset });
    this.powered = false;
    this.before = 0; // emulated nanoseconds of the chips before this one
  }

  // Emulated nanoseconds with power on.
  get nanos() {
    return this.before + (this.mcu?.clock.nanos ?? 0);
  }

  // Call `work` after `nanos` of emulated time, unless the chip is reset before.
  after(nanos, work) {
    this.mcu.clock.createAlarm(work).schedule(nanos);
  }

  powerOff() {
    this.powered = false;
  }

  // Start with a new chip, as rp2040js cannot reset one. What a watchdog reset leaves, the memory
  // and the watchdog's registers, comes from the chip before and `last`, its watchdog; null: nothing.
  //
  // The log has lines about SIO addresses then: the firmware looks for the second core.
  start(last) {
    this.before = this.nanos;
    const mcu = new RP2040();
    if (last) mcu.sram.set(this.mcu.sram);
    this.mcu = mcu;
    mcu.logger = new ConsoleLogger(LogLevel.Error);
    mcu.flash = this.flash.bytes; // instead of rp2040js' 16 MB
    mcu.flash16 = new Uint16Array(mcu.flash.buffer);
    mcu.flashView = new DataView(mcu.flash.buffer);
    this.flash.spend = (nanos) => mcu.clock.tick(nanos);
    installRom(mcu, this.flash);
    installFlashBus(mcu, this.uniqueId);
    mcu.core.reset();
    mcu.core.PC = FLASH_START;
    this.core = new Core(mcu);

    const watchdog = mcu.peripherals[WATCHDOG];
    if (last) {
      watchdog.reason = last.reason;
      watchdog.scratchData.set(last.scratchData);
    }
    watchdog.onWatchdogTrigger = () => this.reset(watchdog);

    this.repl.attach(mcu);
    if (this.line) {
      this.line.restart();
      this.serial = new SerialLine(mcu, (byte) => this.line.receive(byte));
    }
    installWindow(mcu, this.radio);
    if (this.radio) this.bus = new Gspi(mcu, this.radio); // which switches the chip off
    this.powered = true;
  }
}
