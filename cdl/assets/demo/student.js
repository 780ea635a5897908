// An exported student in the browser: it predicts, learns and undoes as cdl/device/student.py.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { after, flipsOf, scoresOf } from "./belonging.js";
import { decode, encode, readTensors, sealed, sha256, writeTensors, zipped } from "./files.js";
import { bytesOf, makeMemory } from "./memory.js";
import { checkName } from "./names.js";

const MODEL = "model.onnx", CLASSES = "classes.txt", MEMORY = "memory.safetensors", MANIFEST = "manifest.json", CURRENT = "current";
const SHARED = [MODEL, "preprocessing.json", MEMORY], KEPT = 4, FEATURES = "features";

ort.env.wasm.numThreads = 1; // several threads need response headers that a plain web server does not send

/** Return the content of a file of this site. */
async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: cannot be read (${response.status}); write the page again with cdl demo`);
  return new Uint8Array(await response.arrayBuffer());
}

const placeOf = (version) => (version ? `versions/${version}/` : "");

export class Student {
  #files; #made = new Map(); #session; #heads; #scoring; #projection; #unused; // paths of the folder; content of the new ones

  /** Open the student whose files are listed in student.json. */
  static async open() {
    const student = new Student();
    student.#files = new Set(JSON.parse(decode(await fetched("student.json"))).files);
    student.#session = await ort.InferenceSession.create(await student.#read(MODEL), { executionProviders: ["wasm"] });
    await student.#load();
    return student;
  }

  /** Whether it can learn: its folder has a memory, and its graph the features that heads read. */
  get learns() {
    return this.#files.has(MEMORY) && this.#session.outputNames.includes(FEATURES);
  }

  /** Whether there is a version before this one. */
  get undoes() {
    return this.version > 0;
  }

  async #read(path) {
    return this.#made.get(path) ?? fetched(`student/${path}`);
  }

  async #json(path) {
    return JSON.parse(decode(await this.#read(path)));
  }

  /** Read classes and heads of the current version; version 0 has its heads in the graph. */
  async #load() {
    const { version, unused } = await this.#json(CURRENT);
    const classes = decode(await this.#read(placeOf(version) + CLASSES)).replace(/\n$/, "").split("\n").map((name) => name.normalize("NFC").trim());
    const heads = version ? await this.#memory(version) : null;
    [this.version, this.#unused, this.classes, this.#heads] = [version, unused, classes, heads];
    this.#scoring = heads;
  }

  async #memory(version) {
    const { tensors, metadata } = readTensors(await this.#read(placeOf(version) + MEMORY));
    if (version) { // the projection never changes, so it is only in version 0
      if (this.#projection === undefined) {
        this.#projection = readTensors(await this.#read(MEMORY)).tensors.projection ?? null;
      }
      if (this.#projection) tensors.projection = this.#projection;
    }
    return makeMemory(JSON.parse(metadata.cdl), tensors);
  }

  /** Return outputs of the graph, { shape, data }, for an image. */
  async #run({ width, height, data }, ...outputs) {
    const feeds = { [this.#session.inputNames[0]]: new ort.Tensor("uint8", data, [1, height, width, 3]) };
    const found = await this.#session.run(feeds, outputs);
    return outputs.map((output) => ({ shape: found[output].dims, data: found[output].data }));
  }

  /** Return the logits [C] of an image, { width, height, data: RGB }. */
  async logits(image) {
    return (await this.#outputs(image))[0];
  }

  /** Return the logits [C] of an image, and further outputs of the graph. */
  async #outputs(image, ...more) {
    if (this.#heads) {
      const tokens = await this.features(image);
      return [this.#heads.logits(tokens).data, tokens];
    }
    const [logits, ...others] = await this.#run(image, this.#session.outputNames[0], ...more);
    return [logits.data, ...others];
  }

  /** Return the tokens [1, T, D] that the heads read. */
  async features(image) {
    return (await this.#run(image, FEATURES))[0];
  }

  /** Return the n most probable classes of an image, { name, probability }, and its { score, threshold } if these are known. */
  async best(image, n) {
    this.#scoring ??= this.learns ? await this.#memory(0) : null;
    const scored = Boolean(this.#scoring?.tensors.threshold);
    const [logits, tokens] = await this.#outputs(image, ...(scored ? [FEATURES] : [])), most = logits.reduce((a, b) => Math.max(a, b));
    if (!logits.every(Number.isFinite)) throw new Error("the model's output is not finite, so no class can be predicted");
    const exp = Array.from(logits, (value) => Math.exp(value - most)), total = exp.reduce((a, b) => a + b);
    const found = this.classes.map((name, i) => ({ name, probability: exp[i] / total }));
    const best = found.sort((a, b) => b.probability - a.probability).slice(0, n);
    return { best, score: scored ? scoresOf(this.#scoring, tokens)[0] : null };
  }

  /** Learn a new class, or more of a known one, from the features of at least one image; return what it cost. */
  async learn(given, features) {
    const name = checkName(given);
    if (!features.length) throw new Error(`images: there is none of ${JSON.stringify(name)}; expected at least one`);
    const known = this.classes.includes(name), classes = known ? this.classes : [...this.classes, name];
    const before = this.#heads ?? (await this.#memory(0)), begin = performance.now();
    const tokens = stacked(features), labels = features.map(() => classes.indexOf(name));
    const memory = after(before.learn(tokens, labels, classes.length), before, tokens, labels);
    const milliseconds = performance.now() - begin, flips = flipsOf(before, memory);
    await this.#add(memory, classes);
    return { known, milliseconds, bytes: bytesOf(memory), flips };
  }

  /** Return to the version before the last update. */
  async undo() {
    if (!this.version) throw new Error("the student is as it was exported, so there is nothing to undo");
    const parent = await this.#parent(this.version);
    if (!this.#files.has(placeOf(parent) + CLASSES)) throw new Error(`no version before ${this.version} is kept`);
    await this.#point(parent, [...this.#unused, this.version]);
  }

  /** Return the folder with all versions as a ZIP archive. */
  async archive() {
    const files = {};
    for (const path of this.#files) files[`student/${path}`] = await this.#read(path);
    return zipped(files);
  }

  async #parent(version) {
    return (await this.#json(placeOf(version) + MANIFEST)).made_from.parent;
  }

  /** Write a version as cdl/device/versions.py does, and make it the current one. */
  async #add(memory, classes) {
    const number = 1 + [...this.#files].reduce((most, path) => Math.max(most, Number(/^versions\/(\d+)\//.exec(path)?.[1] ?? 0)), 0);
    const { projection, ...tensors } = memory.tensors, exported = await this.#json(MANIFEST);
    const written = { [CLASSES]: encode(classes.map((name) => `${name}\n`).join("")), [MEMORY]: writeTensors(tensors, { cdl: JSON.stringify(memory.about) }) };
    const files = {};
    for (const [name, bytes] of Object.entries(written)) files[name] = await sha256(bytes);
    for (const [name, hash] of Object.entries(exported.files)) {
      if (SHARED.some((start) => name.startsWith(start))) files[`../../${name}`] = hash;
    }
    written[MANIFEST] = await sealed({ made_from: { ...exported.made_from, version: number, parent: this.version }, files });
    for (const [name, bytes] of Object.entries(written)) {
      this.#files.add(placeOf(number) + name);
      this.#made.set(placeOf(number) + name, bytes);
    }
    const chain = [];
    for (let version = number; version && this.#files.has(placeOf(version) + CLASSES); version = await this.#parent(version)) chain.push(version);
    const gone = [...this.#unused, ...chain.slice(KEPT)];
    for (const path of this.#files) {
      if (gone.some((version) => path.startsWith(placeOf(version)))) {
        this.#files.delete(path);
        this.#made.delete(path);
      }
    }
    await this.#point(number, []);
  }

  /** Make a version the current one, and load it. */
  async #point(version, unused) {
    const manifest = this.#files.has(placeOf(version) + MANIFEST) ? await sha256(await this.#read(placeOf(version) + MANIFEST)) : "";
    this.#made.set(CURRENT, await sealed({ version, manifest, unused }));
    await this.#load();
  }
}

/** Return tokens [n, T, D] of n tokens [1, T, D]. */
function stacked(parts) {
  const [, count, width] = parts[0].shape, data = new Float32Array(parts.length * count * width);
  parts.forEach((part, i) => data.set(part.data, i * count * width));
  return { shape: [parts.length, count, width], data };
}
