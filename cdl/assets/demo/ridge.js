// Memory for a ridge regression on random features, as in cdl/device/ridge.py.

import { bestRidge, packed, ridgeWeights, squaredErrors, traceOf, unpacked } from "./closed.js";
import { inner, times } from "./matrix.js";
import { MeanMemory } from "./means.js";
import { stored, vector } from "./tensors.js";

/** Sums for a ridge regression. */
export class RidgeMemory extends MeanMemory {
  products(features, weight) {
    return times(features, weight);
  }

  solved({ sums, features, weighted, targets }) {
    const old = this.tensors, width = features.columns, gram = unpacked(old.gram.data, width);
    const own = squaredErrors(features, targets, this.about.updates + 1);
    inner(weighted, features).data.forEach((value, i) => { gram.data[i] = Math.fround(gram.data[i] + value); });
    const losses = old.losses.data.map((value, i) => value + own[i]), ridge = bestRidge(losses, traceOf(gram));
    const weight = stored(ridgeWeights(gram, sums, ridge));
    return { weight, losses: { shape: old.losses.shape, data: losses }, gram: vector(packed(gram.data, width)) };
  }
}
