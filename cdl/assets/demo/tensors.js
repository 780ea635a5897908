// Tensors of a memory, { shape, data } with data in fp32 or fp64 as in the file, as matrices and back.

import { filled, matrix } from "./matrix.js";

export const stored = (a, shape = [a.rows, a.columns]) => ({ shape, data: Float32Array.from(a.data) });
export const vector = (data) => ({ shape: [data.length], data: Float32Array.from(data) });
export const matrixOf = ({ shape: [rows], data }) => matrix(rows, rows ? data.length / rows : 0, Float64Array.from(data));

/** Return the features [n, D] of one token of tokens [n, T, D]; a negative position counts from the end. */
export function tokenOf({ shape: [n, count, width], data }, position) {
  const at = position < 0 ? position + count : position;
  return filled(n, width, (i, j) => data[(i * count + at) * width + j]);
}

/** Return the sum of matrices, each times its factor, and of a row. */
export function summed(all, bias) {
  const [[, { rows, columns }]] = all;
  return filled(rows, columns, (i, j) => all.reduce((total, [factor, own]) => total + factor * own.data[i * columns + j], bias?.[j] ?? 0));
}
