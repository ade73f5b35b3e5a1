// Holds the arithmetic of firmware/p256.c against mbedTLS's and this computer's, in the emulator:
//
//   node p256.mjs '{"firmware": "…", "symbols": {…}, "values": 1000, …}'
//
// Prints what was compared, as JSON; what differs ends it.

import { createHash } from 'node:crypto';
import fs from 'node:fs';

import { Firmware } from './calls.mjs';

const settings = {
  firmware: null, // path of the image
  symbols: {}, // {name: address}
  values: 1000, // pairs of numbers at random
  edges: 1000, // pairs of numbers that are special, of all such pairs; 0: all
  inverses: 20, // how many numbers are inverted
  traced: 20, // how often it is watched which instructions run and which memory they use
  groups: [], // published vectors, in the form of Wycheproof's: EcdsaVerify, EcdhEcpointTest, EcdsaSign
  seed: 1,
  ...JSON.parse(fs.readFileSync(0)),
};

const P = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
const N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n; // the group's order
const TOP = 2n ** 256n;
const WORDS = 8;
const SECP256R1 = 3; // mbedtls_ecp_group_id

// mbedTLS's inversion, as what the firmware is built with has it: (gcd, x, a, n), or (x, a, n)
const GCD = 'mbedtls_mpi_gcd_modinv_odd';
const INVERSION = `__wrap_${GCD}` in settings.symbols ? GCD : 'mbedtls_mpi_inv_mod';
const inversion = (x, a, n) => (INVERSION === GCD ? [0, x, a, n] : [x, a, n]);

const chip = new Firmware(settings.firmware, settings.symbols, 'mp_init');
const cycles = {}; // {function: of each call}
const fail = (what, ...numbers) => {
  console.log(`${what}: ${numbers.map((each) => each.toString(16)).join(' ')}`);
  process.exit(1);
};

// Numbers

const state = new Int32Array([settings.seed, 0x9e3779b9, 0x243f6a88, 1]);
function word() {
  // sfc32
  const [a, b, c, counter] = state;
  const sum = (a + b + counter) | 0;
  state.set([b ^ (b >>> 9), c + (c << 3), ((c << 21) | (c >>> 11)) + sum, counter + 1]);
  return sum >>> 0;
}

const below = (n) => word() % n;
const SPECIAL_WORDS = [0, 1, 2, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffff0000, 0xfffffffe, 0xffffffff];

function number(words = WORDS) {
  const special = below(2);
  let n = 0n;
  for (let i = 0; i < words; i++) {
    const each = special && below(4) ? SPECIAL_WORDS[below(SPECIAL_WORDS.length)] : word();
    n = (n << 32n) | BigInt(each);
  }
  return n;
}

// 0, 1, around p, n, 2^256 and all powers of 2, and p less these
const EDGES = new Set();
for (const around of [0n, P, N, TOP, 2n * P]) {
  for (let more = -3n; more <= 3n; more++) EDGES.add(around + more);
}
for (let bit = 0n; bit < 256n; bit++) {
  for (let more = -1n; more <= 1n; more++) {
    EDGES.add(2n ** bit + more);
    EDGES.add(P - 2n ** bit + more);
    EDGES.add(TOP - 2n ** bit + more);
  }
}
const edges = [...EDGES].filter((n) => n >= 0n && n < TOP);

const wordsOf = (n, count) => {
  const words = new Int32Array(count);
  for (let i = 0; i < count; i++, n >>= 32n) words[i] = Number(n & 0xffffffffn);
  return words;
};

const numberOf = (words) => {
  let n = 0n;
  for (let i = words.length - 1; i >= 0; i--) n = (n << 32n) | BigInt(words[i] >>> 0);
  return n;
};

// Memory of the chip

const A = chip.room(4 * WORDS);
const B = chip.room(4 * WORDS);
const X = chip.room(8 * WORDS + 4);
const Y = chip.room(8 * WORDS + 4);

// An mbedtls_mpi: {p, s, n} at an address, of `words` words
function mpi(at, words, where) {
  chip.words(at, 2).set([where, 1 | (words << 16)]);
  return at;
}

const mpiX = chip.room(8);
const mpiA = chip.room(8);
const mpiN = chip.room(8);
const mpiP = mpi(chip.room(8), WORDS, chip.room(4 * WORDS));
chip.words(chip.words(mpiP, 1)[0], WORDS).set(wordsOf(P, WORDS));

// Call a function of ours: it has to take as long as ever.
function constant(name, parameters) {
  const result = chip.call(name, parameters);
  cycles[name] ??= chip.cycles;
  if (cycles[name] !== chip.cycles) fail(`${name}: ${chip.cycles} cycles, not ${cycles[name]}`);
  return result;
}

// Comparisons

const counted = { shapes: 0, products: 0, squares: 0, reductions: 0, inverses: 0, vectors: 0 };

function equal(what, words, wanted, ...numbers) {
  const found = numberOf(chip.words(X, words));
  if (found !== wanted) fail(`${what}: ${found.toString(16)} for`, ...numbers);
}

// x modulo p of what is in X, against mbedTLS's
function compareReduction(n) {
  chip.words(Y, 2 * WORDS + 1).set(chip.words(X, 2 * WORDS));
  chip.words(Y, 2 * WORDS + 1)[2 * WORDS] = 0;
  chip.call('ecp_mod_p256', [mpi(mpiX, 2 * WORDS + 1, Y)]);
  const negative = chip.words(mpiX, 2)[1] & 0x8000;
  const theirs = numberOf(chip.words(Y, 2 * WORDS + 1)) * (negative ? -1n : 1n);
  if ((theirs - n) % P) fail('mbedTLS reduction', n);
  constant('modulo_p', [mpi(mpiX, 2 * WORDS, X)]);
  equal('reduction', 2 * WORDS, n % P, n);
  counted.reductions++;
}

function compareProducts(a, b) {
  chip.words(A, WORDS).set(wordsOf(a, WORDS));
  chip.words(B, WORDS).set(wordsOf(b, WORDS));
  chip.call('mbedtls_mpi_core_mul', [Y, A, WORDS, B, WORDS]);
  const product = a * b;
  if (numberOf(chip.words(Y, 2 * WORDS)) !== product) fail('mbedTLS product', a, b);
  constant('p256_mul', [X, A, B]);
  equal('product', 2 * WORDS, product, a, b);
  const given = [mpi(mpiX, 2 * WORDS + 1, X), mpi(mpiA, WORDS, A), mpi(mpiN, WORDS, B)];
  constant('__wrap_mbedtls_mpi_mul_mpi', given);
  equal('product for mbedTLS', 2 * WORDS, product, a, b);
  compareReduction(product);
  counted.products++;
}

function compareSquares(a) {
  chip.words(A, WORDS).set(wordsOf(a, WORDS));
  chip.call('mbedtls_mpi_core_mul', [Y, A, WORDS, A, WORDS]);
  if (numberOf(chip.words(Y, 2 * WORDS)) !== a * a) fail('mbedTLS square', a);
  constant('p256_sqr', [X, A]);
  equal('square', 2 * WORDS, a * a, a);
  compareReduction(a * a);
  // where the result lies where the factors lie
  chip.words(X, WORDS).set(wordsOf(a, WORDS));
  chip.call('p256_sqr', [X, X]);
  equal('square in place', 2 * WORDS, a * a, a);
  chip.words(X, WORDS).set(wordsOf(a, WORDS));
  chip.call('p256_mul', [X, X, X]);
  equal('product in place', 2 * WORDS, a * a, a);
  counted.squares++;
}

// 1 / a modulo p
function compareInverses(a) {
  const words = wordsOf(a, WORDS);
  chip.words(A, WORDS).set(words);
  const parameters = inversion(mpi(mpiX, WORDS, X), mpi(mpiA, WORDS, A), mpiP);
  chip.words(X, 2 * WORDS).fill(0);
  if (constant(`__wrap_${INVERSION}`, parameters) !== 0) fail('no inverse', a);
  const inverse = numberOf(chip.words(X, WORDS));
  if (inverse >= P || (a * inverse) % P !== 1n) fail('inverse', a);
  // where it lies where the number lies
  const inPlace = inversion(mpi(mpiX, WORDS, A), mpi(mpiA, WORDS, A), mpiP);
  chip.call(`__wrap_${INVERSION}`, inPlace);
  if (numberOf(chip.words(A, WORDS)) !== inverse) fail('inverse in place', a);
  chip.words(A, WORDS).set(words);
  mpi(mpiX, WORDS, X);
  counted.inverses++;
  if (counted.inverses % 10) return; // mbedTLS's own takes long
  if (chip.call(INVERSION, parameters) !== 0) fail('no inverse of mbedTLS', a);
  equal('inverse', WORDS, inverse, a);
}

// An mbedtls_mpi of `n`, on the heap, with room for `words` words
function made(n, words) {
  const at = chip.room(8);
  const size = n < 0n ? -n : n;
  chip.call('mbedtls_mpi_init', [at]);
  chip.call('mbedtls_mpi_grow', [at, words]);
  if (words) chip.words(chip.words(at, 1)[0], words).set(wordsOf(size, words));
  chip.words(at, 2)[1] = (n < 0n ? 0xffff : 1) | (words << 16);
  return at;
}

function valueOf(at) {
  const [where, more] = chip.words(at, 2);
  return numberOf(chip.words(where, more >>> 16)) * (more & 0x8000 ? -1n : 1n);
}

// Products of numbers of any length, and where the result lies where a factor does
function compareShapes() {
  const shapes = [[0n, 0], [0n, 8], [0n, 9], [5n, 1], [-5n, 8], [number(7), 7], [number(7), 8]];
  shapes.push([number(), 8], [-number(), 8], [number(), 9], [number(), 17], [number(9), 9]);
  shapes.push([number(16), 16], [TOP - 1n, 8], [TOP - 1n, 16], [TOP, 9]);
  for (const [a, aWords] of shapes) {
    for (const [b, bWords] of shapes) {
      for (const same of ['none', 'a', 'b', 'factors', 'all']) {
        const kept = chip.next;
        const first = made(a, aWords);
        const second = same === 'factors' || same === 'all' ? first : made(b, bWords);
        const x = { a: first, all: first, b: second }[same] ?? made(number(20), 20);
        const wanted = a * (first === second ? a : b);
        const result = chip.call('__wrap_mbedtls_mpi_mul_mpi', [x, first, second]);
        const found = valueOf(x);
        if (result !== 0 || found !== wanted) fail(`product, ${same} ${aWords} ${bWords}`, a, b);
        if (found === 0n && chip.words(x, 2)[1] & 0x8000) fail('negative 0', a, b);
        for (const each of new Set([first, second, x])) chip.call('mbedtls_mpi_free', [each]);
        chip.next = kept;
        counted.shapes++;
      }
    }
  }
}

// What is no inversion in the field goes to mbedTLS's
function compareRefusals() {
  for (const [a, n] of [[0n, P], [P, P], [P + 1n, P], [5n, N], [N - 1n, N], [3n, TOP - 1n]]) {
    const results = [`__wrap_${INVERSION}`, INVERSION].map((name) => {
      chip.words(A, WORDS).set(wordsOf(a, WORDS));
      chip.words(B, WORDS).set(wordsOf(n, WORDS));
      chip.words(X, 2 * WORDS).fill(0);
      const given = inversion(mpi(mpiX, WORDS, X), mpi(mpiA, WORDS, A), mpi(mpiN, WORDS, B));
      return [chip.call(name, given), numberOf(chip.words(X, WORDS))];
    });
    if (String(results[0]) !== String(results[1])) fail('not as mbedTLS', a, n);
  }
}

// The same instructions run, and use the same addresses, whatever the numbers are

function trace(name, parameters) {
  let hash = 0;
  chip.call(name, parameters, (r) => {
    const pc = r[15] & ~1;
    const op = pc >>> 24 === 0x10 ? chip.core.flash16[(pc & 0xffffff) >> 1] : 0;
    let address = 0;
    switch (op >> 12) {
      case 0b0101:
        address = r[(op >> 3) & 7] + r[(op >> 6) & 7];
        break;
      case 0b0110:
      case 0b0111:
      case 0b1000:
        address = r[(op >> 3) & 7];
        break;
      case 0b1001:
      case 0b1011:
        address = r[13];
        break;
      case 0b1100:
        address = r[(op >> 8) & 7];
    }
    hash = Math.imul(hash ^ pc, 0x01000193);
    hash = Math.imul((hash ^ address) + (hash >>> 15), 0x85ebca6b);
  });
  return hash;
}

const traces = {};
function compareTraces(a, b) {
  chip.words(A, WORDS).set(wordsOf(a, WORDS));
  chip.words(B, WORDS).set(wordsOf(b, WORDS));
  const parametersOfInversion = inversion(mpi(mpiX, WORDS, X), mpi(mpiA, WORDS, A), mpiP);
  for (const [name, parameters] of [
    ['p256_mul', [X, A, B]],
    ['p256_sqr', [X, A]],
    ['modulo_p', [mpiX]],
    ['__wrap_mbedtls_mpi_mul_mpi', [mpiX, mpiA, mpi(mpiN, WORDS, B)]],
    [`__wrap_${INVERSION}`, parametersOfInversion],
  ]) {
    mpi(mpiX, 2 * WORDS, X);
    if (name === 'modulo_p') chip.words(X, 2 * WORDS).set(wordsOf((a << 256n) | b, 2 * WORDS));
    const hash = trace(name, parameters);
    traces[name] ??= hash;
    if (traces[name] !== hash) fail(`${name} runs in another way`, a, b);
  }
}

// Published vectors, in the form of Wycheproof's files

const buffer = chip.room(1024);
const group = chip.room(256);
const point = chip.room(24);
const key = chip.room(64);
const cell = chip.room(4);
let randoms = [];
const random = chip.hook((r) => {
  const bytes = randoms.shift() ?? Buffer.from(Array.from({ length: r[2] }, () => below(256)));
  chip.put(r[1], bytes);
  return 0;
});

function digestOf({ sha, msg }) {
  return createHash(sha.replace('-', '').toLowerCase()).update(msg, 'hex').digest();
}

function signature(vector) {
  // the key as in a certificate, the signature as in a handshake
  const der = Buffer.from(vector.publicKeyDer, 'hex');
  const sig = Buffer.from(vector.sig, 'hex');
  const digest = digestOf(vector);
  chip.call('mbedtls_pk_init', [key]);
  chip.put(buffer, der);
  chip.words(cell, 1)[0] = buffer;
  let result = chip.call('mbedtls_pk_parse_subpubkey', [cell, buffer + der.length, key]);
  if (result === 0) {
    chip.put(buffer, digest);
    chip.put(buffer + 64, sig);
    const given = [key, 0, buffer, digest.length, buffer + 64, sig.length, 0];
    result = chip.call('mbedtls_pk_verify_restartable', given);
  }
  chip.call('mbedtls_pk_free', [key]);
  return result;
}

function agreement(vector) {
  const given = Buffer.from(vector.public, 'hex');
  const secret = Buffer.from(vector.private, 'hex');
  chip.put(buffer, given);
  chip.put(buffer + 512, secret);
  chip.call('mbedtls_mpi_init', [mpiA]);
  chip.call('mbedtls_ecp_point_init', [point]);
  let result = chip.call('mbedtls_ecp_point_read_binary', [group, point, buffer, given.length]);
  result ||= chip.call('mbedtls_mpi_read_binary', [mpiA, buffer + 512, secret.length]);
  result ||= chip.call('mbedtls_ecp_mul', [group, point, mpiA, point, random, 0]);
  result ||= chip.call('mbedtls_mpi_write_binary', [point, buffer, 32]); // X
  const shared = Buffer.from(chip.words(buffer, 8).slice().buffer).toString('hex');
  chip.call('mbedtls_ecp_point_free', [point]);
  chip.call('mbedtls_mpi_free', [mpiA]);
  if (result === 0 && shared !== vector.shared) fail(`agreement ${vector.tcId}: ${shared}`);
  return result;
}

// Sign with a random number that is given
function signing(vector) {
  const digest = digestOf(vector);
  const secret = Buffer.from(vector.private, 'hex');
  chip.put(buffer, digest);
  chip.put(buffer + 512, secret);
  for (const each of [mpiA, mpiX, mpiN]) chip.call('mbedtls_mpi_init', [each]);
  chip.call('mbedtls_mpi_read_binary', [mpiA, buffer + 512, secret.length]);
  randoms = [Buffer.from(vector.k, 'hex')];
  const given = [group, mpiX, mpiN, mpiA, buffer, digest.length, random, 0, random, 0, 0];
  const result = chip.call('mbedtls_ecdsa_sign_restartable', given);
  chip.call('mbedtls_mpi_write_binary', [mpiX, buffer, 32]);
  chip.call('mbedtls_mpi_write_binary', [mpiN, buffer + 32, 32]);
  const signed = Buffer.from(chip.words(buffer, 16).slice().buffer).toString('hex');
  for (const each of [mpiA, mpiX, mpiN]) chip.call('mbedtls_mpi_free', [each]);
  if (signed !== vector.sig) fail(`signing ${vector.tcId}: ${signed}`);
  return result;
}

const KINDS = { EcdsaVerify: signature, EcdhEcpointTest: agreement, EcdsaSign: signing };

function compareVectors({ type, tests, ...group }) {
  for (const vector of tests) {
    if (vector.result === 'acceptable') continue;
    const result = KINDS[type]({ ...group, ...vector });
    if ((result === 0) !== (vector.result === 'valid')) {
      fail(`${type} ${vector.tcId} (${vector.comment}): ${result}`);
    }
    counted.vectors++;
  }
}

// All of it

for (let i = 0; i < settings.values; i++) {
  compareProducts(number(), number());
  compareSquares(number());
  // any 512 bits, not only what products can be
  const n = number(2 * WORDS);
  chip.words(X, 2 * WORDS).set(wordsOf(n, 2 * WORDS));
  compareReduction(n);
}
for (const a of edges) {
  compareSquares(a);
  if (settings.edges === 0) for (const b of edges) compareProducts(a, b);
}
for (let i = 0; i < settings.edges; i++) {
  compareProducts(edges[below(edges.length)], edges[below(edges.length)]);
}
for (let i = 0; i < settings.inverses; i++) {
  const a = (i % 2 ? number() : edges[below(edges.length)]) % P;
  if (a) compareInverses(a);
}
compareShapes();
compareRefusals();
for (let i = 0; i < settings.traced; i++) {
  compareTraces((i % 2 ? number() : edges[below(edges.length)]) % P || 1n, number());
}
chip.call('mbedtls_ecp_group_init', [group]);
chip.call('__wrap_mbedtls_ecp_group_load', [group, SECP256R1]);
for (const each of settings.groups) compareVectors(each);
console.log(JSON.stringify({ ...counted, edges: edges.length, cycles }));
