// The run loop: lets the chip execute, and time pass.
//
// While the core is busy it goes as fast as this computer can; emulated time is what the
// instructions take. While the core sleeps, emulated time goes with this computer's clock, times
// `speed`, so that the answers of programs here come in time; and no faster than that clock while
// one may be on its way.

import { ChipReset, PowerLost } from './power.mjs';

const SLICE_MS = 5; // then sockets have their turn
const BATCH = 20000; // cycles between looks at the clock
const SETTLE_MS = 30; // how long after the last packet an answer may be on its way
const LONGEST_WAIT_MS = 20;
const AHEAD_NANOS = 2e6; // how far emulated time may run ahead: a short sleep is not worth a wait

export class Loop {
  // events  {reset(watchdog), powerLost(), crashed(error)}
  constructor(board, speed, events) {
    Object.assign(this, { board, speed, events });
    this.timer = null;
    this.running = false; // inside `run`
    this.idleSince = null; // of this computer's clock, in ms
    this.credit = 0; // emulated nanoseconds that are still to pass; negative: it is ahead
    this.lastPacket = 0;
  }

  // Something is there for the chip, or its power is on.
  wake() {
    if (this.running || !this.board.powered) return;
    clearTimeout(this.timer);
    clearImmediate(this.immediate);
    this.immediate = setImmediate(() => this.run());
  }

  packet() {
    this.lastPacket = performance.now();
  }

  run() {
    if (!this.board.powered) return;
    this.running = true;
    let wait = 0;
    try {
      wait = this.slice();
    } catch (error) {
      this.idleSince = null;
      if (error instanceof ChipReset) this.events.reset(error.watchdog);
      else if (error instanceof PowerLost) this.events.powerLost();
      else this.events.crashed(error);
    }
    this.running = false;
    if (!this.board.powered) return;
    if (wait > 0) this.timer = setTimeout(() => this.run(), wait);
    else this.immediate = setImmediate(() => this.run());
  }

  // Execute for a while; return how many milliseconds nothing is to be done.
  slice() {
    const { mcu } = this.board;
    const { core, clock } = mcu;
    const end = performance.now() + SLICE_MS;
    do {
      if (core.waiting) {
        const wait = this.sleep(clock, core);
        if (wait > 0) return wait;
      } else {
        this.idleSince = null;
        this.board.core.run(BATCH);
      }
    } while (performance.now() < end);
    return 0;
  }

  // The core sleeps: let the time pass that has passed here; return how long to wait for more.
  sleep(clock, core) {
    const now = performance.now();
    const speed = now - this.lastPacket < SETTLE_MS ? Math.min(1, this.speed) : this.speed;
    this.credit += (now - (this.idleSince ?? now)) * 1e6 * speed;
    this.idleSince = now;
    while (core.waiting) {
      const next = clock.nextAlarm ? clock.nanosToNextAlarm : Infinity;
      if (next > this.credit + AHEAD_NANOS) {
        if (this.credit > 0) {
          clock.tick(this.credit);
          this.credit = 0;
        }
        const rest = (next - this.credit - AHEAD_NANOS) / 1e6 / speed;
        return Math.min(Math.max(rest, 1), LONGEST_WAIT_MS);
      }
      this.credit -= next;
      clock.tick(next);
    }
    return 0;
  }
}
