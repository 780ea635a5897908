// Memory of class statistics, for linear heads that are aligned, or solved as a ridge, as in cdl/device/aligned.py.

import { aligned, headLogits, started } from "./aligning.js";
import { Statistics, packed, unpacked } from "./closed.js";
import { filled, matrix, row } from "./matrix.js";
import { matrixOf, stored, summed, tokenOf, vector } from "./tensors.js";

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
