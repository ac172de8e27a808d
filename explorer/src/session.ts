// What views share: the data, the images in their order, the token that is asked about.
import { computed, signal } from "@preact/signals";
import type { Data, Dataset, Images, Model } from "./data";
import { go, part, type Shown, view } from "./state";
import type { Store, StoreInfo } from "./stores";

export const session = signal<Data | null>(null);

export function data(): Data {
  if (!session.value) throw new Error("no data yet");
  return session.value;
}

export const tab = part("tab");
export const datasetName = part("dataset");
export const image = part("image");

/** Ids, labels and classes of the current dataset. */
export const images = signal<Images | null>(null);

/** Places of the images that pass the filter, in the order of the grid. */
export const order = signal<number[]>([]);

/** The token under the pointer, in the place of the one that was chosen. */
export const hovered = signal<string | null>(null);

/** What is asked about: of attention CLS where nothing was chosen, elsewhere always a patch. */
export const query = computed(() => {
  const asked = hovered.value ?? view.value.query;
  if (tab.value !== "attention") return pointOf(asked) ? asked : CENTRE;
  if (asked) return asked;
  return shown.value.some(({ info }) => info.cls) ? "cls" : "mean";
});

const CENTRE = "0.5,0.5";

export const dataset = computed<Dataset | undefined>(() =>
  session.value?.dataset(datasetName.value),
);

/** The models beside one another, with their stores; those that this dataset has. */
export const shown = computed<{ model: Model; info: StoreInfo; layer: number }[]>(() => {
  const known = session.value;
  if (!known) return [];
  return view.value.shown.flatMap(({ model, layer }) => {
    const info = known.main(view.value.dataset, model);
    const described = known.models.get(model);
    if (!info || !described) return [];
    return [{ model: described, info, layer: Math.min(layer, info.layers.length - 1) }];
  });
});

export function setShown(change: (before: Shown[]) => Shown[], how: "push" | "replace" = "push"): void {
  go({ shown: change(shown.value.map(({ model, layer }) => ({ model: model.id, layer }))) }, how);
}

/** Puts layers of all models at one depth, from 0 to 1. */
export function setDepth(depth: number): void {
  setShown(
    () =>
      shown.value.map(({ model, info }) => ({
        model: model.id,
        layer: Math.round(depth * (info.layers.length - 1)),
      })),
    "replace",
  );
}

export function step(by: number): void {
  const places = order.value;
  if (!places.length) return;
  const at = places.indexOf(view.value.image);
  const next = at < 0 ? 0 : Math.min(places.length - 1, Math.max(0, at + by));
  go({ image: places[next] }, "replace");
}

export function className(label: number): string {
  return label < 0 ? "no class" : (images.value?.classes[label] ?? String(label));
}

/** A point of the image, from 0 to 1, as the view holds it. */
export function pointOf(text: string): [number, number] | undefined {
  const numbers = text.split(",").map(Number);
  return numbers.length === 2 && numbers.every(Number.isFinite) ? [numbers[0], numbers[1]] : undefined;
}

/** The patch of a store's grid that shows a point of the image. */
export function patchAt(store: Store, place: number, text: string): number | undefined {
  const grid = store.grid(place);
  const point = pointOf(text);
  if (!grid || !point) return undefined;
  const [left, top, right, bottom] = store.box(place);
  const column = Math.floor(((point[0] - left) / (right - left)) * grid[1]);
  const row = Math.floor(((point[1] - top) / (bottom - top)) * grid[0]);
  if (row < 0 || column < 0 || row >= grid[0] || column >= grid[1]) return undefined;
  return row * grid[1] + column;
}

/** The centre of a patch as a point of the image. */
export function pointAt(store: Store, place: number, patch: number): string {
  const grid = store.grid(place) as [number, number];
  const [left, top, right, bottom] = store.box(place);
  const x = left + (((patch % grid[1]) + 0.5) / grid[1]) * (right - left);
  const y = top + ((Math.floor(patch / grid[1]) + 0.5) / grid[0]) * (bottom - top);
  return `${Number(x.toFixed(4))},${Number(y.toFixed(4))}`;
}
