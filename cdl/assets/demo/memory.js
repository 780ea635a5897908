// What a student remembers of all classes, and its heads in closed form, as in cdl/device/memory.py.
// Tensors are { shape, data } by name, with data in fp32 or fp64 as in the file.

import { aligned, headLogits, started } from "./aligning.js";
import { Statistics, bestRidge, longer, oneHot, packed, ridgeWeights, squaredErrors, traceOf, unpacked } from "./closed.js";
import { filled, inner, matrix, norm, row, times, transposed } from "./matrix.js";

const stored = (a, shape = [a.rows, a.columns]) => ({ shape, data: Float32Array.from(a.data) });
const vector = (data) => ({ shape: [data.length], data: Float32Array.from(data) });
const matrixOf = ({ shape: [rows], data }) => matrix(rows, rows ? data.length / rows : 0, Float64Array.from(data));
const padded = ({ data }, n) => longer(matrix(data.length, 1, data), n).data;

/** Return the features [n, D] of one token of tokens [n, T, D]; a negative position counts from the end. */
function tokenOf({ shape: [n, count, width], data }, position) {
  const at = position < 0 ? position + count : position;
  return filled(n, width, (i, j) => data[(i * count + at) * width + j]);
}

/** Return the k-th of n equal blocks of columns. */
const blockOf = (a, k, n) => filled(a.rows, a.columns / n, (i, j) => a.data[i * a.columns + (k * a.columns) / n + j]);

/** Return the sum of matrices, each times its factor, and of a row. */
function summed(all, bias) {
  const [[, { rows, columns }]] = all;
  return filled(rows, columns, (i, j) => all.reduce((total, [factor, own]) => total + factor * own.data[i * columns + j], bias?.[j] ?? 0));
}

/** Return a matrix with rows of norm 1. */
function normalised(a) {
  const lengths = Array.from({ length: a.rows }, (_, i) => Math.max(norm(row(a, i)), 1e-12));
  return filled(a.rows, a.columns, (i, j) => a.data[i * a.columns + j] / lengths[i]);
}

/** Sums for a ridge regression on random features, or class means for cosines. */
export class RidgeMemory {
  constructor(about, tensors) {
    Object.assign(this, { about, tensors });
  }

  /** Return logits [n, C] for tokens [n, T, D]. */
  logits(tokens) {
    const both = [this.features(tokens), matrixOf(this.tensors.weight)], parts = this.#parts();
    return summed(parts.map(([, factor], k) => {
      const pair = both.map((rows) => blockOf(rows, k, parts.length));
      return [factor, times(...(this.about.kind === "mean" ? pair.map(normalised) : pair))];
    }), this.tensors.bias?.data);
  }

  /** Return position and factor of the token of each head; earlier versions wrote one head's only. */
  #parts() {
    return this.about.parts ?? [[0, 1]];
  }

  /** Return the memory of n classes after an update from tokens [k, T, D] and the positions of their classes. */
  learn(tokens, labels, n) {
    const { bias, ...old } = this.tensors, about = { ...this.about, updates: this.about.updates + 1 };
    const features = this.features(tokens), targets = oneHot(labels, n), width = features.columns;
    const images = padded(old.images, n), counts = padded(old.counts, n), sums = longer(transposed(matrixOf(old.sums)), n);
    const usual = old.counts.data.reduce((a, b) => a + b, 0) / old.counts.data.length;
    labels.forEach((label) => { images[label] += 1; });
    const weights = images.map((k) => Math.max(1, usual / Math.max(k, 1))); // a class with few images counts as much as the others
    const weighted = filled(features.rows, width, (i, j) => features.data[i * width + j] * weights[labels[i]]);
    labels.forEach((label) => { counts[label] += weights[label]; });
    inner(targets, weighted).data.forEach((value, i) => { sums.data[i] += value; });
    const found = { ...old, images: vector(images), counts: vector(counts), sums: stored(transposed(sums)) };
    if (about.kind === "mean") {
      const weight = filled(n, width, (i, j) => sums.data[i * width + j] / Math.max(counts[i], 1e-12));
      return new RidgeMemory(about, { ...found, weight: stored(weight) });
    }
    const gram = unpacked(old.gram.data, width), own = squaredErrors(features, targets, about.updates);
    inner(weighted, features).data.forEach((value, i) => { gram.data[i] = Math.fround(gram.data[i] + value); });
    const losses = old.losses.data.map((value, i) => value + own[i]), ridge = bestRidge(losses, traceOf(gram));
    const weight = stored(ridgeWeights(gram, sums, ridge));
    return new RidgeMemory(about, { ...found, weight, losses: { shape: old.losses.shape, data: losses }, gram: vector(packed(gram.data, width)) });
  }

  /** Return the class means [C, M] of the features. */
  means() {
    const { sums, counts } = this.tensors, found = transposed(matrixOf(sums));
    return filled(found.rows, found.columns, (i, j) => found.data[i * found.columns + j] / Math.max(counts.data[i], 1e-12));
  }

  /** Return what the class means are of, [n, M]. */
  features(tokens) {
    const parts = this.#parts().map(([position]) => tokenOf(tokens, position)), { projection } = this.tensors;
    const [{ rows, columns: width }] = parts, token = filled(rows, width * parts.length, (i, j) => row(parts[Math.floor(j / width)], i)[j % width]);
    if (!projection) return token;
    this.columns ??= transposed(matrixOf(projection));
    const found = times(token, this.columns);
    found.data.forEach((value, i) => { found.data[i] = Math.max(value, 0); });
    return found;
  }
}

/** Class statistics for linear heads that are aligned, or solved as a ridge regression. */
export class AlignedMemory {
  constructor(about, tensors) {
    Object.assign(this, { about, tensors });
  }

  /** Return logits [n, C] for tokens [n, T, D]. */
  logits(tokens) {
    return summed(this.about.heads.map(({ name, token, factor, normalised }) =>
      [factor, headLogits(this.#rows(name), tokenOf(tokens, token), normalised && !this.about.closed)]));
  }

  /** Return the memory of n classes after an update from tokens [k, T, D] and the positions of their classes. */
  learn(tokens, labels, n) {
    const more = n - this.tensors.counts.data.length, { closed, heads, alignment } = this.about;
    const sizes = more ? [...this.about.sizes, more] : this.about.sizes;
    const about = { ...this.about, updates: this.about.updates + 1, sizes, balance: true };
    const tensors = { ...this.tensors }, statistics = {};
    for (const { part, token } of heads) {
      if (part in statistics) continue;
      statistics[part] = this.#statistics(part).added(tokenOf(tokens, token), labels, n);
      Object.assign(tensors, named(part, statistics[part]));
    }
    heads.forEach(({ name, part, normalised }, i) => {
      let trained = this.#rows(`${name}.trained`);
      let rows = alignment.next_task === "trained" || closed ? trained : this.#rows(name);
      if (more) {
        rows = started(rows, statistics[part], normalised);
        trained = joined(trained, rows);
      }
      rows = closed ? closedRows(statistics[part]) : aligned(rows, statistics[part], sizes, alignment, 2 * about.updates + i, normalised);
      for (const [key, { weight, bias }] of [[name, rows], [`${name}.trained`, trained]]) {
        Object.assign(tensors, { [`${key}.weight`]: stored(weight), [`${key}.bias`]: vector(bias) });
      }
    });
    return new AlignedMemory(about, tensors);
  }

  means() {
    return matrixOf(this.tensors[`${this.about.heads[0].part}.mean`]);
  }

  features(tokens) {
    return tokenOf(tokens, this.about.heads[0].token);
  }

  #rows(name) {
    return { weight: matrixOf(this.tensors[`${name}.weight`]), bias: Float64Array.from(this.tensors[`${name}.bias`].data) };
  }

  #statistics(part) {
    const mean = matrixOf(this.tensors[`${part}.mean`]), kind = this.about.alignment.statistic, width = mean.columns;
    let spread = matrixOf(this.tensors[`${part}.spread`]);
    if (kind === "covariance") {
      const squares = Array.from({ length: spread.rows }, (_, c) => unpacked(row(spread, c), width).data);
      spread = filled(spread.rows, width * width, (c, i) => squares[c][i]);
    }
    return new Statistics(mean, spread, Float64Array.from(this.tensors.counts.data), kind);
  }
}

/** Return the rows of a ridge regression from class statistics, as if all classes had the mean number of images. */
function closedRows(statistics) {
  const weight = statistics.even().ridge();
  return { weight, bias: new Float64Array(weight.rows) };
}

/** Return old rows and the new ones of `rows`. */
function joined(old, rows) {
  const weight = matrix(rows.weight.rows, rows.weight.columns, rows.weight.data.slice()), bias = rows.bias.slice();
  weight.data.set(old.weight.data);
  bias.set(old.bias);
  return { weight, bias };
}

/** Return the tensors of class statistics. */
function named(part, { mean, spread, counts, wide, width }) {
  const triangles = wide && Array.from({ length: spread.rows }, (_, c) => packed(row(spread, c), width));
  const own = wide ? filled(spread.rows, triangles[0].length, (c, i) => triangles[c][i]) : spread;
  return { [`${part}.mean`]: stored(mean), [`${part}.spread`]: stored(own), counts: vector(counts) };
}

/** Return the memory of a kind. */
export const makeMemory = (about, tensors) => new (about.kind === "aligned" ? AlignedMemory : RidgeMemory)(about, tensors);

/** Return the bytes of all tensors of a memory. */
export const bytesOf = ({ tensors }) => Object.values(tensors).reduce((total, { data }) => total + data.byteLength, 0);
