// The file formats of an exported folder: safetensors, manifests, and the ZIP archive of a folder.

const TYPES = { F32: Float32Array, F64: Float64Array };
const text = new TextEncoder();
export const encode = (string) => text.encode(string);
export const decode = (bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);

/** Return the tensors, { shape, data } by name, and the metadata of a safetensors file. */
export function readTensors(bytes) {
  const start = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__: metadata, ...header } = JSON.parse(decode(bytes.subarray(8, start)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(header)) {
    if (!(dtype in TYPES)) throw new Error(`${name}: has the type ${dtype}; expected ${Object.keys(TYPES).join(" or ")}`);
    tensors[name] = { shape, data: new TYPES[dtype](bytes.slice(start + begin, start + end).buffer) };
  }
  return { tensors, metadata };
}

/** Return the bytes of a safetensors file. */
export function writeTensors(tensors, metadata) {
  const wide = ([, { data }]) => Number(data instanceof Float32Array); // fp64 first, so that all are aligned
  const entries = Object.entries(tensors).sort((a, b) => wide(a) - wide(b)), header = { __metadata__: metadata };
  let end = 0;
  for (const [name, { shape, data }] of entries) {
    header[name] = { dtype: data instanceof Float32Array ? "F32" : "F64", shape, data_offsets: [end, (end += data.byteLength)] };
  }
  const head = JSON.stringify(header), padded = encode(head + " ".repeat(-encode(head).length & 7)), length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(padded.length), true);
  return joined([length, padded, ...entries.map(([, { data }]) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength))]);
}

function joined(parts) {
  const found = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) found.set(part, (at += part.length) - part.length);
  return found;
}

/** Return the sha256 of bytes in hexadecimal; browsers offer it to pages of https and of this machine only. */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return a manifest with the hash of its content, in the format of `cdl.runtime.artifacts`. */
export async function sealed(content) {
  const seal = await sha256(encode(canonical([content, {}])));
  return encode(`${JSON.stringify({ ...content, _record: { files: {}, sha256: seal } }, null, 2)}\n`);
}

/** Return JSON in ASCII with sorted keys and without spaces, as Python's json. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical)}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.keys(value).sort().map((key) => `${canonical(key)}:${canonical(value[key])}`)}}`;
  }
  return JSON.stringify(value).replace(/[\x7f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const REMAINDERS = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let found = 0xffffffff;
  for (const byte of bytes) found = REMAINDERS[(found ^ byte) & 255] ^ (found >>> 8);
  return ~found >>> 0;
}

/** Return a ZIP archive without compression of files, bytes by name in ASCII, as a Blob. */
export function zipped(files) {
  const DATE = 0x21, parts = [], entries = []; // 1 January 1980: the archive of one state is always the same
  let at = 0;
  for (const [path, bytes] of Object.entries(files)) {
    const name = encode(path), common = [20, 0, 0, 0, DATE], sizes = [crc32(bytes), bytes.length, bytes.length];
    const head = packedAs([[4, 0x04034b50], ...common.map((n) => [2, n]), ...sizes.map((n) => [4, n]), [2, name.length], [2, 0]]);
    const entry = [[4, 0x02014b50], [2, 20], ...common.map((n) => [2, n]), ...sizes.map((n) => [4, n]), [2, name.length]];
    entries.push(packedAs([...entry, [2, 0], [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), name);
    parts.push(head, name, bytes);
    at += head.length + name.length + bytes.length;
  }
  const n = entries.length / 2, size = entries.reduce((total, part) => total + part.length, 0);
  const end = packedAs([[4, 0x06054b50], [2, 0], [2, 0], [2, n], [2, n], [4, size], [4, at], [2, 0]]);
  return new Blob([...parts, ...entries, end], { type: "application/zip" });
}

/** Return integers, each of a number of bytes, in little endian. */
function packedAs(fields) {
  return Uint8Array.from(fields.flatMap(([bytes, value]) => Array.from({ length: bytes }, (_, i) => (value >>> (8 * i)) & 255)));
}
