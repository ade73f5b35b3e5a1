// What goes over the bus between the driver and the firmware of a CYW43439. A packet has a head of
// 12 bytes (SDPCM): size, its complement, sequence, channel, 0, length of all heads, flow control,
// credit; little endian. What follows depends on the channel.

export const CONTROL = 0; // channels: a command and its answer (CDC),
export const EVENT = 1; // what the firmware tells by itself,
export const DATA = 2; // an Ethernet frame

const HEAD = 12;
const CONTROL_HEAD = 16;
const FRAME_HEAD = 4; // BDC
const FRAME_VERSION = 0x20;
const FAILED = 1; // flags of a command
const SET = 2;

const EVENT_TYPE = 0x886c; // of the frame that an event is
const EVENT_SUBTYPE = 0x8001;
const EVENT_OUI = [0x00, 0x10, 0x18];
const EVENT_AT = 24; // where its fields begin
const EVENT_BYTES = 48;

// Return {sequence, channel, body} of a packet from the host, or null if it is broken.
export function parsed(bytes) {
  if (bytes.length < HEAD) return null;
  const size = bytes.readUInt16LE(0);
  const complement = bytes.readUInt16LE(2);
  if ((size ^ complement) !== 0xffff || size > bytes.length || bytes[7] > size) return null;
  const body = Buffer.from(bytes.subarray(bytes[7], size));
  const channel = bytes[5] & 15;
  if (channel === CONTROL && body.length < CONTROL_HEAD) return null;
  if (channel === DATA && body.length < FRAME_HEAD) return null;
  return { sequence: bytes[4], channel, body };
}

// Return the packet of a body; one without is there for its credit.
export function packed(channel, sequence, credit, body) {
  const head = HEAD + (channel === CONTROL ? 0 : 2);
  const packet = Buffer.alloc(head + body.length);
  packet.writeUInt16LE(packet.length, 0);
  packet.writeUInt16LE(~packet.length & 0xffff, 2);
  packet[4] = sequence;
  packet[5] = channel;
  packet[7] = head;
  packet[9] = credit;
  body.copy(packet, head);
  return packet;
}

// Return the command in the body of a packet: {command, set, flags, data}.
export function request(body) {
  const flags = body.readUInt32LE(8);
  const data = body.subarray(CONTROL_HEAD);
  return { command: body.readUInt32LE(0), set: (flags & SET) !== 0, flags, data };
}

// Return the body of the answer to a command. Its flags repeat the id of the request.
export function reply({ command, flags }, status, data) {
  const head = Buffer.alloc(CONTROL_HEAD);
  head.writeUInt32LE(command, 0);
  head.writeUInt32LE(data.length, 4);
  head.writeUInt32LE((flags | (status ? FAILED : 0)) >>> 0, 8);
  head.writeInt32LE(status, 12);
  return Buffer.concat([head, data]);
}

// Return the Ethernet frame in the body of a packet.
export function frameOf(body) {
  return body.subarray(FRAME_HEAD + 4 * body[3]);
}

export function ofFrame(frame) {
  return Buffer.concat([Buffer.from([FRAME_VERSION, 0, 0, 0]), frame]);
}

// Return the body of an event: an Ethernet frame from the chip, `mac`, to its host.
//
// type, status, reason, flags  numbers
// address                      Buffer of 6 bytes, of the access point; or null
// data                         Buffer
export function ofEvent(mac, { type, status = 0, reason = 0, flags = 0, address = null, data }) {
  data ??= Buffer.alloc(0);
  const frame = Buffer.alloc(EVENT_AT + EVENT_BYTES);
  mac.copy(frame, 0);
  mac.copy(frame, 6);
  frame.writeUInt16BE(EVENT_TYPE, 12);
  frame.writeUInt16BE(EVENT_SUBTYPE, 14);
  frame.writeUInt16BE(EVENT_BYTES + data.length + 10, 16);
  frame.set([0, ...EVENT_OUI, 0, 1], 18);
  frame.writeUInt16BE(2, EVENT_AT); // version
  frame.writeUInt16BE(flags, EVENT_AT + 2);
  frame.writeUInt32BE(type, EVENT_AT + 4);
  frame.writeUInt32BE(status, EVENT_AT + 8);
  frame.writeUInt32BE(reason, EVENT_AT + 12);
  frame.writeUInt32BE(data.length, EVENT_AT + 20);
  address?.copy(frame, EVENT_AT + 24);
  frame.write('wl0', EVENT_AT + 30);
  return ofFrame(Buffer.concat([frame, data]));
}
