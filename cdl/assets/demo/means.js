// Memory of class means, for cosines with the features, as in cdl/device/means.py.

import { longer, oneHot } from "./closed.js";
import { filled, inner, matrix, norm, row, times, transposed } from "./matrix.js";
import { matrixOf, stored, summed, tokenOf, vector } from "./tensors.js";

const padded = ({ data }, n) => longer(matrix(data.length, 1, data), n).data;

/** Return the k-th of n equal blocks of columns. */
const blockOf = (a, k, n) => filled(a.rows, a.columns / n, (i, j) => a.data[i * a.columns + (k * a.columns) / n + j]);

/** Return a matrix with rows of norm 1. */
export function normalised(a) {
  const lengths = Array.from({ length: a.rows }, (_, i) => Math.max(norm(row(a, i)), 1e-12));
  return filled(a.rows, a.columns, (i, j) => a.data[i * a.columns + j] / lengths[i]);
}

/** Sums of features of each class. */
export class MeanMemory {
  constructor(about, tensors) {
    Object.assign(this, { about, tensors });
  }

  /** Return logits [n, C] for tokens [n, T, D]. */
  logits(tokens) {
    const both = [this.features(tokens), matrixOf(this.tensors.weight)], parts = this.#parts();
    return summed(parts.map(([, factor], k) => [factor, this.products(...both.map((rows) => blockOf(rows, k, parts.length)))]), this.tensors.bias?.data);
  }

  /** Return the logits [n, C] of one head before its factor. */
  products(features, weight) {
    return times(normalised(features), normalised(weight));
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
    return new this.constructor(about, { ...found, ...this.solved({ sums, counts, features, weighted, targets, labels }) });
  }

  /** Return the weights of all classes after an update, and what else changes with them. */
  solved({ sums: { rows, columns, data }, counts }) {
    return { weight: stored(filled(rows, columns, (i, j) => data[i * columns + j] / Math.max(counts[i], 1e-12))) };
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
