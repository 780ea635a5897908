// The alignment of linear heads, as in cdl/device/aligning.py; rows of a head: { weight [C, D], bias [C] }.

import { permutation } from "./draws.js";
import { Statistics } from "./closed.js";
import { filled, inner, matrix, norm, row, times } from "./matrix.js";

const NOISE = 411, SHUFFLE = 412, FLOOR = 1e-6;
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const lengths = (a) => Float64Array.from({ length: a.rows }, (_, i) => norm(row(a, i)));

/** Return the rows with further ones for the new classes of the statistics, those of a ridge with the earlier length. */
export function started(rows, statistics, normalised) {
  const seen = rows.weight.rows, ridge = statistics.ridge(), { data, columns } = rows.weight;
  const factor = mean(lengths(rows.weight)) / Math.max(mean(lengths(ridge).subarray(0, seen)), 1e-12);
  const weight = filled(ridge.rows, columns, (i, j) => (i < seen ? data : ridge.data)[i * columns + j] * (i < seen ? 1 : factor));
  const bias = new Float64Array(ridge.rows);
  bias.set(rows.bias);
  const logits = headLogits({ weight, bias }, statistics.mean, normalised), own = bias.map((_, i) => logits.data[i * (bias.length + 1)]);
  const usual = mean(own.subarray(0, seen));
  return { weight, bias: bias.map((value, i) => (i < seen ? value : usual - own[i])) };
}

/** Return the rows of a head after training on features that are drawn from all classes; `how` as in `cdl.spec.Alignment`. */
export function aligned(rows, statistics, sizes, how, key, normalised) {
  const each = how.samples, seen = sizes.reduce((a, b) => a + b, 0), factors = meanFactors(how.mean_shrink, sizes);
  const { mean: centres, spread, counts, kind } = statistics, width = centres.columns;
  const shrunk = new Statistics(filled(centres.rows, width, (i, j) => factors[i] * centres.data[i * width + j]), spread, counts, kind);
  const steps = how.steps === "earlier" && sizes.length > 1 ? seen - sizes.at(-1) : seen, update = optimizer(how, rows);
  for (let epoch = 0; epoch < how.epochs; epoch++) {
    const order = permutation([SHUFFLE, key, epoch], seen * each);
    for (let step = 0; step < steps; step++) {
      const some = order.subarray(step * each, (step + 1) * each);
      const features = shrunk.samples(some, each, [NOISE, key, epoch]);
      const slopes = gradients(rows, features, some.map((r) => Math.floor(r / each)), sizes, how, normalised);
      rows = update(rows, slopes, rate(how, epoch, step, steps));
    }
  }
  return rows;
}

const meanFactors = (shrink, sizes) => sizes.flatMap((size, task) => Array(size).fill(1 - shrink + (shrink * (task + 1)) / sizes.length));

/** Return the logits [n, C] of a head for features [n, D]. */
export function headLogits({ weight, bias }, features, normalised) {
  const found = normalised ? times(layerNorm(features), unit(weight)) : times(features, weight);
  found.data.forEach((_, at) => { found.data[at] += bias[at % bias.length]; });
  return found;
}

function unit(weight) {
  const norms = lengths(weight);
  return filled(weight.rows, weight.columns, (i, j) => weight.data[i * weight.columns + j] / Math.max(norms[i], 1e-12));
}

function layerNorm(x) {
  const found = matrix(x.rows, x.columns, x.data.slice());
  for (let i = 0; i < x.rows; i++) {
    const own = row(found, i), centre = mean(own);
    const deviation = Math.sqrt(own.reduce((total, value) => total + (value - centre) ** 2, 0) / own.length + 1e-5);
    own.forEach((value, j) => { own[j] = (value - centre) / deviation; });
  }
  return found;
}

/** Return the gradients of the mean cross-entropy. */
function gradients(rows, features, labels, sizes, how, normalised) {
  const logits = headLogits(rows, features, normalised), n = labels.length, error = matrix(n, logits.columns);
  for (let i = 0; i < n; i++) {
    const own = row(logits, i), out = row(error, i), slopes = new Float64Array(own.length); // slopes of the scale, which divides the logits
    let scale = 1;
    if (how.logit_norm) {
      scale = 0;
      for (let task = 0, at = 0; task < sizes.length; at += sizes[task++]) {
        const part = own.subarray(at, at + sizes[task]), length = norm(part);
        scale += (how.logit_norm * (length + 1e-7)) / sizes.length;
        part.forEach((value, j) => { slopes[at + j] = ((how.logit_norm / sizes.length) * value) / (length || 1); });
      }
    }
    const divided = own.map((value) => value / scale), most = divided.reduce((a, b) => Math.max(a, b));
    const exp = divided.map((value) => Math.exp(value - most)), total = exp.reduce((a, b) => a + b);
    let along = 0;
    for (let j = 0; j < out.length; j++) {
      out[j] = (exp[j] / total - Number(labels[i] === j)) / (n * scale);
      along += out[j] * divided[j];
    }
    for (let j = 0; j < out.length; j++) out[j] -= along * slopes[j];
  }
  const bias = new Float64Array(error.columns);
  error.data.forEach((value, at) => { bias[at % error.columns] += value; });
  if (!normalised) return { weight: inner(error, features), bias };
  const slope = inner(error, layerNorm(features)), units = unit(rows.weight), norms = lengths(rows.weight);
  for (let c = 0; c < slope.rows; c++) {
    const own = row(slope, c), direction = row(units, c), along = own.reduce((total, value, j) => total + value * direction[j], 0);
    own.forEach((value, j) => { own[j] = (value - along * direction[j]) / Math.max(norms[c], 1e-12); });
  }
  return { weight: slope, bias };
}

/** Return a function that makes one step: SGD with momentum, or AdamW, as in torch. */
function optimizer(how, rows) {
  const first = {}, second = {}, sgd = how.optimizer === "sgd";
  for (const [name, part] of [["weight", rows.weight.data], ["bias", rows.bias]]) {
    [first[name], second[name]] = [new Float64Array(part.length), new Float64Array(part.length)];
  }
  let steps = 0;
  const moved = (name, part, slope, lr) => part.map((value, i) => {
    if (sgd) {
      first[name][i] = how.momentum * first[name][i] + slope[i] + how.weight_decay * value;
      return value - lr * first[name][i];
    }
    first[name][i] = 0.9 * first[name][i] + (1 - 0.9) * slope[i];
    second[name][i] = 0.999 * second[name][i] + (1 - 0.999) * slope[i] ** 2;
    const step = first[name][i] / (1 - 0.9 ** steps) / (Math.sqrt(second[name][i] / (1 - 0.999 ** steps)) + 1e-8);
    return (1 - lr * how.weight_decay) * value - lr * step;
  });
  return ({ weight, bias }, slopes, lr) => {
    steps += 1;
    const data = moved("weight", weight.data, slopes.weight.data, lr);
    return { weight: matrix(weight.rows, weight.columns, data), bias: moved("bias", bias, slopes.bias, lr) };
  };
}

/** Return the learning rate of a step, as `alignment_rate` in cdl/device/schedules.py. */
function rate({ schedule, lr, epochs }, epoch, step, steps) {
  if (schedule === "cosine") return (lr / 2) * (1 + Math.cos((Math.PI * epoch) / epochs));
  if (schedule !== "lagged_cosine") return lr;
  const iteration = epoch * steps + step;
  return iteration ? FLOOR + ((lr / 10 - FLOOR) / 2) * (1 + Math.cos((Math.PI * (iteration - 1)) / (epochs * steps))) : lr;
}
