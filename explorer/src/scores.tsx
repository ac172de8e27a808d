// Scores by layer of every analysis as curves; a point of one sets model and layer.
import * as Plot from "@observablehq/plot";
import { useEffect, useRef } from "preact/hooks";
import type { Curve } from "./data";
import { short } from "./numbers";
import { Dot, Note, Remarks, Select, shade, useLoaded } from "./parts";
import { data, datasetName, shown } from "./session";
import { go, theme, view } from "./state";

interface Point {
  model: string;
  label: string;
  layer: number;
  value: number;
}

export function ScoresView() {
  const loaded = useLoaded("scores", () => data().scores());
  const { analysis } = view.value;
  if (loaded.error) return <Note>{loaded.error}</Note>;
  if (!loaded.value) return null;
  const { curves, remarks } = loaded.value;
  const choices = [...new Set(curves.map((one) => `${one.analysis}/${one.dataset}`))].sort();
  if (!choices.length) {
    return (
      <Note setting={`analyses: {knn: {datasets: [${datasetName.value}], train: ...}}`}>
        There are no tables of scores. Analyses of the config make them, such as:
      </Note>
    );
  }
  const own = choices.filter((one) => one.endsWith(`/${datasetName.value}`));
  const chosen = choices.includes(analysis) ? analysis : (own.find((one) => one.startsWith("knn/")) ?? own[0] ?? choices[0]);
  const some = curves.filter((one) => `${one.analysis}/${one.dataset}` === chosen);
  const scores = [...new Set(some.map((one) => one.score))];
  const models = data().catalog.models.filter((model) => some.some((one) => one.model === model.id));
  return (
    <section aria-label="Scores">
      <div class="controls">
        <Select
          label="Analysis"
          value={chosen}
          options={choices.map((one) => [one, one.replace("/", " of ")] as const)}
          onChange={(value) => go({ analysis: value })}
        />
        <ul class="legend" aria-label="Models">
          {models.map((model) => (
            <li key={model.id}>
              <Dot model={model} />
              {model.label}
            </li>
          ))}
        </ul>
      </div>
      <Remarks lines={remarks} />
      <div class="charts">
        {scores.map((score) => (
          <Chart key={`${chosen} ${score}`} score={score} curves={some.filter((one) => one.score === score)} />
        ))}
      </div>
    </section>
  );
}

function Chart({ score, curves }: { score: string; curves: Curve[] }) {
  const box = useRef<HTMLDivElement>(null);
  const chosen = new Set(shown.value.map(({ model }) => model.id));
  const marks = JSON.stringify(shown.value.map(({ model, info, layer }) => [model.id, info.layers[layer]]));
  const points: Point[] = curves.flatMap((one) =>
    one.layers.flatMap((layer, at) => {
      const value = one.values[at];
      const label = data().models.get(one.model)?.label ?? one.model;
      return value === null ? [] : [{ model: one.model, label, layer, value }];
    }),
  );
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const colour = (point: Point) => shade(data().models.get(point.model)?.colour ?? "#666666");
    const now = new Set((JSON.parse(marks) as [string, number][]).map(([model, layer]) => `${model} ${layer}`));
    const channels = { x: "layer", y: "value", stroke: colour } as const;
    const chart = Plot.plot({
      width: Math.max(260, element.clientWidth),
      height: 200,
      marginLeft: 48,
      marginRight: 10,
      marginTop: 10,
      style: { background: "none", fontSize: "11px" },
      x: { label: "layer", ticks: Math.min(12, new Set(points.map((point) => point.layer)).size), tickFormat: "d" },
      y: { label: null, grid: true, nice: true, ticks: 5 },
      marks: [
        Plot.line(points, {
          ...channels,
          z: "model",
          strokeWidth: 1.5,
          strokeOpacity: (point: Point) => (chosen.has(point.model) ? 1 : 0.45),
        }),
        Plot.dot(points, { ...channels, fill: colour, r: 2 }),
        Plot.dot(
          points.filter((point) => now.has(`${point.model} ${point.layer}`)),
          { ...channels, fill: "none", r: 6, strokeWidth: 2 },
        ),
        Plot.tip(
          points,
          Plot.pointer({
            x: "layer",
            y: "value",
            title: (point: Point) => `${point.label}, layer ${point.layer}\n${short(point.value)}`,
          }),
        ),
      ],
    });
    // Groups of marks have names that no role of theirs allows.
    for (const group of chart.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", `${score} by layer; the table below has the values`);
    chart.addEventListener("click", () => chart.value && open(chart.value as Point));
    element.replaceChildren(chart);
    return () => element.replaceChildren();
  }, [curves, marks, theme.value]);
  const layers = [...new Set(points.map((point) => point.layer))].sort((a, b) => a - b);
  return (
    <figure class="chart">
      <figcaption>
        <b>{score}</b>
      </figcaption>
      <div ref={box} />
      <details>
        <summary>Values</summary>
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">layer</th>
                {layers.map((layer) => (
                  <th scope="col" key={layer}>
                    {layer}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {curves.map((one) => (
                <tr key={one.model}>
                  <th scope="row">{data().models.get(one.model)?.label ?? one.model}</th>
                  {layers.map((layer) => {
                    const point = points.find((p) => p.model === one.model && p.layer === layer);
                    return (
                      <td key={layer}>
                        {point && (
                          <button
                            type="button"
                            class="quiet"
                            aria-label={`${point.label}, layer ${layer}: ${short(point.value)}`}
                            onClick={() => open(point)}
                          >
                            {short(point.value)}
                          </button>
                        )}
                      </td>
                    );
                  })}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}

/** Sets a model's layer, and puts the model beside the others where it was not. */
function open(point: Point): void {
  const info = data().main(datasetName.value, point.model);
  if (!info) return;
  const layer = Math.max(0, info.layers.indexOf(point.layer));
  const before = view.value.shown;
  const held = before.some((one) => one.model === point.model);
  go({
    shown: held
      ? before.map((one) => (one.model === point.model ? { ...one, layer } : one))
      : [...before, { model: point.model, layer }],
  });
}
