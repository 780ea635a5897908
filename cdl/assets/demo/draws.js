// Random numbers as functions of keys and counters; cdl/device/draws.py describes them and has the same.

const STEP = 0x9e3779b9;

/** Mix a 32-bit integer. */
function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Return a function from a counter to 32 random bits. */
export function bits(keys) {
  const state = keys.reduce((found, key) => mix((found + key + STEP) >>> 0), 0);
  return (counter) => mix((state + mix((counter + STEP) >>> 0)) >>> 0);
}

/** Return a function from a counter below 2^31 to a number of a standard normal. */
export function normal(keys) {
  const found = bits(keys), uniform = (counter) => (found(counter) + 0.5) / 2 ** 32;
  return (counter) => Math.sqrt(-2 * Math.log(uniform(2 * counter))) * Math.cos(2 * Math.PI * uniform(2 * counter + 1));
}

/** Return the order of 0 to n - 1 by their bits; equal bits keep their order. */
export function permutation(keys, n) {
  const values = Uint32Array.from({ length: n }, (_, i) => i).map(bits(keys));
  return Uint32Array.from({ length: n }, (_, i) => i).sort((a, b) => values[a] - values[b] || a - b);
}
