// The REPL: the chip's USB serial port on a TCP port of this computer.

import net from 'node:net';

import { USBCDC } from './rp2040js.mjs';

const MOST = 2 ** 20; // bytes that a client has not read; then what is printed is lost

// As on a real port, what the chip prints is lost while nobody has it open, and one program at a
// time has it open: the last one that connected.
export class ReplServer {
  constructor(wake) {
    this.wake = wake;
    this.client = null;
    this.input = []; // Buffers for the chip
    this.wanted = null; // [endpoint, size] of the read that the chip waits for
    this.server = net.createServer((socket) => this.accept(socket));
  }

  // Resolves to the port.
  listen() {
    return new Promise((resolve) => {
      this.server.listen(0, '127.0.0.1', () => resolve(this.server.address().port));
    });
  }

  accept(socket) {
    this.client?.destroy();
    this.client = socket;
    socket.setNoDelay();
    socket.on('data', (data) => {
      this.input.push(data);
      this.feed();
      this.wake();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      if (this.client === socket) this.client = null;
    });
  }

  // Plug in a chip that begins to run; what was on its way to the last one is lost.
  attach(mcu) {
    this.input = [];
    this.wanted = null;
    this.usb = mcu.usbCtrl;
    const cdc = new USBCDC(this.usb);
    cdc.onSerialData = (bytes) => {
      if (this.client?.writableLength < MOST) this.client.write(Buffer.from(bytes));
    };
    // rp2040js answers a read for which there is nothing with no bytes, every 10 us, and the core
    // never sleeps. A real host is silent until it has something.
    this.usb.onEndpointRead = (endpoint, size) => {
      if (endpoint !== cdc.outEndpoint) return;
      this.wanted = [endpoint, size];
      this.feed();
    };
  }

  feed() {
    if (!this.wanted || !this.input.length) return;
    const [endpoint, size] = this.wanted;
    this.wanted = null;
    const first = this.input.shift();
    if (first.length > size) this.input.unshift(first.subarray(size));
    this.usb.endpointReadDone(endpoint, Uint8Array.from(first.subarray(0, size)));
  }
}
