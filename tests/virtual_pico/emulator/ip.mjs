// The network that the chip is on: one host, which is this computer. IPv4, ICMP echo, and the
// faults that a test wants.

import { Tcp } from './tcp.mjs';
import { Udp } from './udp.mjs';

export const HOST = Buffer.from([10, 77, 0, 1]);
export const DEVICE = Buffer.from([10, 77, 0, 2]);
const OURS = [10, 77, 0]; // 10.77.0.1 to .9 are all this computer, so that a broker can move
const LAST = 9;
const MULTICAST_DNS = '224.0.0.251';

const ICMP = 1;
const TCP = 6;
const UDP = 17;
const MORE_FRAGMENTS = 0x2000;
const FRAGMENT_OFFSET = 0x1fff;

// The Internet checksum of `bytes`, on top of a sum of 16-bit words.
export function checksum(bytes, sum = 0) {
  const even = bytes.length & ~1;
  for (let at = 0; at < even; at += 2) sum += bytes.readUInt16BE(at);
  if (bytes.length & 1) sum += bytes[even] << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

// The faults that are there, and how it is without them.
export const NO_FAULTS = {
  link: 'up', // "silent": nothing passes, unnoticed; "down": PPP is terminated, then the same
  lose_to_device: 0, // probability that a packet is lost
  lose_from_device: 0,
  drop_to_device: 0, // how many of the next packets are lost
  drop_from_device: 0,
  delay_ms: 0, // of each packet, each way, in emulated time
  dns: 'up', // "silent": DNS queries are lost
  refuse: [], // ports of the host that answer connects with RST
  blackhole: [], // ports or addresses of the host for which packets are lost
  segment_bytes: 1460, // the most that a TCP segment to the device holds
};

export class Network {
  // ports   {"port that the device uses": port of this computer}, TCP and UDP
  // names   {name: address} that the built-in DNS server knows
  // random  () => number from 0 to 1
  // clock   {nanos, after(nanos, work)} in emulated time
  // send    (packet) to the device
  constructor({ ports, names, random, clock, send, wake }) {
    Object.assign(this, { ports, names, random, clock, send, wake });
    this.faults = { ...NO_FAULTS };
    this.stats = {
      packets_to_device: 0,
      packets_from_device: 0,
      bytes_to_device: 0,
      bytes_from_device: 0,
      lost_to_device: 0,
      lost_from_device: 0,
      retransmitted: 0,
      malformed: 0,
    };
    this.id = 0;
    this.tcp = new Tcp(this);
    this.udp = new Udp(this);
  }

  hostPort(port) {
    return this.ports[port] ?? port;
  }

  isHole(port, address) {
    return this.faults.blackhole.includes(port) || this.faults.blackhole.includes(address);
  }

  isLost(direction) {
    const { faults } = this;
    let lost = faults.link !== 'up' || this.random() < faults[`lose_${direction}`];
    if (!lost && faults[`drop_${direction}`] > 0) {
      faults[`drop_${direction}`]--;
      lost = true;
    }
    if (lost) this.stats[`lost_${direction}`]++;
    return lost;
  }

  pass(work) {
    if (this.faults.delay_ms > 0) this.clock.after(this.faults.delay_ms * 1e6, work);
    else work();
  }

  fromDevice(packet) {
    if (this.isLost('from_device')) return;
    this.stats.packets_from_device++;
    this.stats.bytes_from_device += packet.length;
    this.pass(() => {
      try {
        this.route(packet);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error; // a read past the end of the packet
        this.stats.malformed++;
      }
    });
  }

  route(packet) {
    const target = packet.subarray(16, 20);
    const address = target.join('.');
    const body = packet.subarray((packet[0] & 15) * 4, packet.readUInt16BE(2));
    if (packet.readUInt16BE(6) & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) {
      this.stats.malformed++; // no fragments: nothing here sends such
      return;
    }
    const ours = OURS.every((byte, at) => target[at] === byte) && target[3] <= LAST;
    const protocol = packet[9];
    if (protocol === UDP && (ours || address === MULTICAST_DNS)) {
      this.udp.fromDevice(target, address, body);
    } else if (ours && protocol === TCP) {
      this.tcp.fromDevice(target, address, body);
    } else if (ours && protocol === ICMP) {
      this.echo(target, body);
    }
  }

  echo(source, request) {
    if (request[0] !== 8) return;
    const reply = Buffer.from(request);
    reply[0] = 0;
    reply.writeUInt16BE(0, 2);
    reply.writeUInt16BE(checksum(reply), 2);
    this.toDevice(ICMP, source, reply);
  }

  // Send a segment of TCP or a datagram; its checksum, at `at`, is still 0.
  toDeviceSummed(protocol, source, body, at) {
    let sum = protocol + body.length;
    for (const address of [source, DEVICE]) {
      sum += address.readUInt16BE(0) + address.readUInt16BE(2);
    }
    body.writeUInt16BE(checksum(body, sum) || 0xffff, at);
    this.toDevice(protocol, source, body);
  }

  toDevice(protocol, source, body) {
    if (this.isLost('to_device')) return;
    const head = Buffer.alloc(20);
    head[0] = 0x45;
    head.writeUInt16BE(20 + body.length, 2);
    head.writeUInt16BE((this.id = (this.id + 1) & 0xffff), 4);
    head[8] = 64; // time to live
    head[9] = protocol;
    source.copy(head, 12);
    DEVICE.copy(head, 16);
    head.writeUInt16BE(checksum(head), 10);
    this.stats.packets_to_device++;
    this.stats.bytes_to_device += 20 + body.length;
    this.pass(() => this.send(Buffer.concat([head, body])));
  }
}
