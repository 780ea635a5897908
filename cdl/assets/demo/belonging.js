// Whether an image belongs to a class, and what an update breaks, as in cdl/device/belonging.py and kept.py.

import { chosen } from "./closed.js";
import { dot, norm, row } from "./matrix.js";

const SHARE = 0.05, EACH = 10;

const cosine = (a, b) => dot(a, b, a.length) / (Math.max(norm(a), 1e-12) * Math.max(norm(b), 1e-12));

/** Return the score of each of the features of tokens, and the threshold of the nearest class: { score, threshold }. */
export function scoresOf(memory, tokens) {
  const features = memory.features(tokens), means = memory.means(), limits = memory.tensors.threshold.data;
  return Array.from({ length: features.rows }, (_, i) => {
    const cosines = Array.from({ length: means.rows }, (_, c) => cosine(row(features, i), row(means, c)));
    const best = cosines.reduce((most, value, c) => (value > cosines[most] ? c : most), 0);
    return { score: cosines[best], threshold: limits[best] };
  });
}

/** Return a memory with the thresholds and examples after an update of another one from tokens [k, T, D] and classes. */
export function after(memory, before, tokens, labels) {
  const tensors = { ...memory.tensors, ...moreExamples(before.tensors, tokens, labels) };
  if (before.tensors.threshold) tensors.threshold = thresholdsAfter(before.tensors.threshold.data, memory, tokens, labels);
  return new memory.constructor(memory.about, tensors);
}

function thresholdsAfter(before, memory, tokens, labels) {
  const features = memory.features(tokens), means = memory.means(), images = (memory.tensors.images ?? memory.tensors.counts).data;
  const found = Array.from({ length: means.rows }, (_, c) => before[c] ?? NaN);
  for (const label of new Set(labels)) {
    const own = chosen(features, [...labels.keys()].filter((i) => labels[i] === label)), n = images[label], mean = row(means, label);
    if (!(n > 1)) continue;
    const scores = Array.from({ length: own.rows }, (_, i) => {
      const item = row(own, i), others = item.map((value, j) => n * mean[j] - value);
      return Math.max(...found.map((_, c) => cosine(item, c === label ? others : row(means, c))));
    });
    const k = own.rows, earlier = label < before.length ? Math.max(0, n - k) : 0;
    found[label] = (k * quantile(scores, SHARE) + (earlier && earlier * before[label])) / (k + earlier);
  }
  const known = found.filter((value) => !Number.isNaN(value)), mean = known.length ? known.reduce((a, b) => a + b) / known.length : -1;
  const data = Float32Array.from(found, (value) => Math.min(1, Math.max(-1, Number.isNaN(value) ? mean : value)));
  return { shape: [data.length], data };
}

function quantile(values, share) {
  const sorted = values.toSorted((a, b) => a - b), at = share * (sorted.length - 1), low = Math.floor(at), high = Math.ceil(at);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

function moreExamples({ examples, owners }, { shape: [, ...shape], data }, labels) {
  if (!examples) return {};
  const left = new Map(labels.map((label) => [label, EACH - owners.data.filter((owner) => owner === label).length]));
  const rows = [...labels.keys()].filter((i) => left.set(labels[i], left.get(labels[i]) - 1).get(labels[i]) >= 0);
  const size = shape.reduce((a, b) => a * b), n = owners.data.length, all = new Float32Array((n + rows.length) * size);
  all.set(examples.data);
  rows.forEach((i, r) => all.set(data.subarray(i * size, (i + 1) * size), (n + r) * size));
  const own = Float32Array.from([...owners.data, ...rows.map((i) => labels[i])]);
  return { examples: { shape: [own.length, ...shape], data: all }, owners: { shape: [own.length], data: own } };
}

/** Return how many kept examples of earlier classes an update broke, right before and wrong after, and of how many. */
export function flipsOf(before, memory) {
  const { examples, owners } = before.tensors;
  if (!examples?.data.length) return [0, 0];
  const [was, now] = [before, memory].map((one) => bestOf(one.logits(examples)));
  return [owners.data.filter((owner, i) => was[i] === owner && now[i] !== owner).length, owners.data.length];
}

const bestOf = (logits) => Array.from({ length: logits.rows }, (_, i) => row(logits, i).reduce((best, value, c, own) => (value > own[best] ? c : best), 0));
