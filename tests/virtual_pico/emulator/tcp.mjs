// TCP from the chip, ended here and joined to a connection to this computer.
//
// Enough of RFC 9293 for a peer that is correct when packets are lost: retransmission with
// back-off, slow start, fast retransmit, both windows, probes of a closed one, half-close, RST
// either way. What the device sends out of order it has to send again.

import net from 'node:net';

const TCP = 6;
const HEAD = 20;
const FIN = 1;
const SYN = 2;
const RST = 4;
const PSH = 8;
const ACK = 16;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const DEFAULT_MSS = 536;
const MSS = 1460;

const RECEIVE_WINDOW = 32768;
const BUFFER = 65536; // bytes for the device that are kept; the host's connection waits then
const FIRST_RETRY_NANOS = 1e9;
const LAST_RETRY_NANOS = 8e9;
const GIVE_UP_NANOS = 900e9; // as Linux does, about
const DUPLICATES = 3; // ACKs that say that a segment was lost
const CHECK_NANOS = 100e6;

const difference = (a, b) => (a - b) | 0; // of sequence numbers
const sum = (a, b) => (a + b) >>> 0;

function mssOf(segment, end) {
  for (let at = HEAD; at < end && segment[at] !== OPTION_END; ) {
    if (segment[at] === OPTION_MSS) return Math.min(segment.readUInt16BE(at + 2), MSS);
    at += segment[at] === OPTION_NOP ? 1 : segment[at + 1] || 1;
  }
  return DEFAULT_MSS;
}

export class Tcp {
  constructor(network) {
    this.network = network;
    this.connections = new Map();
  }

  // Call once after each start of the chip, whose clock is a new one.
  startTimer() {
    this.network.clock.after(CHECK_NANOS, () => {
      for (const connection of this.connections.values()) connection.check();
      this.startTimer();
    });
  }

  fromDevice(host, address, segment) {
    const { network } = this;
    const end = (segment[12] >> 4) * 4;
    const heard = {
      devicePort: segment.readUInt16BE(0),
      port: segment.readUInt16BE(2),
      sequence: segment.readUInt32BE(4),
      acknowledged: segment.readUInt32BE(8),
      flags: segment[13],
      window: segment.readUInt16BE(14),
      data: segment.subarray(end),
    };
    if (network.isHole(heard.port, address)) return;
    const key = `${heard.devicePort} ${address} ${heard.port}`;
    const connection = this.connections.get(key);
    if (heard.flags & SYN) {
      if (connection?.first === heard.sequence) {
        connection.answerSyn();
        return;
      }
      connection?.abort(); // the device was reset and came by the same port again
      const route = { key, host: Buffer.from(host), address, ...heard };
      if (network.faults.refuse.includes(heard.port)) this.refuse(route);
      else this.connections.set(key, new Connection(this, route, mssOf(segment, end)));
    } else if (connection?.open) {
      connection.receive(heard);
    } else if (!connection && !(heard.flags & RST)) {
      this.refuse({ host: Buffer.from(host), ...heard });
    }
  }

  // Answer with RST a segment that belongs to no connection.
  refuse({ host, devicePort, port, sequence, acknowledged, flags, data }) {
    const known = flags & ACK;
    this.send(host, port, devicePort, {
      flags: known ? RST : RST | ACK,
      sequence: known ? acknowledged : 0,
      acknowledge: sum(sequence, data.length + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0)),
      window: 0,
    });
  }

  send(host, port, devicePort, { flags, sequence, acknowledge, window, data, mss }) {
    if (this.network.isHole(port, host.join('.'))) return;
    const options = mss ? Buffer.from([OPTION_MSS, 4, mss >> 8, mss & 0xff]) : Buffer.alloc(0);
    const head = Buffer.alloc(HEAD);
    head.writeUInt16BE(port, 0);
    head.writeUInt16BE(devicePort, 2);
    head.writeUInt32BE(sequence, 4);
    head.writeUInt32BE(acknowledge, 8);
    head[12] = (HEAD + options.length) << 2;
    head[13] = flags;
    head.writeUInt16BE(window, 14);
    const segment = Buffer.concat([head, options, data ?? Buffer.alloc(0)]);
    this.network.toDeviceSummed(TCP, host, segment, 16);
  }

  resetAll() {
    for (const connection of [...this.connections.values()]) connection.reset();
  }
}

class Connection {
  constructor(tcp, { key, host, port, devicePort, sequence, window }, mss) {
    Object.assign(this, { tcp, key, host, port, devicePort, mss, window });
    this.network = tcp.network;
    this.first = sequence; // the device's initial sequence number
    this.expected = sum(sequence, 1); // from the device
    this.initial = Math.floor(this.network.random() * 2 ** 32); // ours
    this.base = sum(this.initial, 1); // of the first byte of `data`
    this.data = Buffer.alloc(0); // what the device has not acknowledged
    this.flight = 0; // how much of it is on its way
    this.top = this.base; // the sequence number after all that was ever sent
    this.allowed = 4 * mss; // congestion window
    this.duplicates = 0;
    this.retry = FIRST_RETRY_NANOS;
    this.sentAt = null; // emulated time when the oldest byte on its way was sent last,
    this.since = null; // and first
    this.open = false;
    this.ended = false; // the host sends no more
    this.finSent = false;
    this.finAcknowledged = false;
    this.deviceEnded = false;

    this.socket = net.connect({
      host: '127.0.0.1',
      port: this.network.hostPort(port),
      noDelay: true,
      allowHalfOpen: true, // the device may send on after the host has ended
    });
    this.socket.on('connect', () => {
      this.open = true;
      this.answerSyn();
      this.network.wake();
    });
    this.socket.on('data', (data) => {
      this.data = Buffer.concat([this.data, data]);
      if (this.data.length > BUFFER) this.socket.pause();
      this.pump();
      this.network.wake();
    });
    this.socket.on('drain', () => this.acknowledge()); // our window is open again
    this.socket.on('end', () => {
      this.ended = true;
      this.pump();
      this.network.wake();
    });
    this.socket.on('error', () => {
      this.reset();
      this.network.wake();
    });
  }

  send(flags, sequence, data, mss) {
    const window = Math.max(0, RECEIVE_WINDOW - this.socket.writableLength);
    this.tcp.send(this.host, this.port, this.devicePort, {
      flags,
      sequence,
      acknowledge: this.expected,
      window,
      data,
      mss,
    });
  }

  answerSyn() {
    if (this.open) this.send(SYN | ACK, this.initial, undefined, MSS);
  }

  acknowledge() {
    if (this.open) this.send(ACK, this.top);
  }

  forget() {
    if (this.tcp.connections.get(this.key) === this) this.tcp.connections.delete(this.key);
    this.open = false;
  }

  // End it towards this computer: the device is gone, or has said RST.
  abort() {
    this.forget();
    this.socket.resetAndDestroy();
  }

  // End it both ways.
  reset() {
    const known = this.tcp.connections.get(this.key) === this;
    if (known) this.send(RST | ACK, this.open ? this.top : 0);
    this.abort();
  }

  receive({ sequence, acknowledged, flags, window, data }) {
    if (flags & RST) {
      this.abort();
      return;
    }
    if (flags & ACK) this.advance(acknowledged, window, data.length === 0 && !(flags & FIN));
    if (data.length || flags & FIN) {
      this.take(sequence, data, (flags & FIN) !== 0);
      this.acknowledge();
    } else if (difference(sequence, this.expected) < 0) {
      this.acknowledge(); // a keepalive probe
    }
    this.pump();
    if (this.deviceEnded && this.finAcknowledged) this.forget();
  }

  take(sequence, data, fin) {
    const known = difference(this.expected, sequence);
    if (known < 0) return; // something before it was lost
    if (known < data.length && !this.deviceEnded) {
      const fresh = data.subarray(known);
      this.socket.write(Buffer.from(fresh));
      this.expected = sum(this.expected, fresh.length);
    }
    if (fin && !this.deviceEnded && this.expected === sum(sequence, data.length)) {
      this.deviceEnded = true;
      this.expected = sum(this.expected, 1);
      this.socket.end();
    }
  }

  advance(acknowledged, window, bare) {
    const count = difference(acknowledged, this.base);
    // It may be more than what is on its way, where that is on its way again.
    if (count < 0 || count > this.data.length + (this.finSent ? 1 : 0)) return;
    if (count > 0) {
      if (this.finSent && count > this.data.length) this.finAcknowledged = true;
      const bytes = Math.min(count, this.data.length);
      this.data = this.data.subarray(bytes);
      this.base = sum(this.base, bytes);
      this.flight = Math.max(0, this.flight - bytes);
      this.allowed = Math.min(this.allowed + this.mss, BUFFER);
      this.duplicates = 0;
      this.retry = FIRST_RETRY_NANOS;
      const waiting = this.flight > 0 || (this.finSent && !this.finAcknowledged);
      if (waiting) this.stamp();
      else this.sentAt = this.since = null;
      if (this.data.length < BUFFER / 2 && this.socket.isPaused()) this.socket.resume();
    } else if (bare && this.flight && window === this.window && ++this.duplicates === DUPLICATES) {
      this.resendFirst();
    }
    this.window = window;
  }

  segmentBytes() {
    return Math.min(this.mss, this.network.faults.segment_bytes);
  }

  stamp() {
    this.sentAt = this.since = this.network.clock.nanos;
  }

  // Send what the windows allow.
  pump() {
    if (!this.open) return;
    const limit = Math.min(this.window, this.allowed);
    while (this.flight < this.data.length) {
      const rest = this.data.length - this.flight;
      const count = Math.min(limit - this.flight, this.segmentBytes(), rest);
      if (count <= 0) break;
      if (count < rest && count < this.segmentBytes() && this.flight > 0) break; // not in crumbs
      if (this.flight === 0) this.stamp();
      const at = sum(this.base, this.flight);
      this.send(PSH | ACK, at, this.data.subarray(this.flight, this.flight + count));
      this.flight += count;
      this.raise(sum(at, count));
    }
    if (this.flight < this.data.length) {
      if (this.sentAt === null) this.stamp(); // the window is closed: to be probed
    } else if (this.ended && !this.finSent) {
      if (this.flight === 0) this.stamp();
      const at = sum(this.base, this.flight);
      this.send(FIN | ACK, at);
      this.finSent = true;
      this.raise(sum(at, 1));
    }
  }

  raise(sequence) {
    if (difference(sequence, this.top) > 0) this.top = sequence;
  }

  resendFirst() {
    this.network.stats.retransmitted++;
    const count = Math.min(this.segmentBytes(), this.data.length);
    if (count > 0) this.send(PSH | ACK, this.base, this.data.subarray(0, count));
    else this.send(FIN | ACK, this.base);
  }

  // Is something overdue?
  check() {
    const now = this.network.clock.nanos;
    if (!this.open || this.sentAt === null || now - this.sentAt < this.retry) return;
    const closed = this.window === 0 && this.flight === 0 && this.data.length > 0;
    if (closed) {
      this.send(ACK, this.base, this.data.subarray(0, 1)); // a probe
      this.since = now; // its owner may take his time
    } else if (now - this.since > GIVE_UP_NANOS) {
      this.reset();
      return;
    } else {
      this.resendFirst();
      this.allowed = this.mss; // the rest again, slowly, as it is acknowledged
      this.flight = Math.min(this.segmentBytes(), this.data.length);
      if (this.flight > 0) this.finSent = false;
    }
    this.sentAt = now;
    this.retry = Math.min(2 * this.retry, LAST_RETRY_NANOS);
  }
}
