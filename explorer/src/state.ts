// The whole view as one value, which the address holds: back and forward, and links, work by themselves.
import { computed, signal } from "@preact/signals";

export const TABS = ["images", "patches", "attention", "similarity", "scores", "points"] as const;
export type Tab = (typeof TABS)[number];

/** A model beside others, and where its layer stands among those that are stored. */
export interface Shown {
  model: string;
  layer: number;
}

export interface View {
  tab: Tab;
  dataset: string;
  /** Place of the image in the dataset. */
  image: number;
  shown: Shown[];
  /** The token that is asked about: a patch by its number, or a prefix token by name. */
  query: string;
  /** What is drawn of patches. */
  map: "similarity" | "components" | "norms";
  /** Whether colours mean the same in all maps. */
  common: boolean;
  /** How much of a map covers its picture, in percent. */
  cover: number;
  /** How many of the following images stand beside the current one. */
  beside: number;
  /** Images that stay beside whichever is current, by place. */
  pinned: number[];
  text: string;
  classes: number[];
  sort: string;
  descending: boolean;
  tokens: string;
  estimator: string;
  pair: string;
  analysis: string;
  features: string;
  method: string;
  /** Images chosen among the points, by place; empty for all. */
  chosen: number[];
  /** Whether attention is of all layers. */
  overview: boolean;
}

export const START: View = {
  tab: "patches",
  dataset: "",
  image: 0,
  shown: [],
  query: "",
  map: "similarity",
  common: false,
  cover: 60,
  beside: 4,
  pinned: [],
  text: "",
  classes: [],
  sort: "id",
  descending: false,
  tokens: "",
  estimator: "",
  pair: "",
  analysis: "",
  features: "",
  method: "pca",
  chosen: [],
  overview: false,
};

export const view = signal<View>(START);

/** A part of the view: who reads it is drawn anew only when that part changes. */
export function part<K extends keyof View>(key: K) {
  return computed(() => view.value[key]);
}

/** Whether the page's address holds the view; a widget has none of its own. */
let addressed = true;

export function withoutAddress(): void {
  addressed = false;
}

let pending: ReturnType<typeof setTimeout> | undefined;

/** Changes the view. A step that `back` should undo is pushed; what is dragged or hovered replaces. */
export function go(change: Partial<View>, how: "push" | "replace" = "push"): void {
  view.value = { ...view.value, ...change };
  if (!addressed) return;
  clearTimeout(pending);
  const write = () => {
    const hash = `#${format(view.value)}`;
    if (hash === location.hash) return;
    if (how === "push") history.pushState(null, "", hash);
    else history.replaceState(null, "", hash);
  };
  // Browsers refuse addresses that change hundreds of times in some seconds.
  if (how === "push") write();
  else pending = setTimeout(write, 150);
}

export function format(value: View): string {
  const words = new URLSearchParams();
  for (const [key, one] of Object.entries(value) as [keyof View, unknown][]) {
    if (JSON.stringify(one) === JSON.stringify(START[key])) continue;
    if (key === "shown") {
      words.set(key, value.shown.map(({ model, layer }) => `${model}:${layer}`).join(","));
    } else if (Array.isArray(one)) words.set(key, one.join(","));
    else words.set(key, String(one));
  }
  return words.toString();
}

export function parse(hash: string): View {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const value: Record<string, unknown> = { ...START };
  for (const [key, text] of words) {
    const start = START[key as keyof View];
    if (key === "shown") {
      value.shown = text
        .split(",")
        .map((one) => one.split(":"))
        .map(([model, layer]) => ({ model, layer: Math.max(0, Number.parseInt(layer, 10) || 0) }));
    } else if (Array.isArray(start)) {
      value[key] = text.split(",").map(Number).filter(Number.isInteger);
    } else if (typeof start === "number") {
      if (Number.isFinite(Number(text))) value[key] = Math.max(0, Math.round(Number(text)));
    } else if (typeof start === "boolean") value[key] = text === "true";
    else if (typeof start === "string") value[key] = text;
  }
  if (!TABS.includes(value.tab as Tab)) value.tab = START.tab;
  if (!["similarity", "components", "norms"].includes(value.map as string)) value.map = START.map;
  return value as unknown as View;
}

/** Light or dark: the reader's own, or the system's. */
export const theme = signal<"light" | "dark">("light");

export function startTheme(root: HTMLElement): void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let own: string | null = null;
  try {
    own = localStorage.getItem("vitfeat-theme");
  } catch {
    // Storage may be switched off.
  }
  const set = () => {
    theme.value = own === "dark" || (own === null && system.matches) ? "dark" : "light";
  };
  set();
  system.addEventListener("change", set);
  theme.subscribe((name) => {
    root.dataset.theme = name;
  });
}

export function switchTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("vitfeat-theme", theme.value);
  } catch {
    // As above.
  }
}
