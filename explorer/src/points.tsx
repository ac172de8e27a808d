// Images as points on two axes; what a lasso holds is what the grid shows.
import { interpolateRainbow, schemeTableau10 } from "d3-scale-chromatic";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
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

type Place = [x: number, y: number];

/** The part of the plane that is seen: its left upper corner, and how often it is enlarged. */
const WHOLE = { x: 0, y: 0, scale: 1 };

function Scatter({ points, store }: { points: Points; store: Store }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [area, setArea] = useState<Place>([0, 0]);
  const [seen, setSeen] = useState(WHOLE);
  const [lasso, setLasso] = useState(true);
  const [path, setPath] = useState<Place[]>([]);
  const [under, setUnder] = useState<number | undefined>();
  const known = images.value;
  const { chosen } = view.value;
  const { places, classes, colours, rank, xs, ys } = useMemo(() => {
    // Rows of the store, of which the points are, and places of the dataset.
    const rows = points.images ?? Array.from({ length: store.info.images }, (_, row) => row);
    const places = rows.map((row) => store.details.places?.[row] ?? row);
    const labels = known?.labels ?? [];
    const names = points.categories ?? places.map((place) => className(labels[place]));
    const label = new Map(places.map((place, at) => [names[at], points.categories ? 0 : labels[place]]));
    const classes = [...label.keys()].sort((a, b) => (label.get(a) ?? 0) - (label.get(b) ?? 0) || a.localeCompare(b));
    const number = new Map(classes.map((name, at) => [name, at]));
    const scaled = (values: number[], upwards: boolean) => {
      const [low, high] = extent([values]);
      return values.map((value) => {
        const share = 0.03 + (0.94 * (value - low)) / (high - low || 1);
        return upwards ? 1 - share : share;
      });
    };
    return {
      places,
      classes,
      colours: palette(classes.length),
      rank: names.map((name) => number.get(name) ?? 0),
      xs: scaled(points.x, false),
      ys: scaled(points.y, true),
    };
  }, [points, known]);
  useLayoutEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setArea([element.clientWidth, element.clientHeight]));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const at = (point: number): Place => [
    (xs[point] - seen.x) * seen.scale * area[0],
    (ys[point] - seen.y) * seen.scale * area[1],
  ];
  const nearest = ([x, y]: Place): number | undefined => {
    let best: number | undefined;
    let least = 12 ** 2;
    for (let point = 0; point < xs.length; point++) {
      const [left, top] = at(point);
      const distance = (left - x) ** 2 + (top - y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  };
  useLayoutEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || !area[0]) return;
    element.width = area[0] * devicePixelRatio;
    element.height = area[1] * devicePixelRatio;
    context.scale(devicePixelRatio, devicePixelRatio);
    // As large as a wide screen lets them be, and thousands do not cover one another.
    const radius = xs.length > 3000 ? 2 : Math.min(6, Math.max(2.5, Math.min(...area) / 180));
    const some = new Set(chosen);
    for (let point = 0; point < xs.length; point++) {
      const [x, y] = at(point);
      context.globalAlpha = some.size && !some.has(places[point]) ? 0.15 : 0.85;
      context.fillStyle = colours[rank[point]];
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeStyle = theme.value === "dark" ? "#ffffff" : "#000000";
    for (let point = 0; point < xs.length; point++) {
      if (places[point] !== image.value) continue;
      context.beginPath();
      context.arc(...at(point), radius + 3, 0, 2 * Math.PI);
      context.stroke();
    }
    element.dataset.drawn = String(xs.length);
  }, [points, known, area, seen, chosen, image.value, theme.value]);
  const within = (event: PointerEvent | WheelEvent): Place => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const onDown = (event: PointerEvent) => {
    if (event.button) return;
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
    setPath([within(event)]);
  };
  const onMove = (event: PointerEvent) => {
    const now = within(event);
    const last = path.at(-1);
    if (!last) setUnder(nearest(now));
    else {
      setPath([...path, now]);
      if (!lasso) setSeen(moved(seen, (last[0] - now[0]) / area[0], (last[1] - now[1]) / area[1]));
    }
  };
  const onUp = () => {
    setPath([]);
    const [x, y] = path[0] ?? [0, 0];
    if (!path.some((one) => Math.hypot(one[0] - x, one[1] - y) > 4)) {
      const point = path.length ? nearest([x, y]) : undefined;
      if (point !== undefined) go({ image: places[point] });
    } else if (lasso) {
      const inside = places.filter((_, point) => contains(path, at(point)));
      go({ chosen: [...new Set(inside)].sort((a, b) => a - b) });
    }
  };
  const onWheel = (event: WheelEvent) => {
    event.preventDefault();
    const [x, y] = within(event);
    const scale = Math.min(50, Math.max(1, seen.scale * 1.002 ** -event.deltaY));
    const by = 1 / seen.scale - 1 / scale;
    setSeen(moved({ x: seen.x + (x / area[0]) * by, y: seen.y + (y / area[1]) * by, scale }, 0, 0));
  };
  const told = under === undefined ? image.value : places[under];
  return (
    <div class="scatter">
      <div class="plane">
        <canvas
          ref={canvas}
          role="img"
          aria-label="Images as points; the grid shows those that are chosen"
          class={lasso ? "" : "moved"}
          onPointerDown={onDown}
          onPointerMove={onMove}
          onPointerUp={onUp}
          onPointerLeave={() => setUnder(undefined)}
          onWheel={onWheel}
        />
        {lasso && path.length > 1 && (
          <svg aria-hidden="true">
            <polygon points={path.map((one) => one.join()).join(" ")} />
          </svg>
        )}
      </div>
      <div class="facts">
        <div class="choice" role="group" aria-label="Dragging">
          <button type="button" aria-pressed={lasso} onClick={() => setLasso(true)}>
            Lasso
          </button>
          <button type="button" aria-pressed={!lasso} onClick={() => setLasso(false)}>
            Move
          </button>
          {seen !== WHOLE && (
            <button type="button" onClick={() => setSeen(WHOLE)}>
              Show all
            </button>
          )}
          {chosen.length > 0 && (
            <button type="button" onClick={() => go({ chosen: [] })}>
              Forget {chosen.length} images
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

/** Shifts what is seen, in parts of it; no further than to the edge. */
function moved(seen: typeof WHOLE, x: number, y: number): typeof WHOLE {
  const bound = (place: number) => Math.min(1 - 1 / seen.scale, Math.max(0, place));
  return seen.scale === 1
    ? WHOLE
    : { x: bound(seen.x + x / seen.scale), y: bound(seen.y + y / seen.scale), scale: seen.scale };
}

/** Whether a polygon goes around a place: a ray to the right crosses its edges an odd number of times. */
function contains(polygon: Place[], [x, y]: Place): boolean {
  let inside = false;
  polygon.forEach(([ax, ay], at) => {
    const [bx, by] = polygon.at(at - 1) as Place;
    if (ay > y !== by > y && x < ax + ((y - ay) / (by - ay)) * (bx - ax)) inside = !inside;
  });
  return inside;
}
