// Images as points on two axes; what a lasso holds is what the grid shows.
import { interpolateRainbow, schemeTableau10 } from "d3-scale-chromatic";
import { useEffect, useRef, useState } from "preact/hooks";
import createScatterplot from "regl-scatterplot";
import type { Points } from "./data";
import { extent } from "./numbers";
import { Note, Picture, Select, useLoaded } from "./parts";
import { className, data, dataset, image, images, shown } from "./session";
import { go, theme, view } from "./state";
import type { Store } from "./stores";

const METHODS = [
  ["pca", "PCA"],
  ["tsne", "t-SNE"],
  ["umap", "UMAP"],
] as const;

export function PointsView() {
  const first = shown.value[0];
  const { features, method, dataset: name } = view.value;
  const held = first
    ? [
        ...("cls" in first.info.arrays ? [["cls", "CLS tokens"] as const] : []),
        ...("spatial" in first.info.arrays ? [["mean", "means of patches"] as const] : []),
        ...("regions" in first.info.arrays ? [["regions", "annotated regions"] as const] : []),
      ]
    : [];
  const kind = held.some(([one]) => one === features) ? features : (held[0]?.[0] ?? "");
  const known = METHODS.some(([one]) => one === method) ? method : "pca";
  const loaded = useLoaded(JSON.stringify([first?.info.path, first?.layer, kind, known]), async () => {
    if (!first || !kind) return undefined;
    const [found, store] = await Promise.all([
      data().points(first.info, kind, known, first.layer),
      data().store(first.info),
    ]);
    return { found, store };
  });
  if (!first) return <Note>No model is chosen: choose some above.</Note>;
  if (!kind) {
    return (
      <Note setting="extraction: {taps: [cls]}">
        The store of {first.model.label} holds neither CLS tokens nor patches. This line of the config brings
        them:
      </Note>
    );
  }
  const shares = loaded.value?.found.shares;
  return (
    <section aria-label="Points" class="points">
      <div class="controls">
        <p class="facts">
          {first.model.label}, layer {first.info.layers[first.layer]}
        </p>
        <Select label="Of" value={kind} options={held} onChange={(value) => go({ features: value })} />
        <Select label="By" value={known as "pca"} options={METHODS} onChange={(value) => go({ method: value })} />
        {shares && (
          <p class="facts">
            axes hold {(100 * shares[0]).toFixed(1)} and {(100 * shares[1]).toFixed(1)} % of the variance
          </p>
        )}
      </div>
      {loaded.error && <Note>{loaded.error}</Note>}
      {loaded.stale && !loaded.error && <p class="note">Being made ...</p>}
      {loaded.value && images.value && !loaded.error && (
        <Scatter key={`${name} ${first.info.path}`} points={loaded.value.found} store={loaded.value.store} />
      )}
    </section>
  );
}

/** Colours of classes: ten that are told apart, or as many as there are around the circle. */
function palette(count: number): string[] {
  if (count <= 10) return schemeTableau10.slice(0, count) as string[];
  const hex = (text: string) =>
    `#${(text.match(/\d+/g) ?? []).slice(0, 3).map((part) => Number(part).toString(16).padStart(2, "0")).join("")}`;
  return Array.from({ length: count }, (_, at) => hex(interpolateRainbow(at / count)));
}

function Scatter({ points, store }: { points: Points; store: Store }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const plot = useRef<ReturnType<typeof createScatterplot>>(null);
  const [lasso, setLasso] = useState(true);
  const [under, setUnder] = useState<number | undefined>();
  const [failure, setFailure] = useState("");
  const known = images.value;
  // Rows of the store, of which the points are, and places of the dataset.
  const rows = points.images ?? Array.from({ length: store.info.images }, (_, row) => row);
  const places = rows.map((row) => store.details.places?.[row] ?? row);
  const labels = known?.labels ?? [];
  const names = points.categories ?? places.map((place) => className(labels[place]));
  const rank = new Map(places.map((place, at) => [names[at], points.categories ? 0 : labels[place]]));
  const classes = [...rank.keys()].sort((a, b) => (rank.get(a) ?? 0) - (rank.get(b) ?? 0) || a.localeCompare(b));
  const colours = palette(classes.length);
  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    let made: ReturnType<typeof createScatterplot>;
    try {
      made = createScatterplot({
        canvas: element,
        width: "auto",
        height: "auto",
        pointSize: places.length > 3000 ? 3 : 6,
        opacity: 0.8,
        backgroundColor: theme.value === "dark" ? "#16171a" : "#ffffff",
        pointColor: colours,
        colorBy: "valueA",
        pointOutlineWidth: 2,
        lassoInitiator: false,
        mouseMode: lasso ? "lasso" : "panZoom",
        lassoColor: theme.value === "dark" ? "#7ab8f5" : "#0b5cad",
        pointColorActive: theme.value === "dark" ? "#ffffff" : "#000000",
        pointColorHover: theme.value === "dark" ? "#ffffff" : "#000000",
      });
    } catch (error) {
      setFailure(`Points need WebGL, which this browser does not have (${(error as Error).message})`);
      return;
    }
    plot.current = made;
    const scaled = (values: number[]) => {
      const [low, high] = extent([values]);
      return values.map((value) => (1.9 * (value - low)) / (high - low || 1) - 0.95);
    };
    const z = names.map((name) => classes.indexOf(name));
    made.draw({ x: scaled(points.x), y: scaled(points.y), valueA: z }, { zDataType: "categorical" }).then(
      () => element.setAttribute("data-drawn", String(places.length)),
      () => {},
    );
    made.subscribe("select", ({ points: some }: { points: number[] }) => {
      if (some.length === 1) go({ image: places[some[0]] });
      else go({ chosen: [...new Set(some.map((point) => places[point]))].sort((a, b) => a - b) });
    });
    made.subscribe("deselect", () => go({ chosen: [] }));
    made.subscribe("pointOver", (row: number) => setUnder(places[row]));
    made.subscribe("pointOut", () => setUnder(undefined));
    return () => {
      plot.current = null;
      made.destroy();
    };
  }, [points, theme.value]);
  useEffect(() => {
    plot.current?.set({ mouseMode: lasso ? "lasso" : "panZoom" });
  }, [lasso]);
  if (failure) return <Note>{failure}</Note>;
  const told = under ?? image.value;
  return (
    <div class="scatter">
      <div class="plane">
        <canvas ref={canvas} role="img" aria-label="Images as points; the grid shows those that are chosen" />
      </div>
      <div class="facts">
        <div class="choice" role="group" aria-label="Dragging">
          <button type="button" aria-pressed={lasso} onClick={() => setLasso(true)}>
            Lasso
          </button>
          <button type="button" aria-pressed={!lasso} onClick={() => setLasso(false)}>
            Move
          </button>
          {view.value.chosen.length > 0 && (
            <button type="button" onClick={() => (plot.current?.deselect(), go({ chosen: [] }))}>
              Forget {view.value.chosen.length} points
            </button>
          )}
        </div>
        <div class="told">
          {dataset.value?.pictures === "" && (
            <Picture key={told} path={`thumbnails/${view.value.dataset}/${told}.webp`} alt="" />
          )}
          <p>
            {known?.ids[told]}
            <br />
            {known && className(known.labels[told])}
          </p>
        </div>
        <ul class="legend classes" aria-label="Classes">
          {classes.map((name, at) => (
            <li key={name}>
              <i class="dot" style={{ background: colours[at] }} aria-hidden="true" />
              {name}
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}
