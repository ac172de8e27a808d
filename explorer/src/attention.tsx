// Attention: every head of a layer, or of all layers, for one query; rollout; mass on CLS and registers.
import { useMemo, useState } from "preact/hooks";
import type { Model } from "./data";
import { extent, highNorm, norms, rolloutRow, short } from "./numbers";
import { ColourBar, Note, PanelHead, Select, TokenMap, useLoaded } from "./parts";
import { viewPath } from "./patches";
import { data, hovered, patchAt, pointAt, query, setShown, shown } from "./session";
import { go, view } from "./state";
import type { Store, StoreInfo } from "./stores";

export function AttentionView() {
  const { overview, common } = view.value;
  const asked = query.value;
  const some = shown.value;
  const registers = Math.max(0, ...some.map(({ info }) => info.registers));
  const queries: [string, string][] = [
    ...(some.some(({ info }) => info.cls) ? [["cls", "CLS"] as [string, string]] : []),
    ...Array.from({ length: registers }, (_, n): [string, string] => [`register ${n}`, `register ${n}`]),
    ["mean", "mean of patches"],
  ];
  return (
    <section aria-label="Attention">
      <div class="controls">
        <div class="choice" role="group" aria-label="Query">
          <span>Query</span>
          {queries.map(([name, text]) => (
            <button
              type="button"
              key={name}
              aria-pressed={asked === name}
              onClick={() => go({ query: name })}
            >
              {text}
            </button>
          ))}
          <small>or a patch of the picture</small>
        </div>
        <label class="field check">
          <input type="checkbox" checked={overview} onChange={(e) => go({ overview: e.currentTarget.checked })} />
          <span>all layers</span>
        </label>
        <label class="field check">
          <input type="checkbox" checked={common} onChange={(e) => go({ common: e.currentTarget.checked })} />
          <span>one scale for all maps</span>
        </label>
      </div>
      <div class="panels attention">
        {some.map((one, at) => (
          <AttentionPanel key={`${one.info.path} ${at}`} {...one} at={at} />
        ))}
      </div>
      {!some.length && <Note>No model is chosen: choose some above.</Note>}
    </section>
  );
}

/** A query's attention in one layer: a row over all tokens for each head, and where it is from. */
interface Rows {
  layer: number;
  heads: Float32Array[];
}

interface Read {
  main: Store;
  grid: [number, number];
  prefix: number;
  /** Attention of all queries: of the layers asked for (head, query, key). */
  whole?: Map<number, Float32Array>;
  /** Rows that summaries hold, by query: of all images. */
  summaries: Map<string, Map<number, Float32Array>>;
  high: number[];
  tokens: number;
}

async function read(info: StoreInfo, place: number, layers: number[]): Promise<Read | string> {
  const main = await data().store(info);
  const grid = main.grid(place);
  if (!grid) return "holds no attention of this image";
  const prefix = Number(info.cls) + info.registers;
  const tokens = prefix + grid[0] * grid[1];
  const summaries: Read["summaries"] = new Map();
  const wanted: [string, string][] = [
    ["prefix", "attention_summary/prefix_query"],
    ["mean", "attention_summary/spatial_query"],
  ];
  for (const [name, array] of wanted) {
    const entry = main.entry(array, place);
    if (entry === undefined) continue;
    const rows = await Promise.all(layers.map((layer) => main.read(array, entry, layer)));
    summaries.set(name, new Map(layers.map((layer, n) => [layer, rows[n]])));
  }
  const whole = await wholeAttention(info, place, layers);
  let high: number[] = [];
  if (main.has("spatial")) {
    // High-norm tokens are those of the last layer's output, as in the tables.
    const last = await main.spatial(place, info.layers.length - 1);
    const shape = info.arrays.spatial.shape;
    if (last) high = highNorm(norms(last, shape[shape.length - 1]));
  }
  return { main, grid, prefix, whole, summaries, high, tokens };
}

/** Reads the attention of all queries where a store of the model holds it of this image. */
async function wholeAttention(info: StoreInfo, place: number, layers: number[]) {
  for (const kind of ["features", "attention_maps"]) {
    const one = data().info(kind, info.dataset, info.model);
    if (!one || !("attention" in one.arrays)) continue;
    const store = await data().store(one);
    const entry = store.entry("attention", place);
    const places = layers.map((layer) => one.layers.indexOf(info.layers[layer]));
    if (entry === undefined || places.includes(-1)) continue;
    const rows = await Promise.all(places.map((layer) => store.read("attention", entry, layer)));
    return new Map(layers.map((layer, n) => [layer, rows[n]]));
  }
  return undefined;
}

/** Rows of a query, head by head: from the attention itself, or from what summaries hold. */
function rowsOf(got: Read, layer: number, asked: number | "mean"): Float32Array[] | undefined {
  const { tokens, prefix } = got;
  const cut = (from: Float32Array, start: number) => from.subarray(start, start + tokens);
  const summary = got.summaries.get(asked === "mean" ? "mean" : "prefix")?.get(layer);
  const whole = got.whole?.get(layer);
  if (asked === "mean" && summary) {
    return Array.from({ length: summary.length / tokens }, (_, head) => cut(summary, head * tokens));
  }
  if (asked !== "mean" && whole) {
    const heads = whole.length / (tokens * tokens);
    return Array.from({ length: heads }, (_, head) => cut(whole, (head * tokens + asked) * tokens));
  }
  if (asked !== "mean" && asked < prefix && summary) {
    const heads = summary.length / (prefix * tokens);
    return Array.from({ length: heads }, (_, head) => cut(summary, (head * prefix + asked) * tokens));
  }
  if (asked === "mean" && whole) {
    const heads = whole.length / (tokens * tokens);
    return Array.from({ length: heads }, (_, head) => {
      const sum = new Float32Array(tokens);
      for (let from = prefix; from < tokens; from++) {
        const row = cut(whole, (head * tokens + from) * tokens);
        for (let key = 0; key < tokens; key++) sum[key] += row[key] / (tokens - prefix);
      }
      return sum;
    });
  }
  return undefined;
}

function AttentionPanel(props: { model: Model; info: StoreInfo; layer: number; at: number }) {
  const { model, info, layer, at } = props;
  const { image, overview, common } = view.value;
  const layers = overview ? info.layers.map((_, n) => n) : [layer];
  const loaded = useLoaded(JSON.stringify([info.path, image, layers]), () => read(info, image, layers));
  const got = loaded.value;
  const asked = query.value;
  const head = <PanelHead model={model} info={info} layer={layer} at={at} />;
  const drawn = useMemo(() => {
    if (!got || typeof got === "string") return undefined;
    const patch = patchAt(got.main, image, asked);
    const token = tokenOf(asked, info, got.prefix, patch);
    const rows: Rows[] = [];
    for (const one of layers) {
      const heads = token === undefined ? undefined : rowsOf(got, one, token);
      if (heads) rows.push({ layer: one, heads });
    }
    return { patch, token, rows };
  }, [got, asked, loaded.stale]);
  if (loaded.error) return <article class="panel">{head}<Note>{loaded.error}</Note></article>;
  if (!got || !drawn) return <article class="panel">{head}{typeof got === "string" && <Note>{model.label} {got}.</Note>}</article>;
  const read_ = got as Read;
  const { grid, prefix, main } = read_;
  const spatial = (row: Float32Array) => row.subarray(prefix);
  const everything = drawn.rows.flatMap((one) => one.heads.map(spatial));
  const range: [number, number] = [0, extent(everything)[1]];
  const picture = viewPath(info, main, image);
  const where = drawn.patch === undefined ? "" : `row ${Math.floor(drawn.patch / grid[1])}, column ${drawn.patch % grid[1]}`;
  return (
    <article class={`panel${loaded.stale ? " stale" : ""}`} data-model={model.id}>
      {head}
      <div class="asked">
        <TokenMap
          grid={grid}
          picture={picture}
          mark={drawn.patch}
          outlined={read_.high}
          label={`${model.label}: query ${where || asked}`}
          onPick={(token) => {
            hovered.value = null;
            go({ query: pointAt(main, image, token) }, "replace");
          }}
          onHover={(token) => {
            hovered.value = token === null ? null : pointAt(main, image, token);
          }}
        />
        <div>
          <p class="facts">
            query: {where || asked}
            {read_.high.length > 0 && <><br />{read_.high.length} high-norm tokens (outlined)</>}
          </p>
          <Mass rows={drawn.rows.find((one) => one.layer === layer) ?? drawn.rows[0]} info={info} high={read_.high} prefix={prefix} />
        </div>
      </div>
      {drawn.rows.length === 0 ? (
        <MissingAttention model={model} info={info} asked={asked} />
      ) : overview ? (
        <Overview rows={drawn.rows} grid={grid} range={common ? range : undefined} prefix={prefix} info={info} at={at} layer={layer} />
      ) : (
        <div class="heads">
          {drawn.rows[0].heads.map((row, n) => (
            <figure key={n}>
              <TokenMap
                grid={grid}
                values={spatial(row)}
                range={common ? range : [0, extent([spatial(row)])[1]]}
                outlined={read_.high}
                label={`Head ${n}`}
              />
              <figcaption>
                <b>{n}</b>
                {info.cls && <span title="on CLS">CLS {short(row[0])}</span>}
                {info.registers > 0 && <span title="on registers">reg {short(sum(row.subarray(Number(info.cls), prefix)))}</span>}
              </figcaption>
            </figure>
          ))}
        </div>
      )}
      {drawn.rows.length > 0 && common && <ColourBar range={range} unit="attention" />}
      {overview && read_.whole && drawn.token !== undefined && (
        <Rollout got={read_} info={info} asked={drawn.token} />
      )}
      <Metrics model={model} info={info} at={at} layer={layer} />
    </article>
  );
}

function tokenOf(asked: string, info: StoreInfo, prefix: number, patch: number | undefined): number | "mean" | undefined {
  if (asked === "mean") return "mean";
  if (asked === "cls") return info.cls ? 0 : undefined;
  const register = /^register (\d+)$/.exec(asked);
  if (register) {
    const number = Number(register[1]);
    return number < info.registers ? Number(info.cls) + number : undefined;
  }
  return patch === undefined ? undefined : prefix + patch;
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let at = 0; at < values.length; at++) total += values[at];
  return total;
}

/** How much of the query's attention goes where, averaged over the heads of a layer. */
function Mass(props: { rows: Rows | undefined; info: StoreInfo; high: number[]; prefix: number }) {
  const { rows, info, high, prefix } = props;
  if (!rows) return null;
  const over = (of: (row: Float32Array) => number) => sum(rows.heads.map(of)) / rows.heads.length;
  const facts: [string, number][] = [];
  if (info.cls) facts.push(["CLS", over((row) => row[0])]);
  if (info.registers) facts.push(["registers", over((row) => sum(row.subarray(Number(info.cls), prefix)))]);
  facts.push(["patches", over((row) => sum(row.subarray(prefix)))]);
  if (high.length) facts.push(["high-norm", over((row) => sum(high.map((token) => row[prefix + token])))]);
  return (
    <table class="mass">
      <caption>attention, mean of heads, layer {info.layers[rows.layer]}</caption>
      <tbody>
        {facts.map(([name, value]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{short(value)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Heads across, layers down; a map is the way to its layer. */
function Overview(props: {
  rows: Rows[];
  grid: [number, number];
  range: [number, number] | undefined;
  prefix: number;
  info: StoreInfo;
  at: number;
  layer: number;
}) {
  const { rows, grid, range, prefix, info, at, layer } = props;
  const heads = rows[0].heads.length;
  return (
    <div class="overview" style={{ gridTemplateColumns: `auto repeat(${heads}, minmax(0, 1fr))` }}>
      <span class="axis">layer</span>
      {Array.from({ length: heads }, (_, n) => (
        <span class="axis" key={n}>{n === 0 ? "head 0" : n}</span>
      ))}
      {rows.flatMap((one) => [
        <button
          type="button"
          class="quiet axis"
          key={`layer ${one.layer}`}
          aria-pressed={one.layer === layer}
          aria-label={`Layer ${info.layers[one.layer]}`}
          onClick={() =>
            go({
              overview: false,
              shown: view.value.shown.map((before, place) => (place === at ? { ...before, layer: one.layer } : before)),
            })
          }
        >
          {info.layers[one.layer]}
        </button>,
        ...one.heads.map((row, n) => (
          <TokenMap
            key={`${one.layer} ${n}`}
            grid={grid}
            values={row.subarray(prefix)}
            range={range ?? [0, extent([row.subarray(prefix)])[1]]}
            label={`Layer ${info.layers[one.layer]}, head ${n}`}
          />
        )),
      ])}
    </div>
  );
}

/** What flows to the query's token of the last layer from those that the first layer was given. */
function Rollout({ got, info, asked }: { got: Read; info: StoreInfo; asked: number | "mean" }) {
  const layers = info.layers.map((_, n) => got.whole?.get(n));
  const row = useMemo(() => {
    if (asked === "mean" || layers.some((one) => one === undefined)) return undefined;
    return rolloutRow(layers as Float32Array[], got.tokens, asked);
  }, [got, asked]);
  if (!row || info.layers[0] !== 0) return null;
  const values = row.subarray(got.prefix);
  return (
    <div class="rollout">
      <TokenMap grid={got.grid} values={values} range={extent([values])} label="Rollout" />
      <div>
        <b>Rollout</b> of the query through all layers
        <ColourBar range={extent([values])} unit="share" />
        {info.cls && <p class="facts">from CLS {short(row[0])}</p>}
      </div>
    </div>
  );
}

/** Metrics of every layer and head, averaged over all images; a click chooses the layer. */
function Metrics({ model, info, at, layer }: { model: Model; info: StoreInfo; at: number; layer: number }) {
  const [chosen, setChosen] = useState("distance");
  const loaded = useLoaded(info.path, async () => {
    const known = data().dataset(info.dataset)?.heads.includes(model.id);
    return known ? data().heads(info.dataset, model.id) : undefined;
  });
  const heads = loaded.value;
  if (loaded.error || !heads?.metrics.length) return null;
  const one = heads.metrics.find(({ metric }) => metric === chosen) ?? heads.metrics[0];
  const rows = one.values.length;
  const columns = one.values[0].length;
  // Layers go upwards, as in the figures.
  const values = [...one.values].reverse().flatMap((row) => row.map((value) => value ?? Number.NaN));
  const finite = values.filter(Number.isFinite);
  const row = rows - 1 - heads.layers.indexOf(info.layers[layer]);
  const open = (cell: number) => {
    const number = heads.layers[rows - 1 - Math.floor(cell / columns)];
    const place = info.layers.indexOf(number);
    if (place < 0) return;
    setShown((before) => before.map((some, n) => (n === at ? { ...some, layer: place } : some)));
  };
  return (
    <details class="metrics">
      <summary>Metrics of all heads, over all images</summary>
      <Select
        label="Metric"
        value={one.metric}
        options={heads.metrics.map(({ metric, unit }) => [metric, `${metric} (${unit})`] as const)}
        onChange={setChosen}
      />
      <TokenMap
        grid={[rows, columns]}
        values={values}
        range={extent([finite])}
        outlined={Array.from({ length: columns }, (_, n) => row * columns + n)}
        label={`${one.metric} of ${model.label}: layers upwards, heads to the right; layer ${info.layers[layer]} is outlined`}
        onPick={open}
        mark={row * columns}
      />
      <ColourBar range={extent([finite])} unit={one.unit} />
    </details>
  );
}

function MissingAttention(props: { model: Model; info: StoreInfo; asked: string }) {
  const { model, info, asked } = props;
  const held = useLoaded(info.path, () => imageWithAttention(info));
  if (asked === "cls" && !info.cls) return <Note>{model.label} has no CLS token.</Note>;
  if (asked.startsWith("register")) return <Note>{model.label} has no {asked}.</Note>;
  if (asked === "cls" || asked === "mean") {
    return (
      <Note setting="extraction: {taps: [attention_summary]}">
        The store of {model.label} holds no summaries of attention. This line of the config brings them:
      </Note>
    );
  }
  return (
    <>
      <Note setting="extraction: {taps: [attention]}">
        Attention of single patches is kept of some images only, and this is none of them (CLS and the mean of
        patches are of all images). This line of the config brings it for all:
      </Note>
      {held.value !== undefined && (
        <button type="button" onClick={() => go({ image: held.value })}>
          Go to an image that has it
        </button>
      )}
    </>
  );
}

/** The first image that attention of all queries is stored of. */
async function imageWithAttention(info: StoreInfo): Promise<number | undefined> {
  for (const kind of ["features", "attention_maps"]) {
    const one = data().info(kind, info.dataset, info.model);
    if (!one || !("attention" in one.arrays)) continue;
    const { details } = await data().store(one);
    const row = one.arrays.attention.limited ? details.rows.attention?.[0] : 0;
    if (row !== undefined) return details.places ? details.places[row] : row;
  }
  return undefined;
}
