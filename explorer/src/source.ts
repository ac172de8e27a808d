// Where the page's data come from: a server, the page itself (a single file), or a notebook's kernel.

export type Range = { offset: number; length: number } | { suffixLength: number };

export interface Source {
  /** The bytes of a path, or some of them; undefined where there is nothing. */
  bytes(path: string, range?: Range): Promise<Uint8Array | undefined>;
  /** An address that an image can be loaded from. */
  address(path: string): string | Promise<string>;
}

export class Failure extends Error {}

/** A host of files that serves parts of them. */
export class Http implements Source {
  constructor(private readonly base: string) {}

  address(path: string): string {
    return new URL(path, this.base).href;
  }

  async bytes(path: string, range?: Range): Promise<Uint8Array | undefined> {
    const headers: Record<string, string> = {};
    if (range) {
      headers.Range =
        "suffixLength" in range
          ? `bytes=-${range.suffixLength}`
          : `bytes=${range.offset}-${range.offset + range.length - 1}`;
    }
    let answer: Response;
    try {
      answer = await fetch(this.address(path), { headers });
    } catch {
      throw new Failure("The server does not answer: is `vitfeat explore` still running?");
    }
    if (answer.status === 404 && path.includes(".zarr/")) return undefined;
    if (!answer.ok) throw new Failure(`${path}: ${(await answer.text()).slice(0, 300) || answer.statusText}`);
    if (range && answer.status !== 206) {
      throw new Failure(
        "This host does not serve parts of files (HTTP ranges), without which numbers would be wrong: " +
          "use `vitfeat explore`, or another host",
      );
    }
    return new Uint8Array(await answer.arrayBuffer());
  }
}

/** Files in the page itself, in base64 by path. */
export class Embedded implements Source {
  private readonly addresses = new Map<string, string>();

  constructor(private readonly files: Record<string, string>) {}

  async bytes(path: string, range?: Range): Promise<Uint8Array | undefined> {
    const text = this.files[path];
    if (text === undefined) {
      if (path.includes(".zarr/")) return undefined;
      throw new Failure(`${path}: not in this file`);
    }
    const all = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    if (!range) return all;
    if ("suffixLength" in range) return all.slice(-range.suffixLength);
    return all.slice(range.offset, range.offset + range.length);
  }

  async address(path: string): Promise<string> {
    let address = this.addresses.get(path);
    if (address === undefined) {
      const bytes = await this.bytes(path);
      address = URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type: "image/webp" }));
      this.addresses.set(path, address);
    }
    return address;
  }
}

/** What anywidget gives of a widget's model. */
export interface Model {
  get(name: string): unknown;
  send(message: unknown): void;
  on(event: "msg:custom", heard: (message: { id: number; error?: string }, buffers: DataView[]) => void): void;
}

/** A notebook's kernel, which answers messages. */
export class Messages implements Source {
  private readonly waiting = new Map<number, (bytes: Uint8Array | Failure) => void>();
  private readonly addresses = new Map<string, Promise<string>>();
  private last = 0;

  constructor(private readonly model: Model) {
    model.on("msg:custom", ({ id, error }, buffers) => {
      const view = buffers[0];
      const bytes = view && new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
      this.waiting.get(id)?.(error === undefined ? bytes : new Failure(error));
      this.waiting.delete(id);
    });
  }

  async bytes(path: string, range?: Range): Promise<Uint8Array | undefined> {
    const id = ++this.last;
    let part: (number | null)[] | undefined;
    if (range) {
      part =
        "suffixLength" in range ? [-range.suffixLength, null] : [range.offset, range.offset + range.length];
    }
    const answer = await new Promise<Uint8Array | Failure>((resolve) => {
      this.waiting.set(id, resolve);
      this.model.send({ id, path, part });
    });
    if (!(answer instanceof Failure)) return answer;
    if (path.includes(".zarr/")) return undefined;
    throw answer;
  }

  address(path: string): Promise<string> {
    let address = this.addresses.get(path);
    if (!address) {
      address = this.bytes(path).then((bytes) =>
        URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type: "image/webp" })),
      );
      this.addresses.set(path, address);
    }
    return address;
  }
}

const decoder = new TextDecoder();

export async function json<T>(source: Source, path: string): Promise<T> {
  const bytes = await source.bytes(path);
  return JSON.parse(decoder.decode(bytes)) as T;
}

export async function floats(source: Source, path: string): Promise<Float32Array> {
  const bytes = (await source.bytes(path)) as Uint8Array<ArrayBuffer>;
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}
