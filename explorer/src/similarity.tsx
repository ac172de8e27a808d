// CKA between layers of all models, or of those that are shown; a cell opens its two layers.
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Current } from "./current";
import type { Cka } from "./data";
import { extent, short } from "./numbers";
import { ColourBar, magma, Note, Remarks, Select, useLoaded } from "./parts";
import { PatchControls, PatchPanels } from "./patches";
import { data, dataset, shown } from "./session";
import { go, view } from "./state";

interface Side {
  model: string;
  label: string;
  layer: number;
}

export function SimilarityView() {
  const known = dataset.value;
  const { tokens, estimator, pair } = view.value;
  const kind = known?.cka.includes(tokens) ? tokens : (known?.cka[0] ?? "");
  const loaded = useLoaded(`${known?.name} ${kind}`, () =>
    kind && known ? data().cka(known.name, kind) : Promise.resolve(undefined),
  );
  if (!known) return null;
  if (!kind) {
    return (
      <Note setting={`analyses: {cka: {datasets: [${known.name}]}}`}>
        There are no CKA tables of {known.name}. This line of the config makes them:
      </Note>
    );
  }
  const estimators = Object.keys(loaded.value?.estimators ?? {});
  const by = estimators.includes(estimator) ? estimator : estimators[0];
  return (
    <section aria-label="Similarity" class="similarity">
      <div>
      <div class="controls">
        <Select
          label="CKA of"
          value={kind}
          options={known.cka.map((one) => [one, TOKENS[one] ?? one] as const)}
          onChange={(value) => go({ tokens: value })}
        />
        {estimators.length > 1 && (
          <Select
            label="Estimator"
            value={by}
            options={estimators.map((one) => [one, one] as const)}
            onChange={(value) => go({ estimator: value })}
          />
        )}
        <Select
          label="Models"
          value={pair === "shown" ? "shown" : ""}
          options={[
            ["", "all"],
            ["shown", "those shown"],
          ]}
          onChange={(value) => go({ pair: value })}
        />
      </div>
      {loaded.error && <Note>{loaded.error}</Note>}
      {loaded.value && by && <Matrix cka={loaded.value} by={by} />}
      {loaded.value && <Remarks lines={loaded.value.remarks} />}
      </div>
      <div>
      <Current />
      <PatchControls />
      <PatchPanels />
      </div>
    </section>
  );
}

const TOKENS: Record<string, string> = {
  cls: "CLS tokens",
  mean: "means of patches",
  spatial: "patches",
  all: "all tokens",
};

/** Layers of the models down and across, and the value of each two. */
function useSides(cka: Cka, by: string, only: string[] | undefined) {
  return useMemo(() => {
    const pairs = cka.estimators[by] ?? [];
    const layers = new Map<string, number[]>();
    for (const one of pairs) {
      layers.set(one.a, one.layers_a);
      layers.set(one.b, one.layers_b);
    }
    const order = data().catalog.models.filter(
      (model) => layers.has(model.id) && (!only?.length || only.includes(model.id)),
    );
    const sides: Side[] = order.flatMap((model) =>
      (layers.get(model.id) ?? []).map((layer) => ({ model: model.id, label: model.label, layer })),
    );
    const values = new Float32Array(sides.length ** 2).fill(Number.NaN);
    const start = new Map<string, number>();
    for (const [at, side] of sides.entries()) if (!start.has(side.model)) start.set(side.model, at);
    for (const one of pairs) {
      const a = start.get(one.a);
      const b = start.get(one.b);
      if (a === undefined || b === undefined) continue;
      for (const [row, some] of one.values.entries()) {
        for (const [column, value] of some.entries()) {
          values[(a + row) * sides.length + b + column] = value ?? Number.NaN;
          values[(b + column) * sides.length + a + row] = value ?? Number.NaN;
        }
      }
    }
    return { sides, values };
  }, [cka, by, only?.join()]);
}

function Matrix({ cka, by }: { cka: Cka; by: string }) {
  const only = view.value.pair === "shown" ? shown.value.map(({ model }) => model.id) : undefined;
  const { sides, values } = useSides(cka, by, only);
  const count = sides.length;
  const canvas = useRef<HTMLCanvasElement>(null);
  const [cursor, setCursor] = useState<[number, number]>([0, 0]);
  const finite = useMemo(() => values.filter((value) => Number.isFinite(value)), [values]);
  const range: [number, number] = [Math.min(0, extent([finite])[0]), 1];
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || !count) return;
    const pixels = context.createImageData(count, count);
    for (let at = 0; at < values.length; at++) {
      // Layers go upwards, as in the figures.
      const row = count - 1 - Math.floor(at / count);
      const share = (values[at] - range[0]) / (range[1] - range[0]);
      pixels.data.set([...magma(share), 255], 4 * (row * count + (at % count)));
    }
    context.putImageData(pixels, 0, 0);
  }, [values]);
  if (!count) return <Note>No table of the shown models can be read.</Note>;
  const bound = ([row, column]: [number, number]): [number, number] => [
    Math.min(count - 1, Math.max(0, row)),
    Math.min(count - 1, Math.max(0, column)),
  ];
  const cellAt = (event: MouseEvent): [number, number] => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    return bound([
      count - 1 - Math.floor(((event.clientY - box.top) / box.height) * count),
      Math.floor(((event.clientX - box.left) / box.width) * count),
    ]);
  };
  const [row, column] = bound(cursor);
  const open = ([a, b]: [number, number]) => {
    const both = [sides[a], sides[b]].map(({ model, layer }) => ({
      model,
      layer: Math.max(0, data().main(view.value.dataset, model)?.layers.indexOf(layer) ?? 0),
    }));
    go({ shown: a === b ? both.slice(0, 1) : both });
  };
  const onKey = (event: KeyboardEvent) => {
    const steps: Record<string, [number, number]> = {
      ArrowUp: [1, 0],
      ArrowDown: [-1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    };
    if (event.key === "Enter" || event.key === " ") open([row, column]);
    else if (event.key in steps) {
      setCursor(bound([row + steps[event.key][0], column + steps[event.key][1]]));
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const words = `${sides[row].label} layer ${sides[row].layer} and ${sides[column].label} layer ${sides[column].layer}`;
  const value = values[row * count + column];
  const blocks = [...new Set(sides.map((side) => side.model))].map((model) => {
    const from = sides.findIndex((side) => side.model === model);
    const size = sides.filter((side) => side.model === model).length;
    return { label: sides[from].label, from: (100 * from) / count, size: (100 * size) / count };
  });
  const marked = markedCells(sides);
  return (
    <div class="matrix-and-facts">
      <div class={`matrix${blocks.length > 8 ? " many" : ""}`}>
        <div class="rows" aria-hidden="true">
          {blocks.map((one) => (
            <span key={one.label} style={{ bottom: `${one.from}%`, height: `${one.size}%` }}>
              {one.label}
            </span>
          ))}
        </div>
        <div
          class="cells"
          role="application"
          aria-roledescription="matrix; arrow keys move, Enter opens the two layers"
          aria-label={`CKA of ${words}: ${short(value)}`}
          tabIndex={0}
          onClick={(event) => open(cellAt(event))}
          onPointerMove={(event) => setCursor(cellAt(event))}
          onKeyDown={onKey}
        >
          <canvas ref={canvas} width={count} height={count} aria-hidden="true" />
          <svg viewBox={`0 0 ${count} ${count}`} preserveAspectRatio="none" aria-hidden="true">
            {blocks.slice(1).map((one) => (
              <path
                key={one.label}
                class="border"
                d={`M${(one.from * count) / 100} 0V${count}M0 ${count - (one.from * count) / 100}H${count}`}
              />
            ))}
            {marked.map(([a, b]) => (
              <rect key={`${a} ${b}`} class="mark" x={b} y={count - 1 - a} width={1} height={1} />
            ))}
            <rect class="cursor" x={column} y={count - 1 - row} width={1} height={1} />
          </svg>
        </div>
        <div class="columns" aria-hidden="true">
          {blocks.map((one) => (
            <span key={one.label} style={{ left: `${one.from}%`, width: `${one.size}%` }}>
              {one.label}
            </span>
          ))}
        </div>
      </div>
      <div class="facts">
        <p aria-live="polite">
          {words}
          <br />
          <b>{short(value)}</b>
        </p>
        <ColourBar range={range} unit={`CKA, ${by}`} />
        <p>Layers of each model go up and to the right, from the first. A click opens the two layers on the current image.</p>
      </div>
    </div>
  );
}

/** The cells of the two layers that are shown. */
function markedCells(sides: Side[]): [number, number][] {
  if (shown.value.length !== 2) return [];
  const at = shown.value.map(({ model, info, layer }) =>
    sides.findIndex((side) => side.model === model.id && side.layer === info.layers[layer]),
  );
  return at.includes(-1) ? [] : [[at[0], at[1]]];
}
