// A stand-in for the RP2040's boot ROM, so that no image of the real one is needed.
//
// The firmware finds ROM functions in tables by two-letter codes (RP2040 datasheet, section
// 2.8.3). Here each function is "BKPT n; BX LR", and rp2040js' hook for breakpoints does its work
// in JavaScript. It takes no emulated time but for the flash's. Not timed like the real ROM.

const MAGIC = 0x10; // "Mu", 1, version
const VERSION_B2 = 3;
const CODE_TABLE = 0x14;
const DATA_TABLE = 0x16;
const LOOKUP = 0x18;
const STUBS = 0x100;
const TABLES = 0x800;
const INITIAL_SP = 0x20041f00;
const INITIAL_PC = 0x10000001; // the second-stage boot loader, the first 256 bytes of flash
const BKPT = 0xbe00;
const BX_LR = 0x4770;
const FLOAT_ENTRIES = 32;

const TWO_63 = 2n ** 63n;
const TWO_64 = 2n ** 64n;

// Fill the ROM of `mcu`; erase and program act on `flash` (see flash.mjs).
export function installRom(mcu, flash) {
  const bytes = new Uint8Array(16 * 1024);
  const rom = new DataView(bytes.buffer);
  const functions = []; // what each does, by the number in BKPT
  const registers = () => mcu.core.registers;

  // Write the next stub; return its address with the Thumb bit.
  function stub(work) {
    const at = STUBS + 4 * functions.length;
    rom.setUint16(at, BKPT | functions.length, true);
    rom.setUint16(at + 2, BX_LR, true);
    functions.push(work);
    return at | 1;
  }

  let end = TABLES;

  // Write a table of [code, address], ended by a zero; return where it is.
  function codeTable(entries) {
    const at = end;
    for (const [code, address] of entries) {
      bytes[end] = code.charCodeAt(0);
      bytes[end + 1] = code.charCodeAt(1);
      rom.setUint16(end + 2, address, true);
      end += 4;
    }
    end += 4;
    return at;
  }

  // Write a floating-point table: its length, the addresses. Return where the addresses are.
  function floatTable(name, operations) {
    rom.setUint16(end, FLOAT_ENTRIES, true);
    end += 4;
    const at = end;
    for (let offset = 0; offset < 4 * FLOAT_ENTRIES; offset += 4) {
      const missing = () => {
        throw new Error(`the ROM's ${name}+0x${offset.toString(16)} is not there`);
      };
      rom.setUint32(end, stub(operations[offset] ?? missing), true);
      end += 4;
    }
    return at;
  }

  const code = {
    ...memoryFunctions(mcu, registers),
    ...bitFunctions(registers),
    ...flashFunctions(mcu, registers, flash),
    UB() {
      throw new Error('the firmware asked for the USB boot loader');
    },
  };
  const codes = Object.entries(code).map(([name, work]) => [name, stub(work)]);
  const floats = floatFunctions(registers);
  const data = [
    ['SF', floatTable('SF', floats.single)],
    ['SD', floatTable('SD', floats.double)],
  ];

  const lookup = stub(() => {
    const wanted = registers()[1] & 0xffff;
    for (let entry = registers()[0] >>> 0; ; entry += 4) {
      const found = rom.getUint16(entry, true);
      if (found === 0 || found === wanted) {
        registers()[0] = found && rom.getUint16(entry + 2, true);
        return;
      }
    }
  });

  rom.setUint32(0, INITIAL_SP, true);
  rom.setUint32(4, INITIAL_PC, true);
  bytes.set([0x4d, 0x75, 1, VERSION_B2], MAGIC);
  rom.setUint16(CODE_TABLE, codeTable(codes), true);
  rom.setUint16(DATA_TABLE, codeTable(data), true);
  rom.setUint16(LOOKUP, lookup, true);

  mcu.bootrom.set(new Uint32Array(bytes.buffer));
  mcu.onBreak = (number) => {
    if (number >= functions.length) throw new Error(`BKPT ${number} is no ROM function`);
    functions[number]();
  };
}

function memoryFunctions(mcu, registers) {
  function copy() {
    let [to, from, count] = registers();
    if (((to | from) & 3) === 0) {
      for (; count >= 4; count -= 4, to += 4, from += 4) mcu.writeUint32(to, mcu.readUint32(from));
    }
    for (; count > 0; count--) mcu.writeUint8(to++, mcu.readUint8(from++));
  }
  function fill() {
    let [to, value, count] = registers();
    value &= 0xff;
    const word = (value * 0x01010101) >>> 0;
    if ((to & 3) === 0) for (; count >= 4; count -= 4, to += 4) mcu.writeUint32(to, word);
    for (; count > 0; count--) mcu.writeUint8(to++, value);
  }
  return { MS: fill, S4: fill, MC: copy, C4: copy };
}

function bitFunctions(registers) {
  const unary = (f) => () => {
    registers()[0] = f(registers()[0] >>> 0);
  };
  return {
    L3: unary(Math.clz32),
    T3: unary((x) => (x ? 31 - Math.clz32(x & -x) : 32)),
    P3: unary((x) => {
      let ones = 0;
      for (; x; x >>>= 1) ones += x & 1;
      return ones;
    }),
    R3: unary((x) => {
      let reversed = 0;
      for (let bit = 0; bit < 32; bit++, x >>>= 1) reversed = (reversed << 1) | (x & 1);
      return reversed;
    }),
  };
}

function flashFunctions(mcu, registers, flash) {
  const nothing = () => {}; // connect, leave and enter execute-in-place, empty the cache
  return {
    IF: nothing,
    EX: nothing,
    FC: nothing,
    CX: nothing,
    RE() {
      const [offset, count] = registers();
      flash.erase(offset, count);
    },
    RP() {
      const [offset, from, count] = registers();
      const data = new Uint8Array(count);
      for (let i = 0; i < count; i++) data[i] = mcu.readUint8(from + i);
      flash.program(offset, data);
    },
  };
}

// The entries of the tables SF and SD at their offsets (pico-sdk: pico/bootrom/sf_table.h).
function floatFunctions(registers) {
  const cell = new DataView(new ArrayBuffer(8));
  const load = (at, words) => {
    for (let i = 0; i < words; i++) cell.setUint32(4 * i, registers()[at + i], true);
  };
  const store = (at, words) => {
    for (let i = 0; i < words; i++) registers()[at + i] = cell.getUint32(4 * i, true);
  };
  const single = {
    words: 1,
    get(at) {
      load(at, 1);
      return cell.getFloat32(0, true);
    },
    put(value, at = 0) {
      cell.setFloat32(0, value, true);
      store(at, 1);
    },
  };
  const double = {
    words: 2,
    get(at) {
      load(at, 2);
      return cell.getFloat64(0, true);
    },
    put(value, at = 0) {
      cell.setFloat64(0, value, true);
      store(at, 2);
    },
  };
  const int64 = () => (load(0, 2), Number(cell.getBigInt64(0, true)));
  const uint64 = () => (load(0, 2), Number(cell.getBigUint64(0, true)));

  // Conversions to integers round down and saturate.
  function to32(value, low, high) {
    registers()[0] = Number.isNaN(value) ? 0 : Math.min(Math.max(Math.floor(value), low), high);
  }
  function to64(value, low, high) {
    let result = 0n;
    if (value === Infinity) result = high;
    else if (value === -Infinity) result = low;
    else if (!Number.isNaN(value)) result = BigInt(Math.floor(value));
    if (result < low) result = low;
    if (result > high) result = high;
    cell.setBigInt64(0, BigInt.asIntN(64, result), true);
    store(0, 2);
  }
  const toInt32 = (value) => to32(value, -(2 ** 31), 2 ** 31 - 1);
  const toUint32 = (value) => to32(value, 0, 2 ** 32 - 1);
  const toInt64 = (value) => to64(value, -TWO_63, TWO_63 - 1n);
  const toUint64 = (value) => to64(value, 0n, TWO_64 - 1n);

  function entries({ words, get, put }, convert) {
    const x = () => get(0);
    const y = () => get(words);
    const scaled = () => x() * 2 ** (registers()[words] | 0);
    const power = (at) => 2 ** (registers()[at] | 0);
    return {
      0x00: () => put(x() + y()),
      0x04: () => put(x() - y()),
      0x08: () => put(x() * y()),
      0x0c: () => put(x() / y()),
      0x18: () => put(Math.sqrt(x())),
      0x1c: () => toInt32(x()),
      0x20: () => toInt32(scaled()),
      0x24: () => toUint32(x()),
      0x28: () => toUint32(scaled()),
      0x2c: () => put(registers()[0] | 0),
      0x30: () => put((registers()[0] | 0) / power(1)),
      0x34: () => put(registers()[0] >>> 0),
      0x38: () => put((registers()[0] >>> 0) / power(1)),
      0x3c: () => put(Math.cos(x())),
      0x40: () => {
        const angle = x();
        put(Math.cos(angle), words);
        put(Math.sin(angle));
      },
      0x44: () => put(Math.tan(x())),
      0x4c: () => put(Math.exp(x())),
      0x50: () => put(Math.log(x())),
      0x58: () => put(Math.atan2(x(), y())),
      0x5c: () => put(int64()),
      0x60: () => put(int64() / power(2)),
      0x64: () => put(uint64()),
      0x68: () => put(uint64() / power(2)),
      0x6c: () => toInt64(x()),
      0x70: () => toInt64(scaled()),
      0x74: () => toUint64(x()),
      0x78: () => toUint64(scaled()),
      0x7c: convert,
    };
  }
  return {
    single: entries(single, () => double.put(single.get(0))),
    double: entries(double, () => single.put(double.get(0))),
  };
}
