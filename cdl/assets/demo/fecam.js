// Memory of FeCAM: class means, with a covariance of each class, as in cdl/device/fecam.py.

import { chosen, longer, packed, traceOf, unpacked } from "./closed.js";
import { dot, factored, filled, matrix, row, solved } from "./matrix.js";
import { MeanMemory, normalised } from "./means.js";
import { matrixOf, stored } from "./tensors.js";

const EPS = 2 ** -23; // relative error of the features
const identity = (n) => filled(n, n, (i, j) => Number(i === j));

/** Means and covariances of features of unit norm, for squared Mahalanobis distances. */
export class FecamMemory extends MeanMemory {
  features(tokens) {
    const { tukey } = this.about, { rows, columns, data } = super.features(tokens);
    return normalised(matrix(rows, columns, tukey === null ? data : data.map((value) => Math.max(value, 0) ** tukey)));
  }

  products(features, weight) {
    const width = weight.columns;
    this.inverses ??= inversesOf(matrixOf(this.tensors.precision), width);
    const apart = new Float64Array(width);
    return filled(features.rows, weight.rows, (i, c) => {
      for (let j = 0; j < width; j++) apart[j] = features.data[i * width + j] - weight.data[c * width + j];
      return -apart.reduce((total, value, j) => total + value * dot(row(this.inverses[c], j), apart, width), 0);
    });
  }

  solved({ counts, features, labels }) {
    const n = counts.length, before = this.tensors.counts.data;
    const [weight, precision, deviations] = ["weight", "precision", "deviations"].map((name) => longer(matrixOf(this.tensors[name]), n));
    for (const label of new Set(labels)) {
      const own = chosen(features, [...labels.keys()].filter((i) => labels[i] === label)), share = 1 - (before[label] ?? 0) / counts[label];
      const mean = filled(1, own.columns, (_, j) => Array.from({ length: own.rows }, (_, i) => own.data[i * own.columns + j]).reduce((a, b) => a + b) / own.rows).data;
      let covariance = covarianceOf(own, mean);
      if (share < 1) {
        const step = mean.map((value, j) => value - row(weight, label)[j]), old = this.#covariance(label), width = own.columns;
        covariance = filled(width, width, (i, j) => share * covariance.data[i * width + j] +
          (1 - share) * (old.data[i * width + j] + share * step[i] * step[j]));
        row(weight, label).forEach((value, j, all) => { all[j] = value + share * step[j]; });
      } else row(weight, label).set(mean);
      const found = this.#precision(covariance);
      row(precision, label).set(packed(found.inverse.data, own.columns));
      row(deviations, label).set(found.deviations);
    }
    return { weight: stored(weight), precision: stored(precision), deviations: stored(deviations) };
  }

  /** Return the inverse of the correlations of a shrunk covariance, and its deviations. */
  #precision(covariance) {
    const { variance, other, width } = averages(covariance), { alpha1, alpha2 } = this.about;
    if (variance < EPS ** 2) return { inverse: identity(width), deviations: new Float64Array(width) };
    const shrunk = filled(width, width, (i, j) => covariance.data[i * width + j] + (i === j ? alpha1 * variance : alpha2 * other));
    const deviations = Float64Array.from({ length: width }, (_, i) => Math.sqrt(shrunk.data[i * (width + 1)]));
    return { inverse: inverseOf(filled(width, width, (i, j) => shrunk.data[i * width + j] / (deviations[i] * deviations[j]))), deviations };
  }

  /** Return the covariance of a class, from what #precision returned for it. */
  #covariance(label) {
    const { alpha1, alpha2 } = this.about, deviations = row(matrixOf(this.tensors.deviations), label), width = deviations.length;
    const correlation = inverseOf(unpacked(row(matrixOf(this.tensors.precision), label), width));
    const shrunk = filled(width, width, (i, j) => correlation.data[i * width + j] * deviations[i] * deviations[j]);
    const { variance, other } = averages(shrunk), [own, rest] = [(alpha1 * variance) / (1 + alpha1), (alpha2 * other) / (1 + alpha2)];
    return filled(width, width, (i, j) => shrunk.data[i * width + j] - (i === j ? own : rest));
  }
}

function inversesOf(rows, width) {
  return Array.from({ length: rows.rows }, (_, c) => unpacked(row(rows, c), width));
}

function covarianceOf({ rows, columns, data }, mean) {
  const found = matrix(columns, columns);
  for (let r = 0; r < rows; r++) {
    const apart = mean.map((value, j) => data[r * columns + j] - value);
    for (let i = 0, at = 0; i < columns; i++) for (let j = 0; j < columns; j++) found.data[at++] += (apart[i] * apart[j]) / rows;
  }
  return found;
}

/** Return the mean of the diagonal of a matrix and the mean of its other entries. */
function averages(square) {
  const width = square.rows, trace = traceOf(square), total = square.data.reduce((a, b) => a + b, 0);
  return { variance: trace / width, other: (total - trace) / Math.max(1, width * (width - 1)), width };
}

/** Return the inverse of a symmetric matrix; Python also inverts one whose directions are not all independent. */
function inverseOf(square) {
  const { diagonal } = factored(square), most = diagonal.reduce((a, b) => Math.max(a, b));
  if (!diagonal.every((value) => value > EPS * most)) throw new Error("the covariance of the class has no inverse in the browser; learn it with student.py");
  return solved(square, identity(square.rows));
}
