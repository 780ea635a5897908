// Ridge regression and class statistics, as in cdl/device/closed.py.

import { normal, permutation } from "./draws.js";
import { cholesky, dot, filled, inner, matrix, row, solved, times, transposed } from "./matrix.js";

export const RIDGES = Array.from({ length: 17 }, (_, i) => Number(`1e${i - 8}`));
const FIT_SHARE = 0.8, DIAGONAL = 1e-4, DRAWN = 20;
const ORDER = 401, VALIDATION = 402; // purposes of draws

export const oneHot = (labels, n) => filled(labels.length, n, (i, j) => Number(labels[i] === j));
const rowsOf = (a, start, end) => matrix(end - start, a.columns, a.data.subarray(start * a.columns, end * a.columns));
export const chosen = (a, order) => filled(order.length, a.columns, (i, j) => a.data[order[i] * a.columns + j]);
const range = (n) => Array.from({ length: n }, (_, i) => i);

/** Return ((G + r I)^-1 Q)^T [C, M] of G [M, M] and Q^T [C, M], rounded to fp32. */
export function ridgeWeights(gram, sums, ridge) {
  const system = matrix(gram.rows, gram.rows, gram.data.slice());
  for (let i = 0; i < gram.rows; i++) system.data[i * gram.rows + i] += ridge;
  const found = solved(system, sums);
  found.data.set(Float32Array.from(found.data));
  return found;
}

/** Return the total squared error of each ridge on held-out rows of features [n, M] and targets [n, C]. */
export function squaredErrors(features, targets, key) {
  const order = permutation([ORDER, key], features.rows), n = Math.trunc(FIT_SHARE * features.rows);
  if (!n) return RIDGES.map(() => 0);
  [features, targets] = [chosen(features, order), chosen(targets, order)];
  const fit = rowsOf(features, 0, n), wide = n < features.columns; // (H^T H + r I)^-1 H^T = H^T (H H^T + r I)^-1
  let rest = rowsOf(features, n, features.rows);
  const expected = rowsOf(targets, n, targets.rows), own = rowsOf(targets, 0, n);
  const system = wide ? times(fit, fit) : inner(fit, fit);
  const right = wide ? transposed(own) : inner(own, fit);
  if (wide) rest = times(rest, fit);
  return RIDGES.map((ridge) => times(rest, ridgeWeights(system, right, ridge)).data
    .reduce((total, value, i) => total + (value - expected.data[i]) ** 2, 0));
}

/** Return the ridge with the lowest loss that exceeds the rounding errors of a Gram matrix with this trace. */
export function bestRidge(losses, trace) {
  const safe = range(RIDGES.length).filter((i) => RIDGES[i] >= 2 ** -23 * trace);
  if (!safe.length) return RIDGES.at(-1);
  return RIDGES[safe.reduce((best, i) => (losses[i] < losses[best] ? i : best))];
}

/** Return the symmetric matrix [width, width] of an upper triangle that is stored row by row. */
export function unpacked(packed, width) {
  const found = matrix(width, width);
  for (let i = 0, at = 0; i < width; i++) {
    for (let j = i; j < width; j++) found.data[i * width + j] = found.data[j * width + i] = packed[at++];
  }
  return found;
}

/** Return the upper triangle of a symmetric matrix, row by row. */
export function packed(square, width) {
  const found = new Float64Array((width * (width + 1)) / 2);
  for (let i = 0, at = 0; i < width; at += width - i++) found.set(square.subarray(i * (width + 1), (i + 1) * width), at);
  return found;
}

/** Mean [C, D], spread [C, D] or [C, D * D] and counts of each class, in fp64. */
export class Statistics {
  constructor(mean, spread, counts, kind) {
    Object.assign(this, { mean, spread, counts, kind, width: mean.columns, biased: kind === "centroid", wide: kind === "covariance" });
    this.diagonal = new Float64Array(spread.columns);
    for (let i = 0; i < this.width; i++) this.diagonal[this.wide ? i * (this.width + 1) : i] = DIAGONAL;
  }

  /** Return the statistics of n classes after further features [k, D]. */
  added(features, labels, n) {
    const mean = longer(this.mean, n), sums = longer(this.squares(), n), counts = longer(matrix(this.counts.length, 1, this.counts), n).data;
    for (const label of new Set(labels)) {
      const own = chosen(features, range(labels.length).filter((i) => labels[i] === label)), k = own.rows;
      const centre = new Float64Array(this.width), middle = row(mean, label), sum = row(sums, label);
      for (let i = 0; i < k; i++) row(own, i).forEach((value, j) => { centre[j] += value / k; });
      const total = counts[label] + k, step = centre.map((value, j) => value - middle[j]);
      for (let i = 0; i < k; i++) this.#addProducts(sum, row(own, i).map((value, j) => value - centre[j]), 1);
      this.#addProducts(sum, step, (counts[label] * k) / total);
      step.forEach((value, j) => { middle[j] += (value * k) / total; });
      counts[label] = total;
    }
    sums.data.forEach((value, at) => {
      const n = Math.max(counts[Math.floor(at / sums.columns)] - !this.biased, 1);
      sums.data[at] = value / n + (this.biased ? 0 : this.diagonal[at % sums.columns]);
    });
    return new Statistics(mean, sums, counts, this.kind);
  }

  #addProducts(sum, x, factor) {
    const n = this.width;
    if (!this.wide) x.forEach((value, i) => { sum[i] += factor * value * value; });
    else for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) sum[i * n + j] += factor * x[i] * x[j];
  }

  /** Return the sums of squared deviations from the mean, without the diagonal. */
  squares() {
    return filled(this.spread.rows, this.spread.columns, (i, j) => {
      const value = this.spread.data[i * this.spread.columns + j];
      return this.biased ? value * this.counts[i] : (value - this.diagonal[j]) * Math.max(this.counts[i] - 1, 0);
    });
  }

  /** Return the spread to sample from; a class of one image gets the mean spread of the others. */
  sampledSpread() {
    const { rows, columns, data } = this.spread, known = range(rows).filter((i) => this.counts[i] >= 2);
    const shift = (j) => (this.biased ? this.diagonal[j] : 0);
    const mean = known.length && Float64Array.from({ length: columns }, (_, j) =>
      known.reduce((total, i) => total + data[i * columns + j] + shift(j), 0) / known.length);
    return filled(rows, columns, (i, j) => (mean && this.counts[i] < 2 ? mean[j] : data[i * columns + j] + shift(j)));
  }

  /** Return the statistics as if all classes had the mean number of images. */
  even() {
    const spread = this.sampledSpread(), total = this.counts.reduce((a, b) => a + b, 0);
    if (this.biased) spread.data.forEach((_, at) => { spread.data[at] -= this.diagonal[at % spread.columns]; });
    return new Statistics(this.mean, spread, this.counts.map(() => total / this.counts.length), this.kind);
  }

  /** Return G = sum_c n_c (S_c + m_c m_c^T) [D, D] and the class sums [C, D]. */
  gram() {
    const squares = this.squares(), n = this.width;
    const sums = filled(this.mean.rows, n, (i, j) => this.counts[i] * this.mean.data[i * n + j]), gram = inner(sums, this.mean);
    for (let c = 0; c < squares.rows; c++) {
      row(squares, c).forEach((value, j) => { gram.data[this.wide ? j : j * (n + 1)] += value; });
    }
    return [gram, sums];
  }

  /** Return row r of class floor(r / each) for every r in rows. */
  samples(rows, each, keys) {
    const draw = normal(keys), n = this.width, found = matrix(rows.length, n), noise = new Float64Array(n);
    this.factors ??= this.#factors();
    for (let i = 0; i < rows.length; i++) {
      const label = Math.floor(rows[i] / each), factor = this.factors[label], mean = row(this.mean, label), own = row(found, i);
      for (let j = 0; j < n; j++) noise[j] = draw(rows[i] * n + j);
      for (let j = 0; j < n; j++) own[j] = mean[j] + (this.wide ? dot(noise, row(factor, j), j + 1) : noise[j] * factor[j]);
    }
    return found;
  }

  #factors() {
    const spread = this.sampledSpread();
    return range(spread.rows).map((i) => (this.wide ? cholesky(matrix(this.width, this.width, row(spread, i))) : row(spread, i).map(Math.sqrt)));
  }

  /** Return the weights [C, D] of a ridge regression from the statistics alone. */
  ridge() {
    const n = this.mean.rows, all = range(n * DRAWN), [gram, sums] = this.gram();
    const targets = oneHot(all.map((i) => Math.floor(i / DRAWN)), n);
    const losses = squaredErrors(this.samples(all, DRAWN, [VALIDATION]), targets, VALIDATION);
    return ridgeWeights(gram, sums, bestRidge(losses, traceOf(gram)));
  }
}

export const traceOf = (square) => range(square.rows).reduce((total, i) => total + square.data[i * (square.rows + 1)], 0);

/** Return a matrix with further rows of zeros. */
export function longer(a, rows) {
  const found = matrix(rows, a.columns);
  found.data.set(a.data);
  return found;
}
