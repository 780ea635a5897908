// The memories of a student by kind, as in cdl/device/stored.py.

import { AlignedMemory } from "./aligned.js";
import { FecamMemory } from "./fecam.js";
import { MeanMemory } from "./means.js";
import { RidgeMemory } from "./ridge.js";

const KINDS = { aligned: AlignedMemory, fecam: FecamMemory, mean: MeanMemory, ridge: RidgeMemory };

/** Return the memory of a kind. */
export const makeMemory = (about, tensors) => new KINDS[about.kind](about, tensors);

/** Return the bytes of all tensors of a memory. */
export const bytesOf = ({ tensors }) => Object.values(tensors).reduce((total, { data }) => total + data.byteLength, 0);
