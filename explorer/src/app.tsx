// The frame: what is looked at on top, images at the side, one view beside them.
import { useEffect, useState } from "preact/hooks";
import { AttentionView } from "./attention";
import { Current } from "./current";
import type { Data } from "./data";
import { Filters, Grid, useOrder } from "./grid";
import { Dot, Note, Remarks, Select, Slider } from "./parts";
import { PatchesView } from "./patches";
import { PointsView } from "./points";
import { ScoresView } from "./scores";
import { data, dataset, datasetName, images, setDepth, setShown, shown, step, tab } from "./session";
import { SimilarityView } from "./similarity";
import { go, parse, switchTheme, TABS, theme, view } from "./state";

const NAMES = {
  images: "Images",
  patches: "Patches",
  attention: "Attention",
  similarity: "Similarity",
  scores: "Scores",
  points: "Points",
};

/** Fills in what an address leaves open: a dataset, models, an image. */
export function complete(known: Data): void {
  const now = view.value;
  const datasets = known.catalog.datasets.map((one) => one.name);
  const rich = known.catalog.stores.filter((one) => "spatial" in one.arrays).map((one) => one.dataset);
  const first = datasets.find((one) => rich.includes(one)) ?? datasets[0];
  const name = datasets.includes(now.dataset) ? now.dataset : first;
  const held = known.modelsOf(name).map((model) => model.id);
  let some = now.shown.filter((one) => held.includes(one.model));
  if (!some.length) {
    const layer = now.shown[0]?.layer ?? Number.POSITIVE_INFINITY;
    some = held.slice(0, 3).map((model) => {
      const info = known.main(name, model);
      return { model, layer: Math.min(layer, (info?.layers.length ?? 1) - 1) };
    });
  }
  const count = known.dataset(name)?.images ?? 0;
  go({ dataset: name, shown: some, image: Math.min(now.image, count - 1) }, "replace");
}

export function App({ alone }: { alone: boolean }) {
  const known = data();
  const name = datasetName.value;
  const [failure, setFailure] = useState<string>();
  useEffect(() => {
    if (!alone) return;
    const onHash = () => {
      view.value = parse(location.hash);
      complete(known);
    };
    addEventListener("popstate", onHash);
    return () => removeEventListener("popstate", onHash);
  }, [known]);
  useEffect(() => {
    images.value = null;
    let current = true;
    known.images(name).then(
      (found) => {
        if (current) images.value = found;
      },
      (error) => current && setFailure(String(error.message)),
    );
    return () => {
      current = false;
    };
  }, [name]);
  useEffect(() => {
    if (!alone) return;
    document.title = `${known.catalog.name} · vitfeat`;
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const error = useOrder();
  const now = tab.value;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>
        Skip to the view
      </a>
      <header class="top">
        <h1>
          vitfeat <small>{known.catalog.name}</small>
        </h1>
        <Select
          label="Dataset"
          value={name}
          options={known.catalog.datasets.map((one) => [one.name, `${one.name} (${one.images})`] as const)}
          onChange={(value) => {
            go({ dataset: value, image: 0, classes: [], text: "", chosen: [], pinned: [], sort: "id", tokens: "" });
            complete(known);
          }}
        />
        <Models />
        <Depth />
        <nav aria-label="Views">
          {TABS.filter((one) => known.catalog.tabs?.includes(one) ?? true).map((one) => (
            <button
              type="button"
              key={one}
              aria-current={one === now ? "page" : undefined}
              onClick={() => go({ tab: one })}
            >
              {NAMES[one]}
            </button>
          ))}
        </nav>
        <button
          type="button"
          class="quiet theme"
          aria-label={theme.value === "dark" ? "Light colours" : "Dark colours"}
          title="Light or dark"
          onClick={switchTheme}
        >
          ◐
        </button>
      </header>
      <div class={`body view-${now}`}>
        {now !== "images" && (
          <aside aria-label="Images">
            <Filters error={error} />
            <Grid size={64} />
          </aside>
        )}
        <main id="main" tabIndex={-1}>
          {failure && <Note>{failure}</Note>}
          {dataset.value?.pictures && <Note>No pictures of {name}: {dataset.value.pictures}</Note>}
          <Remarks lines={known.catalog.remarks} />
          {now === "images" && (
            <section aria-label="Images" class="all-images">
              <Filters error={error} />
              <Grid size={112} />
            </section>
          )}
          {(now === "patches" || now === "attention") && <Current />}
          {now === "patches" && <PatchesView />}
          {now === "attention" && <AttentionView />}
          {now === "similarity" && <SimilarityView />}
          {now === "scores" && <ScoresView />}
          {now === "points" && <PointsView />}
        </main>
      </div>
    </>
  );
}

/** Keys that work everywhere but in fields. */
function onKey(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea")) return;
  const keys: Record<string, () => void> = {
    j: () => step(1),
    k: () => step(-1),
    "]": () => shiftLayers(1),
    "[": () => shiftLayers(-1),
  };
  TABS.forEach((one, n) => {
    keys[String(n + 1)] = () => go({ tab: one });
  });
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function shiftLayers(by: number): void {
  setShown(
    () =>
      shown.value.map(({ model, info, layer }) => ({
        model: model.id,
        layer: Math.min(info.layers.length - 1, Math.max(0, layer + by)),
      })),
    "replace",
  );
}

/** Which models stand beside one another. */
function Models() {
  const known = data();
  const held = known.modelsOf(datasetName.value);
  const chosen = shown.value.map(({ model }) => model.id);
  const set = (id: string, on: boolean) =>
    setShown((before) => {
      if (!on) return before.filter((one) => one.model !== id);
      const info = known.main(datasetName.value, id);
      const depth = shown.value[0] ? shown.value[0].layer / Math.max(1, shown.value[0].info.layers.length - 1) : 1;
      return [...before, { model: id, layer: Math.round(depth * ((info?.layers.length ?? 1) - 1)) }];
    });
  return (
    <details class="models">
      <summary>
        Models <b>{chosen.length}</b> of {held.length}
      </summary>
      <div role="group" aria-label="Models">
        {held.map((model) => (
          <label key={model.id} class="field check">
            <input
              type="checkbox"
              checked={chosen.includes(model.id)}
              onChange={(event) => set(model.id, event.currentTarget.checked)}
            />
            <Dot model={model} />
            <span>{model.label}</span>
            <small>{model.size}</small>
          </label>
        ))}
      </div>
    </details>
  );
}

/** The layers of all shown models at once, by depth. */
function Depth() {
  const models = shown.value;
  if (!models.length) return null;
  const most = Math.max(...models.map(({ info }) => info.layers.length - 1), 1);
  const deepest = models.find(({ info }) => info.layers.length - 1 === most) ?? models[0];
  const same = models.every(({ info, layer }) => info.layers[layer] === deepest.info.layers[deepest.layer]);
  return (
    <Slider
      label="Layer of all"
      value={deepest.layer}
      most={most}
      shown={same ? String(deepest.info.layers[deepest.layer]) : "–"}
      onInput={(value) => setDepth(value / most)}
    />
  );
}
