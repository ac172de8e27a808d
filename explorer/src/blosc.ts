// Blosc's chunks of format 2, as stores hold them: LZ4, bits or bytes shuffled, or copied as they are.
// In the place of its WebAssembly, which takes three times the page and needs `unsafe-eval`.

const SHUFFLED = 1;
const COPIED = 2;
const BITS_SHUFFLED = 4;
const NOT_SPLIT = 16;
const LZ4 = 1;

export class Blosc {
  readonly kind = "bytes_to_bytes";

  static fromConfig(): Blosc {
    return new Blosc();
  }

  encode(): Uint8Array {
    throw new Error("stores are read here, and not written");
  }

  decode(chunk: Uint8Array): Uint8Array {
    const header = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const flags = chunk[2];
    const width = chunk[3];
    const size = header.getUint32(4, true);
    const whole = header.getUint32(8, true);
    const out = new Uint8Array(size);
    if (chunk.byteLength < header.getUint32(12, true)) throw new Error("a chunk of Blosc is cut off");
    if (flags & COPIED) {
      out.set(chunk.subarray(16, 16 + size));
      return out;
    }
    if (flags >> 5 !== LZ4) throw new Error("a chunk of Blosc is not of LZ4");
    const plain = new Uint8Array(whole);
    for (let block = 0; block * whole < size; block++) {
      const length = Math.min(whole, size - block * whole);
      // Streams of the first, second ... bytes of all numbers; a last, shorter block is never split.
      const split = !(flags & NOT_SPLIT) && width <= 16 && whole / width >= 128 && length === whole;
      const streams = split ? width : 1;
      const each = length / streams;
      let at = header.getUint32(16 + 4 * block, true);
      const target = out.subarray(block * whole, block * whole + length);
      const shuffled = flags & (SHUFFLED | BITS_SHUFFLED);
      const into = shuffled ? plain.subarray(0, length) : target;
      for (let stream = 0; stream < streams; stream++) {
        const packed = header.getUint32(at, true);
        at += 4;
        const source = chunk.subarray(at, at + packed);
        const part = into.subarray(stream * each, (stream + 1) * each);
        if (packed === each) part.set(source);
        else unpack(source, part);
        at += packed;
      }
      if (flags & BITS_SHUFFLED) unshuffleBits(into, target, width);
      else if (flags & SHUFFLED) unshuffle(into, target, width);
    }
    return out;
  }
}

/** LZ4's block format. */
function unpack(source: Uint8Array, out: Uint8Array): void {
  let at = 0;
  let to = 0;
  const length = (start: number): number => {
    let total = start;
    if (start === 15) {
      let more: number;
      do {
        more = source[at++];
        total += more;
      } while (more === 255);
    }
    return total;
  };
  while (at < source.length) {
    const token = source[at++];
    const literals = length(token >> 4);
    out.set(source.subarray(at, at + literals), to);
    at += literals;
    to += literals;
    if (at >= source.length) break;
    const back = source[at] | (source[at + 1] << 8);
    at += 2;
    const end = to + length(token & 15) + 4;
    if (back === 0 || back > to || end > out.length) break;
    if (back >= end - to) {
      out.copyWithin(to, to - back, end - back);
      to = end;
    } else while (to < end) out[to] = out[to++ - back];
  }
  if (to !== out.length) throw new Error("a chunk of Blosc is damaged");
}

/** First bytes of all numbers, then second ones ... as numbers; what is no whole number stays. */
function unshuffle(source: Uint8Array, out: Uint8Array, width: number): void {
  const count = Math.floor(out.length / width);
  for (let byte = 0; byte < width; byte++) {
    for (let n = 0; n < count; n++) out[n * width + byte] = source[byte * count + n];
  }
  out.set(source.subarray(count * width), count * width);
}

// Bit k of a byte as the lowest bit of byte k, of the lower and of the upper four.
const SPREAD = Uint32Array.from({ length: 16 }, (_, bits) =>
  (bits & 1) | ((bits & 2) << 7) | ((bits & 4) << 14) | ((bits & 8) << 21),
);

/** First bits of all numbers, then second ones ... as numbers. Only of whole eights of numbers. */
function unshuffleBits(source: Uint8Array, out: Uint8Array, width: number): void {
  const count = Math.floor(out.length / width);
  if (count % 8) {
    out.set(source);
    return;
  }
  const each = count / 8;
  for (let byte = 0; byte < width; byte++) {
    for (let eight = 0; eight < each; eight++) {
      let low = 0;
      let high = 0;
      for (let bit = 0, at = byte * count + eight; bit < 8; bit++, at += each) {
        const bits = source[at];
        low |= SPREAD[bits & 15] << bit;
        high |= SPREAD[bits >> 4] << bit;
      }
      const to = eight * 8 * width + byte;
      out[to] = low;
      out[to + width] = low >> 8;
      out[to + 2 * width] = low >> 16;
      out[to + 3 * width] = low >> 24;
      out[to + 4 * width] = high;
      out[to + 5 * width] = high >> 8;
      out[to + 6 * width] = high >> 16;
      out[to + 7 * width] = high >> 24;
    }
  }
  out.set(source.subarray(count * width), count * width);
}
