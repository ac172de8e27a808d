// Patches: cosine similarity to one patch in its image and others, principal components, norms.
import { useMemo } from "preact/hooks";
import type { Components, Model } from "./data";
import { componentColours, cosines, extent, highNorm, norms, short } from "./numbers";
import { ColourBar, Note, PanelHead, Select, Slider, TokenMap, useLoaded } from "./parts";
import { data, hovered, images, order, patchAt, pointAt, query, shown } from "./session";
import { go, view } from "./state";
import type { Store, StoreInfo } from "./stores";

export function PatchesView() {
  return (
    <section aria-label="Patches">
      <PatchControls />
      <PatchPanels />
    </section>
  );
}

export function PatchControls() {
  const { map, common, cover, beside } = view.value;
  return (
    <div class="controls">
      <Select
        label="Show"
        value={map}
        options={[
          ["similarity", "cosine similarity to a patch"],
          ["components", "principal components as colours"],
          ["norms", "norms"],
        ]}
        onChange={(value) => go({ map: value })}
      />
      <Slider
        label="Cover"
        value={cover}
        most={100}
        step={5}
        shown={`${cover} %`}
        onInput={(value) => go({ cover: value }, "replace")}
      />
      <Slider
        label="Images beside"
        value={beside}
        most={12}
        shown={String(beside)}
        onInput={(value) => go({ beside: value }, "replace")}
      />
      {map !== "components" && (
        <label class="field check">
          <input
            type="checkbox"
            checked={common}
            onChange={(event) => go({ common: event.currentTarget.checked })}
          />
          <span>one scale for all maps</span>
        </label>
      )}
    </div>
  );
}

interface Read {
  model: Model;
  info: StoreInfo;
  layer: number;
  at: number;
  place: number;
  store: Store;
  tokens?: Float32Array;
  others: { place: number; store: Store; tokens?: Float32Array }[];
  basis?: Components;
}

/** Panels of all shown models; read together, so that one scale can hold for all. */
export function PatchPanels() {
  const { image, beside, map, pinned } = view.value;
  const places = order.value;
  const from = places.indexOf(image);
  const following = places.slice(from + 1, from + 1 + beside);
  const next = [...new Set([...pinned, ...following])].filter((place) => place !== image);
  const key = JSON.stringify([shown.value.map((s) => [s.info.path, s.layer]), image, next, map]);
  const loaded = useLoaded(key, () =>
    Promise.all(
      shown.value.map(async ({ model, info, layer }, at): Promise<Read> => {
        const store = await data().store(info);
        const [tokens, basis, ...rest] = await Promise.all([
          store.spatial(image, layer),
          map === "components" && store.has("spatial") ? data().components(info, layer) : undefined,
          ...next.map((place) => store.spatial(place, layer)),
        ]);
        const others = next.map((place, n) => ({ place, store, tokens: rest[n] }));
        return { model, info, layer, at, place: image, store, tokens, others, basis };
      }),
    ),
  );
  const asked = query.value;
  const drawn = useMemo(
    () => (loaded.value ?? []).map((read) => ({ read, ...values(read, asked, map) })),
    [loaded.value, asked, map],
  );
  if (loaded.error) return <Note>{loaded.error}</Note>;
  if (!shown.value.length) return <Note>No model is chosen: choose some above.</Note>;
  const everything = drawn.flatMap((one) => [one.own, ...one.others]).filter((one) => one !== undefined);
  const all = view.value.common ? extent(everything) : undefined;
  return (
    <div
      class={`panels patches${loaded.stale ? " stale" : ""}`}
      style={{ maxWidth: `${44 * drawn.length}rem` }}
    >
      {drawn.map((one) => (
        <PatchPanel key={one.read.at} {...one} common={all} />
      ))}
    </div>
  );
}

/** What is drawn of a model: a value for each token of the image and of those beside it. */
function values(read: Read, asked: string, map: string) {
  const { store, tokens, others } = read;
  const patch = patchAt(store, read.place, asked);
  if (!tokens || map === "components") return { patch, own: undefined, others: [] };
  const channels = channelsOf(read);
  if (map === "norms") {
    const own = norms(tokens, channels);
    return { patch, own, others: others.map((one) => one.tokens && norms(one.tokens, channels)) };
  }
  if (patch === undefined) return { patch, own: undefined, others: [] };
  const vector = tokens.subarray(patch * channels, (patch + 1) * channels);
  return {
    patch,
    own: cosines(tokens, vector),
    others: others.map((one) => one.tokens && cosines(one.tokens, vector)),
  };
}

function channelsOf(read: Read): number {
  const shape = read.info.arrays.spatial.shape;
  return shape[shape.length - 1];
}

function PatchPanel(props: {
  read: Read;
  patch: number | undefined;
  own: Float32Array | undefined;
  others: (Float32Array | undefined)[];
  common: [number, number] | undefined;
}) {
  const { read, patch, own } = props;
  const { model, info, layer, at, store, tokens, basis, place } = read;
  const { map, cover, pinned } = view.value;
  const grid = store.grid(place);
  const head = <PanelHead model={model} info={info} layer={layer} at={at} />;
  const missing = missingTokens(read, grid);
  if (missing) return <article class="panel">{head}{missing}</article>;
  if (!grid || !tokens) return null;
  const channels = channelsOf(read);
  const rgb = (some: Float32Array | undefined) => some && basis && componentColours(some, basis);
  // Images beside it are drawn in the colours of this one: theirs would wash out a map of little contrast.
  const others = props.others.filter((one) => one !== undefined);
  const range = props.common ?? extent(own ? [own] : others);
  const high = highNorm(norms(tokens, channels));
  const picture = (of: number) => viewPath(info, store, of);
  const value = patch === undefined || !own ? undefined : own[patch];
  const where = patch === undefined ? "" : `row ${Math.floor(patch / grid[1])}, column ${patch % grid[1]}`;
  return (
    <article class="panel" data-model={model.id}>
      {head}
      <TokenMap
        grid={grid}
        values={own}
        colours={map === "components" ? rgb(tokens) : undefined}
        range={range}
        picture={picture(place)}
        cover={cover / 100}
        mark={map === "similarity" ? patch : undefined}
        outlined={high}
        label={`${model.label}, layer ${info.layers[layer]}: ${where || "no patch of its view"}`}
        onPick={(token) => {
          hovered.value = null;
          go({ query: pointAt(store, place, token) }, "replace");
        }}
        onHover={(token) => {
          hovered.value = token === null ? null : pointAt(store, place, token);
        }}
      />
      <div class="under">
        {map === "components" ? (
          <small>three components, one basis for all images of this layer</small>
        ) : (
          <ColourBar range={range} unit={map === "norms" ? "L2 norm" : "cosine"} />
        )}
        <p class="facts" aria-live="polite">
          {map === "similarity" && patch === undefined && "this point is outside what the model saw"}
          {where}
          {map === "norms" && value !== undefined && `, norm ${short(value)}`}
          {map === "similarity" && own && `, mean over the image ${short(mean(own))}`}
          {high.length > 0 && `; ${high.length} high-norm (outlined)`}
        </p>
      </div>
      {read.others.length > 0 && (
        <div class="beside">
          {read.others.map((other, n) => {
            const otherGrid = store.grid(other.place);
            if (!otherGrid || !other.tokens) return null;
            const name = images.value?.ids[other.place] ?? "";
            return (
              <button
                type="button"
                key={other.place}
                class={pinned.includes(other.place) ? "pinned" : ""}
                title={name}
                aria-label={`Go to ${name}`}
                onClick={() => go({ image: other.place })}
              >
                <TokenMap
                  grid={otherGrid}
                  values={props.others[n]}
                  colours={map === "components" ? rgb(other.tokens) : undefined}
                  range={range}
                  picture={picture(other.place)}
                  cover={cover / 100}
                  label=""
                />
              </button>
            );
          })}
        </div>
      )}
    </article>
  );
}

function mean(some: Float32Array): number {
  let sum = 0;
  for (const value of some) sum += value;
  return sum / some.length;
}

/** Where an image stands as a model of a store saw it; undefined where there are no pictures. */
export function viewPath(info: StoreInfo, store: Store, place: number): string | undefined {
  const row = store.row(place);
  if (row === undefined || data().dataset(info.dataset)?.pictures) return undefined;
  return `views/${info.kind}/${info.dataset}/${info.model}/${row}.webp`;
}

/** What stands in the place of patches that the store does not hold. */
function missingTokens(read: Read, grid: [number, number] | undefined) {
  if (!read.store.has("spatial")) {
    return (
      <Note setting="extraction: {taps: [spatial]}">
        The store of {read.model.label} holds no spatial tokens. This line of the config brings them:
      </Note>
    );
  }
  if (read.store.row(read.place) === undefined || !grid || !read.tokens) {
    return <Note>The store of {read.model.label} does not hold this image.</Note>;
  }
  return undefined;
}
