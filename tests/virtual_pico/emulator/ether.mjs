// Behind the access point: Ethernet, ARP (RFC 826) and DHCP (RFC 2131) in front of the IP network.
// The router is the DHCP server, and the DNS server that it names.

import { checksum } from './ip.mjs';

const IP = 0x0800; // types of frames
const ARP = 0x0806;
const HEAD = 14;
const BROADCAST = Buffer.alloc(6, 0xff);
const ROUTER = Buffer.from([0x02, 0x00, 0x5e, 0x10, 0x00, 0x01]);
export const LAST_OF_HOST = 9; // of its addresses, 10.77.0.1 to .9

const ARP_REQUEST = 1;
const ARP_REPLY = 2;
const ARP_BYTES = 28;

const UDP = 17;
const IP_HEAD = 20;
const UDP_HEAD = 8;
const SERVER_PORT = 67;
const CLIENT_PORT = 68;

const OPTIONS_AT = 240;
const REPLY_BYTES = 300;
const COOKIE = 0x63825363;
const PAD = 0; // options
const MASK = 1;
const GATEWAY = 3;
const DNS = 6;
const NAME = 12;
const WANTED = 50;
const LEASE = 51;
const KIND = 53;
const SERVER = 54;
const END = 255;
const DISCOVER = 1; // kinds of messages
const OFFER = 2;
const REQUEST = 3;
const ACK = 5;
const NAK = 6;

// How the router answers, and how it does when all is well.
export const NO_ROUTER_FAULTS = {
  dhcp: 'up', // "silent": no answer; "nak": it refuses what is asked for; "offer": it offers, and
  // acknowledges nothing
  dhcp_ms: 5, // until it answers
  lease_s: 86400,
  arp: 'up', // or "silent"
};

export class Ether {
  // host    Buffer of 4 bytes, the router
  // device  the same, what the station gets; its bytes may be changed at any time
  // clock   {after(nanos, work)}
  // send    (frame) to the station
  // receive (packet) IP from the station
  // note    (text)
  constructor({ host, device, clock, send, receive, note }) {
    Object.assign(this, { host, device, clock, send, receive, note });
    this.faults = { ...NO_ROUTER_FAULTS };
    this.station = BROADCAST;
    this.id = 0; // of IP packets
  }

  fromStation(frame) {
    if (frame.length < HEAD) return;
    this.station = Buffer.from(frame.subarray(6, 12));
    const type = frame.readUInt16BE(12);
    const body = frame.subarray(HEAD);
    if (type === ARP && body.length >= ARP_BYTES) this.resolve(body);
    else if (type === IP && body.length >= IP_HEAD) this.route(frame, body);
  }

  route(frame, packet) {
    const datagram = packet.subarray((packet[0] & 15) * 4);
    const isUdp = packet[9] === UDP && datagram.length >= UDP_HEAD;
    if (isUdp && datagram.readUInt16BE(2) === SERVER_PORT) {
      this.lease(datagram.subarray(UDP_HEAD));
    } else if (frame[0] & 1 || frame.subarray(0, 6).equals(ROUTER)) {
      const source = packet.subarray(12, 16);
      if (source.equals(this.device)) this.receive(packet);
      else this.note(`IP from ${source.join('.')}, which it has no lease of`);
    }
  }

  // An IP packet for the station.
  packet(packet) {
    this.toStation(IP, packet, this.station);
  }

  toStation(type, body, target) {
    const head = Buffer.alloc(HEAD);
    target.copy(head, 0);
    ROUTER.copy(head, 6);
    head.writeUInt16BE(type, 12);
    this.send(Buffer.concat([head, body]));
  }

  // Answer for all addresses of the host. What the station asks about itself nobody answers.
  resolve(request) {
    if (this.faults.arp !== 'up' || request.readUInt16BE(6) !== ARP_REQUEST) return;
    const target = request.subarray(24, 28);
    const near = target.subarray(0, 3).equals(this.host.subarray(0, 3));
    if (!near || target[3] > LAST_OF_HOST || target.equals(this.device)) return;
    const reply = Buffer.from(request.subarray(0, ARP_BYTES));
    reply.writeUInt16BE(ARP_REPLY, 6);
    ROUTER.copy(reply, 8);
    target.copy(reply, 14);
    request.copy(reply, 18, 8, 18);
    this.toStation(ARP, reply, this.station);
  }

  // DHCP

  lease(message) {
    if (message.length < OPTIONS_AT || message.readUInt32BE(OPTIONS_AT - 4) !== COOKIE) return;
    const options = optionsOf(message);
    const kind = options.get(KIND)?.[0];
    const wanted = options.get(WANTED) ?? message.subarray(12, 16);
    const name = options.get(NAME)?.toString('latin1') ?? '';
    this.note(`DHCP ${kind} for ${wanted.join('.')} ${name}`.trimEnd());
    const { dhcp, dhcp_ms: ms } = this.faults;
    if (dhcp === 'silent') return;
    let answer = null;
    if (kind === DISCOVER) answer = OFFER;
    else if (kind === REQUEST && dhcp !== 'offer') {
      answer = dhcp === 'nak' || !wanted.equals(this.device) ? NAK : ACK;
    }
    if (answer !== null) this.clock.after(ms * 1e6, () => this.answer(message, answer));
  }

  answer(request, kind) {
    const { host, device } = this;
    const reply = Buffer.alloc(REPLY_BYTES);
    reply.set([2, 1, 6]); // a reply, on Ethernet
    request.copy(reply, 4, 4, 8); // the transaction
    host.copy(reply, 20);
    request.copy(reply, 28, 28, 44); // the station
    reply.writeUInt32BE(COOKIE, OPTIONS_AT - 4);
    const options = [KIND, 1, kind, SERVER, 4, ...host];
    if (kind !== NAK) {
      device.copy(reply, 16);
      const lease = Buffer.alloc(4);
      lease.writeUInt32BE(this.faults.lease_s);
      options.push(LEASE, 4, ...lease, MASK, 4, 255, 255, 255, 0);
      options.push(GATEWAY, 4, ...host, DNS, 4, ...host);
    }
    reply.set([...options, END], OPTIONS_AT);
    this.broadcast(reply);
  }

  broadcast(data) {
    const head = Buffer.alloc(IP_HEAD);
    head[0] = 0x45;
    head.writeUInt16BE(IP_HEAD + UDP_HEAD + data.length, 2);
    head.writeUInt16BE((this.id = (this.id + 1) & 0xffff), 4);
    head[8] = 64; // time to live
    head[9] = UDP;
    this.host.copy(head, 12);
    head.fill(255, 16);
    head.writeUInt16BE(checksum(head), 10);
    const udp = Buffer.alloc(UDP_HEAD); // without a checksum, as UDP may be
    udp.writeUInt16BE(SERVER_PORT, 0);
    udp.writeUInt16BE(CLIENT_PORT, 2);
    udp.writeUInt16BE(UDP_HEAD + data.length, 4);
    this.toStation(IP, Buffer.concat([head, udp, data]), BROADCAST);
  }
}

// {option: bytes} of a DHCP message.
function optionsOf(message) {
  const options = new Map();
  for (let at = OPTIONS_AT; at < message.length && message[at] !== END; ) {
    if (message[at] === PAD) at++;
    else {
      const end = at + 2 + (message[at + 1] ?? 0);
      options.set(message[at], message.subarray(at + 2, end));
      at = end;
    }
  }
  return options;
}
