// The images: filtered, sorted, as small pictures of which only the visible ones are there.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Note, Picture, Select, useLoaded } from "./parts";
import { className, data, dataset, image, images, order, shown, step } from "./session";
import { go, view } from "./state";

const SORTS = [
  ["id", "id"],
  ["label", "class"],
  ["distance", "attention distance"],
  ["entropy", "attention entropy"],
  ["cls_norm", "norm of CLS"],
  ["highest_norm", "highest norm of a patch"],
  ["mean_norm", "mean norm of patches"],
  ["like", "likeness to an image"],
] as const;
type Sort = (typeof SORTS)[number][0];

/** What a metric is read from, and the line of a config that brings it. */
const NEEDS: Partial<Record<Sort, [array: string, tap: string]>> = {
  distance: ["attention_summary/aligned", "attention_summary"],
  entropy: ["attention_summary/entropy", "attention_summary"],
  cls_norm: ["cls", "cls"],
  highest_norm: ["spatial", "spatial"],
  mean_norm: ["spatial", "spatial"],
};

/** Sorting by a metric is `metric` or `metric.head`, by likeness `like.place`. */
function sortOf(text: string): [Sort, number] {
  const [name, number] = text.split(".");
  const known = SORTS.some(([one]) => one === name);
  return [known ? (name as Sort) : "id", Number.parseInt(number ?? "0", 10) || 0];
}

async function keys(sort: Sort, number: number): Promise<ArrayLike<number> | undefined> {
  const known = images.value;
  if (!known || sort === "id") return undefined;
  if (sort === "label") return known.labels;
  const first = shown.value[0];
  if (!first) return undefined;
  const { info, layer } = first;
  const store = await data().store(info);
  const places = known.ids.map((_, place) => store.row(place));
  if (sort === "like") {
    const features = store.has("cls") ? "cls" : "mean";
    const vectors = await data().vectors(info, features, layer);
    const channels = vectors.length / info.images;
    const own = places[number] ?? 0;
    return places.map((row) => {
      if (row === undefined) return Number.NaN;
      let product = 0;
      for (let at = 0; at < channels; at++) product += vectors[row * channels + at] * vectors[own * channels + at];
      return -product;
    });
  }
  const values = await data().metric(info, sort, layer);
  const heads = values.length / info.images;
  return places.map((row) => (row === undefined ? Number.NaN : values[row * heads + Math.min(number, heads - 1)]));
}

/** Keeps the order of the images in step with filter and sort. */
export function useOrder(): string | undefined {
  const { sort, descending, text, classes, chosen, dataset: name } = view.value;
  const [by, number] = sortOf(sort);
  const first = shown.value[0];
  const key = JSON.stringify([
    name,
    images.value?.ids.length,
    by,
    number,
    by === "id" || by === "label" ? "" : [first?.info.path, first?.layer],
  ]);
  const loaded = useLoaded(key, () => keys(by, number));
  const filter = JSON.stringify([text, classes, chosen, descending]);
  useEffect(() => {
    const known = images.value;
    if (!known || loaded.stale) return;
    const wanted = text.toLowerCase();
    const some = new Set(chosen);
    const places = known.ids
      .map((_, place) => place)
      .filter(
        (place) =>
          (!some.size || some.has(place)) &&
          (!classes.length || classes.includes(known.labels[place])) &&
          (!wanted ||
            known.ids[place].toLowerCase().includes(wanted) ||
            className(known.labels[place]).toLowerCase().includes(wanted)),
      );
    const values = loaded.value;
    if (values) {
      const rank = (place: number) => (Number.isNaN(values[place]) ? Number.POSITIVE_INFINITY : values[place]);
      places.sort((a, b) => rank(a) - rank(b) || a - b);
    }
    if (descending) places.reverse();
    order.value = places;
  }, [loaded.value, loaded.stale, filter, images.value]);
  return loaded.error;
}

export function Filters({ error }: { error: string | undefined }) {
  const { text, classes, sort, descending, chosen } = view.value;
  const [by, number] = sortOf(sort);
  const known = images.value;
  const first = shown.value[0];
  const heads = first?.info.arrays["attention_summary/entropy"]?.shape[2] ?? 0;
  const of = first ? `${first.model.label}, layer ${first.info.layers[first.layer]}` : "";
  const need = NEEDS[by];
  const missing = need && first && !(need[0] in first.info.arrays);
  return (
    <div class="filters">
      <label class="field">
        <span>Find</span>
        <input
          type="search"
          value={text}
          placeholder="id or class"
          onInput={(event) => go({ text: event.currentTarget.value }, "replace")}
        />
      </label>
      {known && Object.keys(known.classes).length > 0 && (
        <Select
          label="Class"
          value={classes.length === 1 ? String(classes[0]) : ""}
          options={[
            ["", "all"],
            ...Object.entries(known.classes).map(([label, name]) => [label, name] as const),
          ]}
          onChange={(value) => go({ classes: value === "" ? [] : [Number(value)] })}
        />
      )}
      <Select
        label="Sort by"
        value={by}
        options={SORTS}
        onChange={(value) => go({ sort: value === "like" ? `like.${image.value}` : value })}
      />
      {(by === "distance" || by === "entropy") && heads > 0 && (
        <Select
          label="Head"
          value={String(number)}
          options={Array.from({ length: heads }, (_, head) => [String(head), String(head)] as const)}
          onChange={(value) => go({ sort: `${by}.${value}` })}
        />
      )}
      <label class="field check">
        <input
          type="checkbox"
          checked={descending}
          onChange={(event) => go({ descending: event.currentTarget.checked })}
        />
        <span>descending</span>
      </label>
      <p class="facts">
        <output>{order.value.length}</output> of {known?.ids.length ?? 0}
        {by !== "id" && by !== "label" && `; ${of}`}
        {by === "like" && known && `; like ${known.ids[number] ?? ""}`}
        {chosen.length > 0 && (
          <button type="button" class="quiet" onClick={() => go({ chosen: [] })}>
            forget the chosen points
          </button>
        )}
      </p>
      {missing && need && (
        <Note setting={`extraction: {taps: [${need[1]}]}`}>
          The store of {first.model.label} does not hold it. This line of the config brings it:
        </Note>
      )}
      {error && !missing && <Note>{error}</Note>}
    </div>
  );
}

export function Grid({ size }: { size: number }) {
  const box = useRef<HTMLDivElement>(null);
  const [area, setArea] = useState({ top: 0, width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () =>
      setArea({ top: element.scrollTop, width: element.clientWidth, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);
  const places = order.value;
  const columns = Math.max(1, Math.floor(area.width / size));
  const side = area.width / columns || size;
  const at = places.indexOf(image.value);
  useEffect(() => {
    const element = box.current;
    if (!element || at < 0 || !area.height) return;
    const top = Math.floor(at / columns) * side;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + side > element.scrollTop + area.height) element.scrollTop = top + side - area.height;
  }, [image.value, columns, area.height > 0, places.length > 0]);
  // Another order is looked at from its start.
  const before = useRef(places);
  useEffect(() => {
    if (before.current.length && box.current) box.current.scrollTop = 0;
    before.current = places;
  }, [places]);
  const first = Math.max(0, Math.floor(area.top / side) - 1) * columns;
  const last = (Math.ceil((area.top + area.height) / side) + 1) * columns;
  const onKey = (event: KeyboardEvent) => {
    const by: Record<string, number> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -columns,
      ArrowDown: columns,
      PageUp: -columns * 5,
      PageDown: columns * 5,
      Home: -places.length,
      End: places.length,
    };
    if (!(event.key in by)) return;
    event.preventDefault();
    event.stopPropagation();
    step(by[event.key]);
  };
  const known = images.value;
  const pictures = dataset.value?.pictures === "";
  return (
    <div
      class="grid"
      ref={box}
      role="listbox"
      tabIndex={0}
      aria-label="Images"
      aria-activedescendant={at >= first && at < last ? `image-${image.value}` : undefined}
      onKeyDown={onKey}
    >
      <div role="presentation" style={{ height: `${Math.ceil(places.length / columns) * side}px` }}>
        {places.slice(first, last).map((place, n) => {
          const index = first + n;
          const name = known?.ids[place] ?? "";
          const label = known ? className(known.labels[place]) : "";
          return (
            <div
              key={place}
              id={`image-${place}`}
              role="option"
              aria-selected={place === image.value}
              aria-setsize={places.length}
              aria-posinset={index + 1}
              aria-label={`${name}, ${label}`}
              title={`${name}\n${label}`}
              style={{
                width: `${side}px`,
                height: `${side}px`,
                transform: `translate(${(index % columns) * side}px, ${Math.floor(index / columns) * side}px)`,
              }}
              onClick={() => go({ image: place })}
            >
              {pictures ? (
                <Picture path={`thumbnails/${view.value.dataset}/${place}.webp`} alt="" late />
              ) : (
                <span class="nameless">{name}</span>
              )}
              {size > 80 && (
                <span class="caption">{known && known.labels[place] >= 0 ? label : name.split("/").pop()}</span>
              )}
            </div>
          );
        })}
      </div>
    </div>
  );
}
