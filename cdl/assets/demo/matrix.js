// Matrices in fp64, row by row: { rows, columns, data }.

export const matrix = (rows, columns, data = new Float64Array(rows * columns)) => ({ rows, columns, data });
export const row = (a, i) => a.data.subarray(i * a.columns, (i + 1) * a.columns);

/** Return a matrix whose entry i, j is f(i, j). */
export function filled(rows, columns, f) {
  const found = matrix(rows, columns);
  for (let i = 0, at = 0; i < rows; i++) for (let j = 0; j < columns; j++) found.data[at++] = f(i, j);
  return found;
}

export const transposed = (a) => filled(a.columns, a.rows, (i, j) => a.data[j * a.columns + i]);
export const norm = (x) => Math.sqrt(dot(x, x, x.length));

/** Return the product of the first n numbers of two arrays. */
export function dot(x, y, n) {
  let [a, b, c, d] = [0, 0, 0, 0], i = 0;
  for (; i + 3 < n; i += 4) {
    a += x[i] * y[i];
    b += x[i + 1] * y[i + 1];
    c += x[i + 2] * y[i + 2];
    d += x[i + 3] * y[i + 3];
  }
  for (; i < n; i++) a += x[i] * y[i];
  return a + b + c + d;
}

/** Return a b^T of a [n, k] and b [m, k]. */
export function times(a, b) {
  const others = Array.from({ length: b.rows }, (_, j) => row(b, j)), found = matrix(a.rows, b.rows);
  for (let i = 0, at = 0; i < a.rows; i++) {
    const own = row(a, i);
    for (const other of others) found.data[at++] = dot(own, other, a.columns);
  }
  return found;
}

/** Return a^T b of a [n, k] and b [n, m]. */
export function inner(a, b) {
  const found = matrix(a.columns, b.columns);
  for (let i = 0; i < a.rows; i++) {
    const x = row(a, i), y = row(b, i);
    for (let j = 0; j < a.columns; j++) {
      const factor = x[j];
      if (factor) for (let k = 0, at = j * b.columns; k < b.columns; k++) found.data[at++] += factor * y[k];
    }
  }
  return found;
}

/** Return L with ones on its diagonal, and d, of a symmetric matrix L diag(d) L^T; reads its lower triangle. */
export function factored(a) {
  const n = a.rows, lower = matrix(n, n), diagonal = new Float64Array(n), product = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const own = row(lower, i), given = row(a, i);
    for (let j = 0; j < i; j++) {
      product[j] = given[j] - dot(product, row(lower, j), j);
      own[j] = product[j] / diagonal[j];
    }
    own[i] = 1;
    diagonal[i] = given[i] - dot(product, own, i);
  }
  return { lower, diagonal };
}

/** Return X^T [m, n] of A X = B, for a symmetric A [n, n] and B^T [m, n]. */
export function solved(a, right) {
  const { lower, diagonal } = factored(a), found = matrix(right.rows, right.columns, right.data.slice());
  for (let r = 0; r < found.rows; r++) {
    const x = row(found, r);
    for (let i = 0; i < x.length; i++) x[i] -= dot(row(lower, i), x, i);
    for (let i = 0; i < x.length; i++) x[i] /= diagonal[i];
    for (let i = x.length - 1; i > 0; i--) {
      const own = row(lower, i);
      for (let j = 0; j < i; j++) x[j] -= own[j] * x[i];
    }
  }
  return found;
}

/** Return the Cholesky factor of a symmetric positive definite matrix. */
export function cholesky(a) {
  const { lower, diagonal } = factored(a);
  if (!diagonal.every((value) => value > 0)) throw new Error("a covariance is not positive definite; export the student again");
  return filled(a.rows, a.rows, (i, j) => lower.data[i * a.rows + j] * Math.sqrt(diagonal[j]));
}
