// The bus between the RP2040 of a Pico W and its Wi-Fi chip, a CYW43439: gSPI, one data line, half
// duplex. Here it is what the FIFOs of the PIO state machine see that drives it.
//
// The firmware's PIO program shifts X+1 bits out and then, where its wrap takes in the second loop
// too, Y+1 bits in, at two PIO cycles a bit. The state machine is not stepped, as rp2040js does
// that outside of emulated time: when it is enabled, the words that DMA feeds into its TX FIFO are
// collected; when they are complete, and the time of the bits is over, the chip gets them in one
// piece and its answer is in the RX FIFO. All that the firmware's C code looks at (registers, FIFOs,
// DREQ, FDEBUG.TXSTALL) is as with the real one.

const REG_ON = 23; // GPIOs: the power of the chip
const DATA = 24; // data, and, while nothing is sent, the chip's interrupt: high
const CLOCK = 29;
const HIGH = 1; // rp2040js' GPIOPinState.High
const CTRL = 0x000; // of a PIO
const RESTARTED_DIVIDERS = 0xf00; // of CTRL
const TX_STALL = 1 << 24; // of FDEBUG, for state machine 0
const CYCLES_A_BIT = 2;

export class Gspi {
  // mcu   rp2040js' RP2040
  // chip  {power(on), transfer(bytes, count) => Buffer of `count` bytes, onInterrupt}
  constructor(mcu, chip) {
    this.mcu = mcu;
    this.chip = chip;
    this.machine = null; // the state machine that was enabled last
    this.active = false; // it takes words
    this.answer = []; // words that the firmware has not read yet
    this.alarm = mcu.clock.createAlarm(() => this.finish());
    for (const pio of mcu.pio) this.watch(pio);
    const data = mcu.gpio[DATA];
    chip.onInterrupt = (level) => {
      if (data.rawInputValue !== level) data.setInputValue(level);
    };
    mcu.gpio[REG_ON].addListener((state) => chip.power(state === HIGH));
    chip.power(false);
  }

  // Keep rp2040js from enabling a state machine that drives the bus. There may be several of them:
  // the driver leaves one behind at each start that fails.
  watch(pio) {
    const write = pio.writeUint32.bind(pio);
    pio.writeUint32 = (offset, value) => {
      if (offset !== CTRL) return write(offset, value);
      const drivers = pio.machines.filter(isDriver);
      const before = drivers.map((machine) => machine.enabled);
      let others = value & ~RESTARTED_DIVIDERS;
      for (const machine of drivers) others &= ~(1 << machine.index);
      write(offset, others);
      drivers.forEach((machine, at) => {
        machine.enabled = (value & (1 << machine.index)) !== 0;
        if (machine.enabled && !before[at]) this.begin(pio, machine);
        else if (!machine.enabled && before[at] && machine === this.machine) this.stop();
      });
    };
  }

  // Take over the FIFOs of `machine`, for as long as it is the one that drives the bus.
  adopt(machine) {
    this.machine = machine;
    if (Object.hasOwn(machine, 'writeFIFO')) return; // it was adopted before
    const { writeFIFO, readFIFO } = machine;
    const isOurs = () => machine === this.machine;
    machine.writeFIFO = (value) =>
      isOurs() && this.active ? this.take(value) : writeFIFO.call(machine, value);
    machine.readFIFO = () =>
      isOurs() && this.answer.length ? this.give() : readFIFO.call(machine);
  }

  begin(pio, machine) {
    if (this.machine !== machine) this.adopt(machine);
    this.pio = pio;
    const bitsOut = (machine.x >>> 0) + 1;
    const reads = machine.wrapTop - machine.wrapBottom > 1; // over the second loop too
    const bitsIn = reads ? (machine.y >>> 0) + 1 : 0;
    const divider = machine.clockDivInt + machine.clockDivFrac / 256;
    const nanosACycle = (divider * 1e9) / this.mcu.clkSys;
    this.nanos = (bitsOut + bitsIn) * CYCLES_A_BIT * nanosACycle;
    this.wordsOut = bitsOut >>> 5;
    this.bytesIn = bitsIn >>> 3;
    this.words = [];
    this.answer = [];
    this.active = true;
    this.stalled(false);
    while (this.words.length < this.wordsOut && !machine.txFIFO.empty) {
      this.take(machine.txFIFO.pull());
    }
    machine.updateDMATx();
  }

  stop() {
    this.active = false;
    this.alarm.cancel();
  }

  // The sign that the last bit has gone.
  stalled(yes) {
    const { machine, pio } = this;
    const stall = TX_STALL << machine.index;
    pio.txStall = yes ? pio.txStall | stall : pio.txStall & ~stall;
    pio.fdebug = yes ? pio.fdebug | stall : pio.fdebug & ~stall;
  }

  take(word) {
    if (this.words.length === this.wordsOut) return; // more than X says: never shifted
    this.words.push(word >>> 0);
    if (this.words.length === this.wordsOut) this.alarm.schedule(this.nanos);
  }

  // All bits have gone over the line.
  finish() {
    const sent = Buffer.alloc(4 * this.words.length);
    this.words.forEach((word, at) => sent.writeUInt32BE(word, 4 * at));
    const back = this.chip.transfer(sent, this.bytesIn);
    for (let at = 0; at < this.bytesIn; at += 4) this.answer.push(back.readUInt32BE(at));
    if (this.answer.length) this.mcu.dma.setDREQ(this.machine.dreqRx);
    this.stalled(true);
    this.active = false;
  }

  give() {
    const word = this.answer.shift();
    if (!this.answer.length) this.mcu.dma.clearDREQ(this.machine.dreqRx);
    return word;
  }
}

function isDriver(machine) {
  return machine.outBase === DATA && machine.sidesetBase === CLOCK;
}
