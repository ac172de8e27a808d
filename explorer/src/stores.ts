// Reads stores with zarrita, one layer of one image at a time, and keeps decoded chunks for a while.
import * as zarr from "zarrita";
import { Blosc } from "./blosc";
import { Failure, type Range, type Source } from "./source";

zarr.registry.set("blosc", () => Blosc as never);

export interface StoreInfo {
  kind: string;
  dataset: string;
  model: string;
  path: string;
  images: number;
  layers: number[];
  grid: [number, number] | null;
  cls: boolean;
  registers: number;
  arrays: Record<string, { shape: number[]; limited: boolean }>;
}

export interface Details {
  places: number[] | null;
  rows: Record<string, number[]>;
  probe: { array: string; place: number[]; value: number } | null;
  /** What `zarr.json` says of each array, so that nobody waits for it. */
  metadata: Record<string, unknown>;
  grids?: [number, number][];
  /** What the model saw of each image, in parts of its width and height; one where all are alike. */
  boxes?: [number, number, number, number][];
}

type Numbers = ArrayLike<number>;

/** The chunks that were decoded last, in a bounded number of bytes. */
class Chunks {
  private readonly kept = new Map<string, { data: Promise<Numbers>; bytes: number }>();
  private bytes = 0;

  constructor(private readonly most: number) {}

  get(key: string, bytes: number, read: () => Promise<Numbers>): Promise<Numbers> {
    const before = this.kept.get(key);
    if (before) {
      this.kept.delete(key);
      this.kept.set(key, before);
      return before.data;
    }
    const data = read();
    this.kept.set(key, { data, bytes });
    this.bytes += bytes;
    data.catch(() => this.drop(key));
    for (const old of this.kept.keys()) {
      if (this.bytes <= this.most || old === key) break;
      this.drop(old);
    }
    return data;
  }

  private drop(key: string): void {
    this.bytes -= this.kept.get(key)?.bytes ?? 0;
    this.kept.delete(key);
  }
}

const encoder = new TextEncoder();
const chunks = new Chunks(64 * 2 ** 20);

export class Store {
  private readonly root: zarr.Location<zarr.AsyncReadable>;
  private readonly arrays = new Map<string, Promise<zarr.Array<zarr.DataType, zarr.AsyncReadable>>>();
  private checked: Promise<void> | undefined;
  private readonly rowOf: Map<number, number> | null;

  constructor(
    source: Source,
    readonly info: StoreInfo,
    readonly details: Details,
  ) {
    this.root = zarr.root({
      get: async (key: string) => {
        const known = details.metadata[key.slice(1).replace(/\/zarr\.json$/, "")];
        return known ? encoder.encode(JSON.stringify(known)) : source.bytes(info.path + key);
      },
      getRange: (key: string, range: Range) => source.bytes(info.path + key, range),
    });
    this.rowOf = details.places && new Map(details.places.map((place, row) => [place, row]));
  }

  has(name: string): boolean {
    return name in this.info.arrays;
  }

  /** Where an image of the dataset stands in an array: undefined where the array is not of it. */
  entry(name: string, place: number): number | undefined {
    if (!this.has(name)) return undefined;
    const row = this.rowOf ? this.rowOf.get(place) : place < this.info.images ? place : undefined;
    if (row === undefined || !this.info.arrays[name].limited) return row;
    const entry = this.details.rows[name.split("/")[0]]?.indexOf(row) ?? -1;
    return entry < 0 ? undefined : entry;
  }

  row(place: number): number | undefined {
    return this.rowOf ? this.rowOf.get(place) : place < this.info.images ? place : undefined;
  }

  /** Rows and columns of an image's grid. */
  grid(place: number): [number, number] | undefined {
    const row = this.row(place);
    if (row === undefined) return undefined;
    return this.info.grid ?? this.details.grids?.[row];
  }

  /** The part of an image that the model saw: left, top, right, bottom, from 0 to 1. */
  box(place: number): [number, number, number, number] {
    const boxes = this.details.boxes ?? [[0, 0, 1, 1]];
    return boxes.length === 1 ? boxes[0] : boxes[this.row(place) ?? 0];
  }

  /** Holds a number that Python has read against what is read here. */
  private check(): Promise<void> {
    this.checked ??= (async () => {
      const probe = this.details.probe;
      if (!probe) return;
      const [entry, layer] = probe.place;
      const value = (await this.slice(probe.array, entry, layer))[0];
      if (!Object.is(value, probe.value)) {
        throw new Failure(
          `${this.info.path}: reads as ${value} where ${probe.value} is stored: ` +
            "this host or browser does not read the store rightly, and nothing of it is shown",
        );
      }
    })();
    return this.checked;
  }

  /** One layer of one entry of an array: the last dimensions, as float32. */
  async read(name: string, entry: number, layer: number): Promise<Float32Array> {
    const [values] = await Promise.all([this.slice(name, entry, layer), this.check()]);
    return values;
  }

  private async slice(name: string, entry: number, layer: number): Promise<Float32Array> {
    const array = await this.open(name);
    const [rows, , ...rest] = array.chunks;
    const size = rest.reduce((a, b) => a * b, 1);
    const place = [Math.floor(entry / rows), layer, ...rest.map(() => 0)];
    const bytes = rows * size * (array.dtype === "float32" ? 4 : 2);
    const data = await chunks.get(`${this.info.path}/${name}/${place}`, bytes, async () => {
      try {
        return (await array.getChunk(place)).data as unknown as Numbers;
      } catch (error) {
        if (error instanceof Failure) throw error;
        const reasons = [];
        for (let one = error as Error | undefined; one; one = one.cause as Error | undefined) reasons.push(one.message);
        throw new Failure(`${this.info.path}/${name}: cannot be read (${reasons.join(": ")})`);
      }
    });
    const start = (entry % rows) * size;
    const typed = data as Float32Array;
    return Float32Array.from(typed.subarray(start, start + size));
  }

  /** The spatial tokens of an image in a layer, token by token. */
  async spatial(place: number, layer: number): Promise<Float32Array | undefined> {
    if (this.info.grid) {
      const entry = this.entry("spatial", place);
      return entry === undefined ? undefined : this.read("spatial", entry, layer);
    }
    const row = this.row(place);
    const grids = this.details.grids;
    if (row === undefined || !grids || !this.has("spatial")) return undefined;
    const count = (grid: [number, number]) => grid[0] * grid[1];
    const start = grids.slice(0, row).reduce((sum, grid) => sum + count(grid), 0);
    const each = this.info.arrays.spatial.shape[2];
    const tokens = new Float32Array(count(grids[row]) * each);
    for (let token = 0; token < count(grids[row]); token++) {
      tokens.set(await this.read("spatial", start + token, layer), token * each);
    }
    return tokens;
  }

  private open(name: string): Promise<zarr.Array<zarr.DataType, zarr.AsyncReadable>> {
    let array = this.arrays.get(name);
    if (!array) {
      array = zarr.open.v3(this.root.resolve(name), { kind: "array" });
      array.catch(() => this.arrays.delete(name));
      this.arrays.set(name, array);
    }
    return array;
  }
}
