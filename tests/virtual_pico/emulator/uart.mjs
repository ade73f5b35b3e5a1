// A serial line to the chip's UART 1, at the speed that the firmware set.

const CHUNK = 16; // bytes that arrive together: fewer events than one each
const HIGH_WATER = 24; // of the 32 bytes of the FIFO
const LONGEST_QUEUE = 1024;
const LATENCY_NANOS = 1e6; // of a modem: no answer comes while the question is being asked
const BITS = 10; // a byte with its start and stop bit
const TRANSMIT = 1 << 5; // interrupts
const RECEIVE_TIMEOUT = 1 << 6;
const RECEIVE = 1 << 4;

export class SerialLine {
  // receive  called with each byte from the chip
  constructor(mcu, receive) {
    this.uart = mcu.uart[1];
    this.clock = mcu.clock;
    this.queue = []; // chunks on their way to the chip
    this.offset = 0; // in the first of them
    this.sentAt = 0; // emulated time when the last byte from the chip has gone
    this.busy = false;
    this.alarm = mcu.clock.createAlarm(() => this.deliver());

    // rp2040js reports "ready to transmit" again whenever it is acknowledged, for ever: an
    // interrupt storm. It is an event here, that of a byte that has gone.
    this.uart.checkInterrupts = () => {
      const { interruptStatus, interruptMask, irq } = this.uart;
      mcu.setInterrupt(irq, (interruptStatus & interruptMask) !== 0);
    };
    this.uart.onByte = (byte) => {
      this.sentAt = Math.max(this.sentAt, this.clock.nanos) + this.nanos(1);
      receive(byte);
      this.uart.interruptStatus |= TRANSMIT;
      this.uart.checkInterrupts();
    };
  }

  // How long it still takes to send what the chip has written, for which rp2040js takes no time.
  get behind() {
    return Math.max(0, this.sentAt - this.clock.nanos);
  }

  // How long `count` bytes take.
  nanos(count) {
    return (count * BITS * 1e9) / this.uart.baudRate;
  }

  send(bytes) {
    if (this.queue.length >= LONGEST_QUEUE) return; // lost, as in a modem whose memory is full
    this.queue.push(bytes);
    if (!this.busy) this.schedule(LATENCY_NANOS);
  }

  schedule(nanos) {
    this.busy = true;
    this.alarm.schedule(nanos);
  }

  // rp2040js interrupts for every byte and knows no receive timeout, which is what tells the
  // firmware that nothing more comes for now, again and again while it leaves bytes unread. The
  // line waits while the FIFO is full, as one with flow control does.
  deliver() {
    const { uart } = this;
    this.busy = false;
    if (!(uart.interruptMask & RECEIVE)) {
      this.queue = []; // nobody listens
      this.offset = 0;
      return;
    }
    let count = 0;
    while (count < CHUNK && this.queue.length && uart.rxFIFO.itemCount < HIGH_WATER) {
      count++;
      uart.rxFIFO.push(this.queue[0][this.offset++]);
      if (this.offset === this.queue[0].length) {
        this.queue.shift();
        this.offset = 0;
      }
    }
    const more = this.queue.length > 0;
    if (more || uart.rxFIFO.itemCount >= CHUNK) uart.interruptStatus |= RECEIVE;
    if ((!more || count === 0) && !uart.rxFIFO.empty) uart.interruptStatus |= RECEIVE_TIMEOUT;
    if (more || !uart.rxFIFO.empty) this.schedule(this.nanos(CHUNK));
    uart.checkInterrupts();
  }
}
