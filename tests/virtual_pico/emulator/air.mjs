// What is on the air round a virtual Pico W: networks, how long things take there, what is wrong.

import { createHash, pbkdf2Sync } from 'node:crypto';

// Milliseconds of emulated time. Those that are not of published traces say why they are so.
export const TIMES = {
  ioctl: 0.7,
  country: 32,
  find: 640, // from connect() until an access point that is there is found
  give_up: 930, // until it is sure that there is none
  authenticate: 1,
  associate: 5,
  keys: 13, // the four-way handshake
  settle: 20, // from the keys to the last events of a join
  wrong_key: 4000, // until the access point gives up: hostapd tries four times, 1 s each
  key_timeout: 5000, // until the chip does: the driver sets it (sup_wpa_tmo)
  no_answer: 900, // until nobody has answered the authentication
  leave: 5, // from the command to its event
  beacon: 102.4,
  beacons_lost: 8000, // until the chip notices that there are none
  again: 1000, // between two looks for a network that it lost
  scan: 1500,
  frame: 1, // on the air, with the access point's own time
};

// What may be wrong, and how it is without that.
export const NO_AIR_FAULTS = {
  // How a wrong password ends, chips differ: "deauth": the access point says goodbye and the chip
  // reports a failure of the keys; "timeout": the chip gives up after 5 s; "retry": as "deauth",
  // and the chip tries again by itself, for ever; "silent": nothing is ever told
  wrong_key: 'deauth',
  // "silent": no access point answers the authentication; "none": nothing is told of that either
  authentication: 'up',
  weak_joins: 0, // the next joins get no keys, though the password is right (weak signal)
  carries: true, // false: no frame passes either way, nobody is told
  rejoins: true, // the chip joins again by itself when it lost the network
  beacons: true, // false: none arrives, from access points that are there
  deaf_leave: false, // the command to leave has no effect, and gives no event
  unanswered: [], // commands (numbers) or variables (names) that are never answered; "*": all
};

const WPA2 = Buffer.from('30140100000fac040100000fac040100000fac020000', 'hex'); // its element
const SCAN_VERSION = 109;
const BSS_BYTES = 128;
const SCAN_HEAD = 12;

export class Air {
  // networks  [{ssid, password, channel, rssi}]
  constructor(networks) {
    this.networks = new Map();
    this.faults = { ...NO_AIR_FAULTS };
    this.times = { ...TIMES };
    for (const network of networks) this.add(network);
  }

  // password  null: an open network
  add({ ssid, password = null, channel = 6, rssi = -55 }) {
    const bssid = createHash('sha256').update(ssid).digest().subarray(0, 6);
    bssid[0] = 0x02; // locally administered
    this.networks.set(ssid, { ssid, password, channel, rssi, bssid, up: true });
  }

  // Return the network of that name.
  network(ssid) {
    const found = this.networks.get(ssid);
    if (!found) throw new Error(`no network ${ssid}: ${[...this.networks.keys()]}`);
    return found;
  }

  // Return the network of that name if it can be heard, else null.
  heard(ssid) {
    const found = this.networks.get(ssid);
    return found?.up && this.faults.beacons ? found : null;
  }

  // Return all that can be heard, or that of a name.
  scanned(ssid) {
    const names = ssid ? [ssid] : [...this.networks.keys()];
    return names.map((name) => this.heard(name)).filter(Boolean);
  }
}

// Return whether `key`, a password or 64 hexadecimal digits, is that of the network.
export function opens({ ssid, password }, key) {
  if (key === password) return true;
  if (password === null || key?.length !== 64) return false;
  return pbkdf2Sync(password, ssid, 4096, 32, 'sha1').toString('hex') === key.toLowerCase();
}

// Return the data of the event with which a scan tells of a network.
export function scanResult({ ssid, password, bssid, channel, rssi }) {
  const elements = password === null ? Buffer.alloc(0) : WPA2;
  const bss = Buffer.alloc(BSS_BYTES + elements.length);
  bss.writeUInt32LE(SCAN_VERSION, 0);
  bss.writeUInt32LE(bss.length, 4);
  bssid.copy(bss, 8);
  bss.writeUInt16LE(100, 14); // beacon period
  bss.writeUInt16LE(password === null ? 0x0401 : 0x0411, 16); // capabilities; 0x10: privacy
  bss[18] = bss.write(ssid, 19);
  bss.writeUInt16LE(channel | 0x1000, 72);
  bss.writeInt16LE(rssi, 78);
  bss.writeUInt16LE(BSS_BYTES, 116); // where its elements are, and how long
  bss.writeUInt32LE(elements.length, 120);
  elements.copy(bss, BSS_BYTES);
  const head = Buffer.alloc(SCAN_HEAD);
  head.writeUInt32LE(SCAN_HEAD + bss.length, 0);
  head.writeUInt32LE(SCAN_VERSION, 4);
  head.writeUInt16LE(1, 10); // one network
  return Buffer.concat([head, bss]);
}
