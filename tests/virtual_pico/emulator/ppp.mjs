// The other end of the chip's PPP line (RFC 1661, 1662, 1332): it takes every link.

const FLAG = 0x7e;
const ESCAPE = 0x7d;
const FLIP = 0x20;
const GOOD_FCS = 0xf0b8;
const LONGEST = 2048; // bytes of a frame

const LCP = 0xc021;
const IPCP = 0x8021;
const IP = 0x0021;

const REQUEST = 1; // codes
const ACK = 2;
const NAK = 3;
const REJECT = 4;
const TERMINATE = 5;
const TERMINATED = 6;
const PROTOCOL_REJECT = 8;
const ECHO = 9;
const ECHO_REPLY = 10;

const MRU = 1; // options of LCP
const CONTROL_MAP = 2;
const MAGIC = 5;
const SHORT_PROTOCOL = 7;
const SHORT_HEAD = 8;
const TAKEN = [MRU, CONTROL_MAP, MAGIC, SHORT_PROTOCOL, SHORT_HEAD];
const ADDRESS = 3; // options of IPCP
const DNS = [129, 131];

const OUR_MAGIC = [0x12, 0x34, 0x56, 0x78];

const FCS = new Uint16Array(256).map((_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >> 1) ^ 0x8408 : value >> 1;
  return value;
});

function fcs16(bytes) {
  let fcs = 0xffff;
  for (const byte of bytes) fcs = (fcs >> 8) ^ FCS[(fcs ^ byte) & 0xff];
  return fcs;
}

// [type, length, ...data] of each option.
function split(options) {
  const list = [];
  for (let at = 0; at + 1 < options.length && options[at + 1] >= 2; at += options[at + 1]) {
    list.push(options.subarray(at, at + options[at + 1]));
  }
  return list;
}

export class PPP {
  // host, device  addresses of both ends (Buffers of 4 bytes)
  // send          (bytes) to the line
  // receive       (packet) an IP packet from the device
  // isCut         () => whether the line is cut: nothing passes
  constructor({ host, device, send, receive, isCut }) {
    Object.assign(this, { host, device, send, receive, isCut });
    this.badFrames = 0;
    this.id = 0;
    this.restart();
  }

  // The line is new: the chip was reset, or the link is to be negotiated again.
  restart() {
    this.frame = [];
    this.escaped = false;
    this.up = false; // IP may pass
    this.agreed = false; // the device knows our address
    this.plain = false; // control characters need no escape
    this.plainAsked = false;
  }

  input(byte) {
    if (byte === FLAG) {
      if (this.frame.length >= 4) this.read(Buffer.from(this.frame));
      this.frame = [];
      this.escaped = false;
    } else if (byte === ESCAPE) {
      this.escaped = true;
    } else if (this.frame.length < LONGEST) {
      this.frame.push(this.escaped ? byte ^ FLIP : byte);
      this.escaped = false;
    }
  }

  read(frame) {
    if (fcs16(frame) !== GOOD_FCS) {
      this.badFrames++;
      return;
    }
    let at = frame[0] === 0xff && frame[1] === 3 ? 2 : 0; // address and control: often left out
    let protocol = frame[at++];
    if (!(protocol & 1)) protocol = (protocol << 8) | frame[at++];
    const body = frame.subarray(at, -2);
    if (protocol === IP) {
      if (this.up) this.receive(body);
    } else if (this.isCut()) {
      // as if it had not come
    } else if (protocol === LCP || protocol === IPCP) {
      const [code, id] = body;
      const data = body.subarray(4, body.readUInt16BE(2));
      if (protocol === LCP) this.lcp(code, id, data);
      else this.ipcp(code, id, data);
    } else {
      const rejected = Buffer.concat([Buffer.from([protocol >> 8, protocol & 0xff]), body]);
      this.control(LCP, PROTOCOL_REJECT, ++this.id, rejected);
    }
  }

  write(protocol, body) {
    const frame = Buffer.concat([
      Buffer.from([0xff, 3, protocol >> 8, protocol & 0xff]),
      body,
      Buffer.alloc(2),
    ]);
    frame.writeUInt16LE(fcs16(frame.subarray(0, -2)) ^ 0xffff, frame.length - 2);
    const line = [FLAG];
    for (const byte of frame) {
      if (byte === FLAG || byte === ESCAPE || (byte < 0x20 && !this.plain)) {
        line.push(ESCAPE, byte ^ FLIP);
      } else {
        line.push(byte);
      }
    }
    line.push(FLAG);
    this.send(line);
  }

  control(protocol, code, id, data = Buffer.alloc(0)) {
    const head = Buffer.from([code, id & 0xff, 0, 0]);
    head.writeUInt16BE(4 + data.length, 2);
    this.write(protocol, Buffer.concat([head, Buffer.from(data)]));
  }

  askForIp() {
    if (!this.agreed) this.control(IPCP, REQUEST, ++this.id, [ADDRESS, 6, ...this.host]);
  }

  lcp(code, id, data) {
    if (code === REQUEST) {
      this.restart();
      // Before the answer: what comes after an ACK begins the negotiation anew.
      this.control(LCP, REQUEST, ++this.id, [CONTROL_MAP, 6, 0, 0, 0, 0, MAGIC, 6, ...OUR_MAGIC]);
      const options = split(data);
      const unknown = options.filter(([type]) => !TAKEN.includes(type));
      if (unknown.length) {
        this.control(LCP, REJECT, id, Buffer.concat(unknown));
      } else {
        const map = options.find(([type]) => type === CONTROL_MAP);
        this.plainAsked = map !== undefined && map.readUInt32BE(2) === 0;
        this.control(LCP, ACK, id, data);
      }
    } else if (code === ACK) {
      this.plain = this.plainAsked;
      this.askForIp();
    } else if (code === TERMINATE) {
      this.control(LCP, TERMINATED, id);
      this.restart();
    } else if (code === ECHO) {
      this.control(LCP, ECHO_REPLY, id, [...OUR_MAGIC, ...data.subarray(4)]);
    }
  }

  ipcp(code, id, data) {
    if (code === ACK) this.agreed = true;
    if (code !== REQUEST) return;
    this.askForIp();
    const options = split(data);
    const unknown = options.filter(([type]) => type !== ADDRESS && !DNS.includes(type));
    const wrong = options
      .map((option) => [option, option[0] === ADDRESS ? this.device : this.host])
      .filter(([option, address]) => !option.subarray(2, 6).equals(address))
      .map(([option, address]) => Buffer.from([option[0], 6, ...address]));
    if (unknown.length) {
      this.control(IPCP, REJECT, id, Buffer.concat(unknown));
    } else if (wrong.length) {
      this.control(IPCP, NAK, id, Buffer.concat(wrong));
    } else {
      this.control(IPCP, ACK, id, data);
      this.up = true;
    }
  }

  sendPacket(packet) {
    if (this.up) this.write(IP, packet);
  }

  // Hang up, as a modem does that lost its carrier and says so.
  terminate() {
    if (this.up) this.control(LCP, TERMINATE, ++this.id);
    this.restart();
  }
}
