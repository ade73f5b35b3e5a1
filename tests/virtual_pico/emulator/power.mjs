// What ends a chip's run from within an instruction; the run loop catches them.

// The watchdog bit, or the firmware asked it for a reset (machine.reset()).
export class ChipReset extends Error {
  constructor(watchdog) {
    super();
    this.watchdog = watchdog; // rp2040js' peripheral, with the reason and the scratch registers
  }
}

// The power went away during a flash operation.
export class PowerLost extends Error {}
