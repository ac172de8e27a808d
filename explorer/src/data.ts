// What the page knows: the catalogue, datasets, stores; each is asked for once.
import { floats, json, type Source } from "./source";
import { type Details, Store, type StoreInfo } from "./stores";

export interface Model {
  id: string;
  label: string;
  family: string;
  size: string;
  colour: string;
}

export interface Dataset {
  name: string;
  images: number;
  /** Why there are no pictures; empty where there are. */
  pictures: string;
  cka: string[];
  /** Models with tables of attention metrics. */
  heads: string[];
}

export interface Images {
  ids: string[];
  labels: number[];
  classes: Record<string, string>;
}

export interface Catalog {
  name: string;
  models: Model[];
  datasets: Dataset[];
  stores: StoreInfo[];
  remarks: string[];
  /** Views that there are; all unless said. */
  tabs?: string[];
}

export interface CkaPair {
  a: string;
  b: string;
  layers_a: number[];
  layers_b: number[];
  values: (number | null)[][];
}

export interface Cka {
  estimators: Record<string, CkaPair[]>;
  remarks: string[];
}

export interface Curve {
  analysis: string;
  dataset: string;
  score: string;
  model: string;
  layers: number[];
  values: (number | null)[];
}

export interface Components {
  mean: number[];
  axes: number[][];
  low: number[];
  high: number[];
}

export interface Points {
  x: number[];
  y: number[];
  shares?: number[];
  /** Of regions: rows of the store that they are of, and their categories. */
  images?: number[];
  categories?: string[];
}

export interface Heads {
  layers: number[];
  metrics: { metric: string; unit: string; values: (number | null)[][] }[];
}

export class Data {
  readonly models: Map<string, Model>;
  private readonly asked = new Map<string, Promise<unknown>>();

  constructor(
    readonly source: Source,
    readonly catalog: Catalog,
  ) {
    this.models = new Map(catalog.models.map((model) => [model.id, model]));
  }

  static async open(source: Source): Promise<Data> {
    return new Data(source, await json<Catalog>(source, "catalog.json"));
  }

  private once<T>(key: string, ask: () => Promise<T>): Promise<T> {
    let answer = this.asked.get(key) as Promise<T> | undefined;
    if (!answer) {
      answer = ask();
      answer.catch(() => this.asked.delete(key));
      this.asked.set(key, answer);
    }
    return answer;
  }

  private json<T>(path: string): Promise<T> {
    return this.once(path, () => json<T>(this.source, path));
  }

  info(kind: string, dataset: string, model: string): StoreInfo | undefined {
    return this.catalog.stores.find(
      (one) => one.kind === kind && one.dataset === dataset && one.model === model,
    );
  }

  /** The store of features, or where there is none that of single images' attention. */
  main(dataset: string, model: string): StoreInfo | undefined {
    return this.info("features", dataset, model) ?? this.info("attention_maps", dataset, model);
  }

  modelsOf(dataset: string): Model[] {
    return this.catalog.models.filter((model) => this.main(dataset, model.id));
  }

  dataset(name: string): Dataset | undefined {
    return this.catalog.datasets.find((one) => one.name === name);
  }

  images(dataset: string): Promise<Images> {
    return this.json(`datasets/${dataset}.json`);
  }

  store(info: StoreInfo): Promise<Store> {
    const path = `${info.kind}/${info.dataset}/${info.model}`;
    return this.once(`store ${path}`, async () => {
      return new Store(this.source, info, await json<Details>(this.source, `details/${path}.json`));
    });
  }

  cka(dataset: string, tokens: string): Promise<Cka> {
    return this.json(`cka/${dataset}/${tokens}.json`);
  }

  scores(): Promise<{ curves: Curve[]; remarks: string[] }> {
    return this.json("scores.json");
  }

  heads(dataset: string, model: string): Promise<Heads> {
    return this.json(`heads/${dataset}/${model}.json`);
  }

  components(info: StoreInfo, layer: number): Promise<Components> {
    return this.json(`components/${info.kind}/${info.dataset}/${info.model}/${layer}.json`);
  }

  points(info: StoreInfo, features: string, method: string, layer: number): Promise<Points> {
    const asked = `${features}-${method}`;
    return this.json(`points/${info.kind}/${info.dataset}/${info.model}/${asked}/${layer}.json`);
  }

  vectors(info: StoreInfo, features: string, layer: number): Promise<Float32Array> {
    return this.ofStore("vectors", info, features, layer);
  }

  metric(info: StoreInfo, name: string, layer: number): Promise<Float32Array> {
    return this.ofStore("metrics", info, name, layer);
  }

  /** Numbers of all images; those of the last few layers are kept. */
  private ofStore(what: string, info: StoreInfo, name: string, layer: number): Promise<Float32Array> {
    const path = `${what}/${info.kind}/${info.dataset}/${info.model}/${name}/${layer}.f32`;
    const asked = this.once(path, () => floats(this.source, path));
    const kept = [...this.asked.keys()].filter((key) => key.startsWith(`${what}/`));
    if (kept.length > 8) this.asked.delete(kept[0]);
    return asked;
  }
}
