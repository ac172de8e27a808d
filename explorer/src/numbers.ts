// The arithmetic of the page; tests hold it to Python's.

/** Cosine similarity of a vector to every row of a matrix. */
export function cosines(rows: Float32Array, vector: Float32Array): Float32Array {
  const channels = vector.length;
  const values = new Float32Array(rows.length / channels);
  let own = 0;
  for (const value of vector) own += value * value;
  for (let row = 0; row < values.length; row++) {
    let product = 0;
    let norm = 0;
    for (let channel = 0, at = row * channels; channel < channels; channel++, at++) {
      const value = rows[at];
      product += value * vector[channel];
      norm += value * value;
    }
    values[row] = product / (Math.sqrt(own * norm) || 1);
  }
  return values;
}

/** L2 norm of every row. */
export function norms(rows: Float32Array, channels: number): Float32Array {
  const values = new Float32Array(rows.length / channels);
  for (let row = 0; row < values.length; row++) {
    let norm = 0;
    for (let at = row * channels; at < (row + 1) * channels; at++) norm += rows[at] * rows[at];
    values[row] = Math.sqrt(norm);
  }
  return values;
}

export function median(values: ArrayLike<number>): number {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Tokens whose norm is above three times the image's median (docs/methods.md, rule `median`). */
export function highNorm(values: Float32Array): number[] {
  const least = 3 * median(values);
  return [...values.keys()].filter((token) => values[token] > least);
}

/** Coordinates of tokens on principal axes as colours, red, green, blue from 0 to 255. */
export function componentColours(
  rows: Float32Array,
  basis: { mean: number[]; axes: number[][]; low: number[]; high: number[] },
): Uint8ClampedArray {
  const channels = basis.mean.length;
  const colours = new Uint8ClampedArray((rows.length / channels) * 3);
  for (let row = 0; row < rows.length / channels; row++) {
    for (let axis = 0; axis < 3; axis++) {
      let along = 0;
      const weights = basis.axes[axis];
      for (let channel = 0; channel < channels; channel++) {
        along += (rows[row * channels + channel] - basis.mean[channel]) * weights[channel];
      }
      const width = basis.high[axis] - basis.low[axis] || 1;
      colours[row * 3 + axis] = (255 * (along - basis.low[axis])) / width;
    }
  }
  return colours;
}

/**
 * One query's row of attention rollout: mean over heads, half of each token by the skip connection
 * (docs/methods.md). Layers are (head, query, key), the first first.
 */
export function rolloutRow(layers: Float32Array[], tokens: number, query: number): Float32Array {
  let row = new Float64Array(tokens);
  row[query] = 1;
  for (const attention of [...layers].reverse()) {
    const heads = attention.length / (tokens * tokens);
    const next = new Float64Array(tokens);
    for (let from = 0; from < tokens; from++) {
      if (!row[from]) continue;
      const mixed = new Float64Array(tokens);
      for (let head = 0; head < heads; head++) {
        const start = (head * tokens + from) * tokens;
        for (let key = 0; key < tokens; key++) mixed[key] += attention[start + key] / heads;
      }
      let sum = 0;
      for (let key = 0; key < tokens; key++) {
        mixed[key] = mixed[key] / 2 + (key === from ? 0.5 : 0);
        sum += mixed[key];
      }
      for (let key = 0; key < tokens; key++) next[key] += (row[from] * mixed[key]) / sum;
    }
    row = next;
  }
  return Float32Array.from(row);
}

export function extent(arrays: ArrayLike<number>[]): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const values of arrays) {
    for (let at = 0; at < values.length; at++) {
      if (values[at] < low) low = values[at];
      if (values[at] > high) high = values[at];
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

/** Three digits that tell values apart, as figures write them. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 100000)) return value.toExponential(1);
  if (size >= 100) return value.toFixed(0);
  return value.toFixed(size >= 10 ? 1 : size < 0.1 && size > 0 ? 4 : 3).replace("-", "−");
}
