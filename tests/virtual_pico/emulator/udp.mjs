// UDP from the chip to ports of this computer, and the DNS server that is built in.

import dgram from 'node:dgram';

const UDP = 17;
const HEAD = 8;
const DNS = 53;
const MOST = 32; // sockets; the one that was used longest ago goes first

const A = 1;
const NAME = 12; // where the question begins in a DNS message
const NO_SUCH_NAME = 0x8183;
const ANSWER = 0x8180;
const TTL_S = 60;

export class Udp {
  constructor(network) {
    this.network = network;
    this.sockets = new Map();
  }

  fromDevice(host, address, datagram) {
    const { network } = this;
    const devicePort = datagram.readUInt16BE(0);
    const port = datagram.readUInt16BE(2);
    const data = datagram.subarray(HEAD, datagram.readUInt16BE(4));
    if (network.isHole(port, address)) return;
    if (port === DNS) {
      if (network.faults.dns !== 'up') return;
      if (!(DNS in network.ports)) {
        this.toDevice(host, DNS, devicePort, answer(data, network.names));
        return;
      }
    }
    this.socket(host, address, port, devicePort).send(data, network.hostPort(port), '127.0.0.1');
  }

  // One socket for each pair of ports, so that answers find their way back.
  socket(host, address, port, devicePort) {
    const key = `${devicePort} ${address} ${port}`;
    let socket = this.sockets.get(key);
    this.sockets.delete(key);
    if (!socket) {
      const from = Buffer.from(host);
      socket = dgram.createSocket('udp4');
      socket.on('error', () => {});
      socket.on('message', (data, sender) => {
        // An answer from another port than the one that was asked comes from another port.
        const asked = sender.port === this.network.hostPort(port);
        this.toDevice(from, asked ? port : sender.port, devicePort, data);
        this.network.wake();
      });
    }
    this.sockets.set(key, socket); // the last: Maps keep the order of insertion
    if (this.sockets.size > MOST) {
      const [oldest, unused] = this.sockets.entries().next().value;
      this.sockets.delete(oldest);
      unused.close();
    }
    return socket;
  }

  toDevice(host, port, devicePort, data) {
    if (this.network.isHole(port, host.join('.'))) return;
    const head = Buffer.alloc(HEAD);
    head.writeUInt16BE(port, 0);
    head.writeUInt16BE(devicePort, 2);
    head.writeUInt16BE(HEAD + data.length, 4);
    this.network.toDeviceSummed(UDP, host, Buffer.concat([head, data]), 6);
  }
}

// Answer the DNS message `query` from `names`; a name without an A record there does not exist.
function answer(query, names) {
  const labels = [];
  let at = NAME;
  for (; query[at]; at += query[at] + 1) {
    labels.push(query.toString('latin1', at + 1, at + 1 + query[at]));
  }
  const address = names[labels.join('.').toLowerCase()];
  const found = address !== undefined && query.readUInt16BE(at + 1) === A;
  const reply = Buffer.from(query.subarray(0, at + 5));
  reply.writeUInt16BE(address === undefined ? NO_SUCH_NAME : ANSWER, 2);
  reply.writeUInt16BE(found ? 1 : 0, 6);
  reply.writeUInt32BE(0, 8); // no authorities, no additional records
  if (!found) return reply;
  const record = [0xc0, NAME, 0, A, 0, 1, 0, 0, 0, TTL_S, 0, 4, ...address.split('.').map(Number)];
  return Buffer.concat([reply, Buffer.from(record)]);
}
