// A fast path for the core: the instructions that only touch registers, RAM and flash.
//
// rp2040js tries one comparison after the other to find out what an instruction is, keeps flags
// and registers in objects, and moves the clock after each one: about 35 ns an instruction, five
// times slower than the chip. Here a burst of instructions runs in one loop over typed arrays;
// whatever it does not know (a peripheral, an interrupt's return, anything rare) it leaves to
// rp2040js, which executes that instruction. Both give the same state after each instruction, the
// quirks of rp2040js' flags included: test_core.mjs compares them.
//
// Cases are literals, as V8 makes a jump table of those only. Numbers in the comments are the
// sections of the ARMv6-M manual, A5.2 (encodings).

const RAM = 0x20000000;
const RAM_BYTES = 264 * 1024;
const FLASH_PAGE = 0x10; // the top byte of addresses in flash
const PC = 15;

export class Core {
  constructor(mcu) {
    this.mcu = mcu;
    this.core = mcu.core;
    this.registers = new Int32Array(mcu.core.registers.buffer);
    this.ram8 = mcu.sram;
    this.ram16 = new Uint16Array(mcu.sram.buffer);
    this.ram32 = new Int32Array(mcu.sram.buffer);
    this.flash8 = mcu.flash;
    this.flash16 = mcu.flash16;
    this.flash32 = new Int32Array(mcu.flash.buffer);
    this.stuck = false; // the burst met an instruction that it does not know
  }

  // Execute for about `cycles` of the core's clock, or until it waits; return how many it was. The
  // emulated clock goes on after each burst, which ends with the instruction after which an alarm
  // is due.
  run(cycles) {
    const { core, mcu } = this;
    const { clock } = mcu;
    let total = 0;
    while (total < cycles && !core.waiting) {
      if (core.interruptsUpdated) core.checkForInterrupts();
      const nanos = 1e9 / mcu.clkSys;
      let limit = cycles - total;
      if (clock.nextAlarm) {
        limit = Math.min(limit, Math.max(Math.ceil(clock.nanosToNextAlarm / nanos), 1));
      }
      let done = this.burst(limit);
      clock.tick(done * nanos);
      if (this.stuck) {
        const more = core.executeInstruction();
        clock.tick(more * nanos);
        done += more;
      }
      total += done;
    }
    return total;
  }

  // Execute at least one instruction and until `limit` cycles have gone by, or `stuck` by an
  // instruction that is not known here, which is not executed. Returns the cycles.
  burst(limit) {
    const { core, registers: r, ram8, ram16, ram32, flash8, flash16, flash32 } = this;
    const flashBytes = flash8.length;
    let pc = r[PC] & ~1;
    let nz = core.Z ? 0 : core.N ? -1 : 1; // flags N and Z: the sign of this
    let c = core.C ? 1 : 0;
    let v = core.V ? 1 : 0;
    let cycles = 0;
    let stuck = false;

    do {
      let op;
      const inRam = (pc - RAM) >>> 0;
      if (pc >>> 24 === FLASH_PAGE) op = flash16[(pc & 0xffffff) >> 1];
      else if (inRam < RAM_BYTES) op = ram16[inRam >> 1];
      else {
        stuck = true;
        break;
      }
      let next = pc + 2;

      // Most instructions have their registers here.
      const low = op & 7;
      const mid = (op >> 3) & 7;

      // Loads and stores leave these for the end of the loop: `access` says which it is.
      let access = 0;
      let address = 0;
      let target = low;

      switch (op >> 11) {
        case 0b00000: { // LSLS immediate
          const shift = (op >> 6) & 31;
          const value = r[mid];
          if (shift) c = (value >>> (32 - shift)) & 1;
          nz = r[low] = value << shift;
          break;
        }
        case 0b00001: { // LSRS immediate
          const shift = (op >> 6) & 31;
          const value = r[mid];
          c = (value >>> (shift ? shift - 1 : 31)) & 1;
          nz = r[low] = shift ? value >>> shift : 0;
          nz |= 0;
          break;
        }
        case 0b00010: { // ASRS immediate
          const shift = (op >> 6) & 31;
          const value = r[mid];
          c = (value >>> (shift ? shift - 1 : 31)) & 1;
          nz = r[low] = value >> (shift || 31);
          break;
        }
        case 0b00011: { // ADDS, SUBS of three registers, or two and a number of three bits
          const a = r[mid];
          const b = op & 0x400 ? (op >> 6) & 7 : r[(op >> 6) & 7];
          if (op & 0x200) {
            nz = (a - b) | 0;
            c = a >>> 0 >= b >>> 0 ? 1 : 0;
            v = ((a ^ b) & (a ^ nz)) >>> 31;
          } else {
            nz = (a + b) | 0;
            c = nz >>> 0 < a >>> 0 ? 1 : 0;
            v = ((a ^ nz) & (b ^ nz)) >>> 31;
          }
          r[low] = nz;
          break;
        }
        case 0b00100: // MOVS immediate
          nz = r[(op >> 8) & 7] = op & 0xff;
          break;
        case 0b00101: { // CMP immediate
          const a = r[(op >> 8) & 7];
          const b = op & 0xff;
          nz = (a - b) | 0;
          c = a >>> 0 >= b ? 1 : 0;
          v = (a & ~nz) >>> 31;
          break;
        }
        case 0b00110: { // ADDS immediate
          const d = (op >> 8) & 7;
          const a = r[d];
          nz = r[d] = (a + (op & 0xff)) | 0;
          c = nz >>> 0 < a >>> 0 ? 1 : 0;
          v = (~a & nz) >>> 31;
          break;
        }
        case 0b00111: { // SUBS immediate
          const d = (op >> 8) & 7;
          const a = r[d];
          const b = op & 0xff;
          nz = r[d] = (a - b) | 0;
          c = a >>> 0 >= b ? 1 : 0;
          v = (a & ~nz) >>> 31;
          break;
        }

        case 0b01000:
          if (op & 0x400) { // A5.2.3: registers of all sixteen, and branches to a register
            const m = (op >> 3) & 15;
            const d = ((op >> 4) & 8) | low;
            const value = m === PC ? pc + 4 : r[m];
            switch ((op >> 8) & 3) {
              case 0: { // ADD
                const sum = ((d === PC ? pc + 4 : r[d]) + value) | 0;
                if (d === PC) {
                  next = sum & ~1;
                  cycles++;
                } else r[d] = d === 13 ? sum & ~3 : sum;
                break;
              }
              case 1: { // CMP
                if (m === PC || d === PC) {
                  stuck = true;
                  break;
                }
                const a = r[d];
                nz = (a - value) | 0;
                c = a >>> 0 >= value >>> 0 ? 1 : 0;
                v = ((a ^ value) & (a ^ nz)) >>> 31;
                break;
              }
              case 2: // MOV
                if (d === PC) {
                  next = value & ~1;
                  cycles++;
                } else r[d] = d === 13 ? value & ~3 : value;
                break;
              default: // BX, BLX
                // Perhaps the return from an exception; BLX by LR or PC
                if (low || m === PC || value >>> 28 === 15 || (m === 14 && op & 0x80)) {
                  stuck = true;
                  break;
                }
                if (op & 0x80) r[14] = next | 1;
                next = value & ~1;
                cycles++;
            }
            break;
          }
          switch ((op >> 6) & 15) { // A5.2.2: data processing
            case 0: // ANDS
              nz = r[low] &= r[mid];
              break;
            case 1: // EORS
              nz = r[low] ^= r[mid];
              break;
            case 2: { // LSLS
              const value = r[low];
              const shift = r[mid] & 0xff;
              if (shift) c = (value >>> ((32 - shift) & 31)) & 1;
              nz = r[low] = shift >= 32 ? 0 : value << shift;
              break;
            }
            case 3: { // LSRS
              const value = r[low];
              const shift = r[mid] & 0xff;
              c = shift <= 32 ? (value >>> ((shift - 1) & 31)) & 1 : 0;
              nz = (shift >= 32 ? 0 : value >>> shift) | 0;
              r[low] = nz;
              break;
            }
            case 4: { // ASRS
              const value = r[low];
              const shift = Math.min(r[mid] & 0xff, 32);
              c = (value >>> ((shift - 1) & 31)) & 1;
              nz = r[low] = value >> Math.min(shift, 31);
              break;
            }
            case 5: { // ADCS
              const a = r[mid];
              const b = (r[low] + c) | 0;
              const carried = c && b === 0 ? 1 : 0;
              nz = (a + b) | 0;
              c = carried | (nz >>> 0 < a >>> 0 ? 1 : 0);
              v = ((a ^ nz) & (b ^ nz)) >>> 31;
              r[low] = nz;
              break;
            }
            case 6: { // SBCS
              const a = r[low];
              const b = (r[mid] + 1 - c) | 0;
              const borrowed = !c && b === 0 ? 1 : 0;
              nz = (a - b) | 0;
              c = !borrowed && a >>> 0 >= b >>> 0 ? 1 : 0;
              v = ((a ^ b) & (a ^ nz)) >>> 31;
              r[low] = nz;
              break;
            }
            case 7: { // RORS
              const value = r[low];
              const shift = r[mid] & 31;
              nz = r[low] = shift ? (value >>> shift) | (value << (32 - shift)) : value;
              c = nz >>> 31;
              break;
            }
            case 8: // TST
              nz = r[low] & r[mid];
              break;
            case 9: { // RSBS
              const b = r[mid];
              nz = r[low] = -b | 0;
              c = b === 0 ? 1 : 0;
              v = (b & nz) >>> 31;
              break;
            }
            case 10: { // CMP
              const a = r[low];
              const b = r[mid];
              nz = (a - b) | 0;
              c = a >>> 0 >= b >>> 0 ? 1 : 0;
              v = ((a ^ b) & (a ^ nz)) >>> 31;
              break;
            }
            case 11: { // CMN
              const a = r[low];
              const b = r[mid];
              nz = (a + b) | 0;
              c = nz >>> 0 < a >>> 0 ? 1 : 0;
              v = ((a ^ nz) & (b ^ nz)) >>> 31;
              break;
            }
            case 12: // ORRS
              nz = r[low] |= r[mid];
              break;
            case 13: // MULS
              nz = r[low] = Math.imul(r[low], r[mid]);
              break;
            case 14: // BICS
              nz = r[low] &= ~r[mid];
              break;
            default: // MVNS
              nz = r[low] = ~r[mid];
          }
          break;
        case 0b01001: // LDR literal
          access = 4;
          address = (((pc + 4) & ~3) + ((op & 0xff) << 2)) | 0;
          target = (op >> 8) & 7;
          break;

        case 0b01010: // A5.2.4: STR, STRH, STRB, LDRSB, LDR, LDRH, LDRB, LDRSH with two registers
        case 0b01011:
          access = (op >> 9) & 7;
          if (access === 0) access = 8;
          address = (r[mid] + r[(op >> 6) & 7]) | 0;
          break;
        case 0b01100: // STR immediate
          access = 8;
          address = (r[mid] + ((op >> 4) & 0x7c)) | 0;
          break;
        case 0b01101: // LDR immediate
          access = 4;
          address = (r[mid] + ((op >> 4) & 0x7c)) | 0;
          break;
        case 0b01110: // STRB immediate
          access = 2;
          address = (r[mid] + ((op >> 6) & 31)) | 0;
          break;
        case 0b01111: // LDRB immediate
          access = 6;
          address = (r[mid] + ((op >> 6) & 31)) | 0;
          break;
        case 0b10000: // STRH immediate
          access = 1;
          address = (r[mid] + ((op >> 5) & 0x3e)) | 0;
          break;
        case 0b10001: // LDRH immediate
          access = 5;
          address = (r[mid] + ((op >> 5) & 0x3e)) | 0;
          break;
        case 0b10010: // STR to the stack
          access = 8;
          address = (r[13] + ((op & 0xff) << 2)) | 0;
          target = (op >> 8) & 7;
          break;
        case 0b10011: // LDR from the stack
          access = 4;
          address = (r[13] + ((op & 0xff) << 2)) | 0;
          target = (op >> 8) & 7;
          break;
        case 0b10100: // ADR
          r[(op >> 8) & 7] = ((pc & ~3) + 4 + ((op & 0xff) << 2)) | 0;
          break;
        case 0b10101: // ADD a number to SP
          r[(op >> 8) & 7] = (r[13] + ((op & 0xff) << 2)) | 0;
          break;

        case 0b10110: // A5.2.5: miscellaneous
          switch ((op >> 8) & 7) {
            case 0: // ADD, SUB SP
              if (op & 0x80) r[13] = (r[13] - ((op & 0x7f) << 2)) & ~3;
              else r[13] = (r[13] + ((op & 0x7f) << 2)) & ~3;
              break;
            case 2: { // SXTH, SXTB, UXTH, UXTB
              const value = r[mid];
              switch ((op >> 6) & 3) {
                case 0:
                  r[low] = (value << 16) >> 16;
                  break;
                case 1:
                  r[low] = (value << 24) >> 24;
                  break;
                case 2:
                  r[low] = value & 0xffff;
                  break;
                default:
                  r[low] = value & 0xff;
              }
              break;
            }
            case 4: // PUSH
            case 5: {
              const list = op & 0x1ff;
              let count = 0;
              for (let bits = list; bits; bits &= bits - 1) count++;
              const bottom = (r[13] - 4 * count - RAM) >>> 0;
              if (bottom >= RAM_BYTES - 4 * count) {
                stuck = true;
                break;
              }
              let at = bottom >> 2;
              for (let bits = list & 0xff, i = 0; bits; bits >>= 1, i++) {
                if (bits & 1) ram32[at++] = r[i];
              }
              if (list & 0x100) ram32[at] = r[14];
              r[13] = (r[13] - 4 * count) | 0;
              cycles += list & 0x100 ? count - 1 : count;
              break;
            }
            default:
              stuck = true;
          }
          break;
        case 0b10111:
          switch ((op >> 8) & 7) {
            case 4: // POP
            case 5: {
              const bottom = (r[13] - RAM) >>> 0;
              if (bottom >= RAM_BYTES - 36) {
                stuck = true;
                break;
              }
              let at = bottom >> 2;
              let count = 0;
              for (let bits = op & 0xff; bits; bits &= bits - 1) count++;
              if (op & 0x100) {
                const value = ram32[at + count];
                if (value >>> 28 === 15) {
                  stuck = true; // perhaps the return from an exception
                  break;
                }
                next = value & ~1;
              }
              for (let bits = op & 0xff, i = 0; bits; bits >>= 1, i++) {
                if (bits & 1) r[i] = ram32[at++];
              }
              cycles += count;
              if (op & 0x100) {
                cycles += 2;
                count++;
              }
              r[13] = (r[13] + 4 * count) | 0;
              break;
            }
            case 2: { // REV, REV16, REVSH
              const value = r[mid];
              const swapped = ((value & 0xff00ff) << 8) | ((value >>> 8) & 0xff00ff);
              switch ((op >> 6) & 3) {
                case 0:
                  r[low] = (swapped << 16) | (swapped >>> 16);
                  break;
                case 1:
                  r[low] = swapped;
                  break;
                case 3:
                  r[low] = (swapped << 16) >> 16;
                  break;
                default:
                  stuck = true;
              }
              break;
            }
            case 7: // NOP; the other hints wait or signal
              if (op !== 0xbf00) stuck = true;
              break;
            default:
              stuck = true;
          }
          break;

        case 0b11000: // STMIA
        case 0b11001: { // LDMIA
          const n = (op >> 8) & 7;
          const list = op & 0xff;
          const bottom = (r[n] - RAM) >>> 0;
          if (bottom >= RAM_BYTES - 32 || bottom & 3) {
            stuck = true;
            break;
          }
          let at = bottom >> 2;
          for (let bits = list, i = 0; bits; bits >>= 1, i++) {
            if (!(bits & 1)) continue;
            if (op & 0x800) r[i] = ram32[at++];
            else ram32[at++] = r[i];
            cycles++;
          }
          if (!(list & (1 << n))) r[n] = (at << 2) + RAM;
          break;
        }

        case 0b11010: // B with a condition, UDF, SVC
        case 0b11011: {
          let taken = false;
          switch ((op >> 9) & 7) {
            case 0:
              taken = nz === 0;
              break;
            case 1:
              taken = c !== 0;
              break;
            case 2:
              taken = nz < 0;
              break;
            case 3:
              taken = v !== 0;
              break;
            case 4:
              taken = c !== 0 && nz !== 0;
              break;
            case 5:
              taken = nz < 0 === (v !== 0);
              break;
            case 6:
              taken = nz < 0 === (v !== 0) && nz !== 0;
              break;
            default:
              stuck = true;
          }
          if (!stuck && taken !== ((op & 0x100) !== 0)) {
            next = pc + 4 + ((op << 24) >> 23);
            cycles++;
          }
          break;
        }
        case 0b11100: // B
          next = pc + 4 + ((op << 21) >> 20);
          cycles++;
          break;
        case 0b11110: { // BL
          const from = inRam < RAM_BYTES ? ram16 : flash16;
          const second = from[((pc & 0xffffff) >> 1) + 1];
          if ((second & 0xd000) !== 0xd000) {
            stuck = true; // MRS, MSR, barriers
            break;
          }
          const sign = (op << 21) >> 31; // all ones or zeros
          const i1 = ~((second >> 13) ^ sign) & 1;
          const i2 = ~((second >> 11) ^ sign) & 1;
          const high = (sign << 24) | (i1 << 23) | (i2 << 22);
          const offset = high | ((op & 0x3ff) << 12) | ((second & 0x7ff) << 1);
          r[14] = (pc + 4) | 1;
          next = (pc + 4 + offset) | 0;
          cycles += 2;
          break;
        }
        default:
          stuck = true;
      }
      if (stuck) break;

      if (access) {
        const at = (address - RAM) >>> 0;
        const inFlash = address >>> 24 === FLASH_PAGE && (address & 0xffffff) < flashBytes;
        const known = at < RAM_BYTES;
        switch (access) {
          case 4: // LDR
            if (address & 3) stuck = true;
            else if (known) r[target] = ram32[at >> 2];
            else if (inFlash) r[target] = flash32[(address & 0xffffff) >> 2];
            else stuck = true;
            break;
          case 8: // STR
            if (!known || at & 3) stuck = true;
            else ram32[at >> 2] = r[target];
            break;
          case 6: // LDRB
            if (known) r[target] = ram8[at];
            else if (inFlash) r[target] = flash8[address & 0xffffff];
            else stuck = true;
            break;
          case 2: // STRB
            if (known) ram8[at] = r[target];
            else stuck = true;
            break;
          case 5: // LDRH
            if (address & 1) stuck = true;
            else if (known) r[target] = ram16[at >> 1];
            else if (inFlash) r[target] = flash16[(address & 0xffffff) >> 1];
            else stuck = true;
            break;
          case 1: // STRH
            if (!known || at & 1) stuck = true;
            else ram16[at >> 1] = r[target];
            break;
          case 3: // LDRSB
            if (known) r[target] = (ram8[at] << 24) >> 24;
            else if (inFlash) r[target] = (flash8[address & 0xffffff] << 24) >> 24;
            else stuck = true;
            break;
          default: // LDRSH
            if (address & 1) stuck = true;
            else if (known) r[target] = (ram16[at >> 1] << 16) >> 16;
            else if (inFlash) r[target] = (flash16[(address & 0xffffff) >> 1] << 16) >> 16;
            else stuck = true;
        }
        if (stuck) break;
        cycles++;
      }
      pc = next;
      cycles++;
    } while (cycles < limit);

    r[PC] = pc;
    core.N = nz < 0;
    core.Z = nz === 0;
    core.C = c !== 0;
    core.V = v !== 0;
    this.stuck = stuck;
    return cycles;
  }
}
