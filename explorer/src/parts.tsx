// Small parts that views are put together from.
import type { ComponentChildren, HTMLAttributes } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { interpolateMagma } from "d3-scale-chromatic";
import type { Model } from "./data";
import { short } from "./numbers";
import { data, setShown } from "./session";
import { theme } from "./state";
import type { StoreInfo } from "./stores";

const MAGMA: [number, number, number][] = Array.from({ length: 256 }, (_, step) => {
  const text = interpolateMagma(step / 255);
  return [1, 3, 5].map((at) => Number.parseInt(text.slice(at, at + 2), 16)) as [number, number, number];
});
const NO_VALUE: [number, number, number] = [184, 184, 184];

/** The colour of a share of the scale, in the colours of the figures. */
export function magma(share: number): [number, number, number] {
  return Number.isFinite(share) ? MAGMA[Math.round(255 * Math.min(1, Math.max(0, share)))] : NO_VALUE;
}

/** A family's colour, light enough to be seen on a dark page. */
export function shade(hex: string): string {
  if (theme.value === "light") return hex;
  const part = (at: number) => {
    const value = Number.parseInt(hex.slice(at, at + 2), 16);
    return Math.round(value + (255 - value) * 0.5)
      .toString(16)
      .padStart(2, "0");
  };
  return `#${part(1)}${part(3)}${part(5)}`;
}

export interface Loaded<T> {
  value?: T;
  error?: string;
  /** Whether the value is of an earlier question: a new one is on its way. */
  stale: boolean;
}

/** What a promise gives; the last value stays until the next is there. */
export function useLoaded<T>(key: string, load: () => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ key: string; value?: T; error?: string }>({ key: "" });
  useEffect(() => {
    let current = true;
    load().then(
      (value) => current && setState({ key, value }),
      (error) => current && setState({ key, error: String(error.message ?? error) }),
    );
    return () => {
      current = false;
    };
  }, [key]);
  return { value: state.value, error: state.error, stale: state.key !== key };
}

export function Note({ children, setting }: { children: ComponentChildren; setting?: string }) {
  return (
    <p class="note">
      {children}
      {setting && (
        <>
          {" "}
          <code>{setting}</code>
        </>
      )}
    </p>
  );
}

/** What could not be read, out of the way. */
export function Remarks({ lines }: { lines: string[] }) {
  if (!lines.length) return null;
  return (
    <details class="remarks">
      <summary>{lines.length === 1 ? "One file" : `${lines.length} files`} could not be read</summary>
      {lines.map((line) => (
        <p key={line}>{line}</p>
      ))}
    </details>
  );
}

export function Select<T extends string>(props: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  return (
    <label class="field">
      <span>{props.label}</span>
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value as T)}>
        {props.options.map(([value, text]) => (
          <option key={value} value={value} selected={value === props.value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

export function Slider(props: {
  label: string;
  value: number;
  most: number;
  shown: string;
  step?: number;
  hideLabel?: boolean;
  onInput: (value: number) => void;
}) {
  return (
    <label class="field slider">
      <span class={props.hideLabel ? "hidden" : ""}>{props.label}</span>
      <input
        type="range"
        min={0}
        max={props.most}
        step={props.step ?? 1}
        value={props.value}
        aria-valuetext={props.shown}
        onInput={(event) => props.onInput(event.currentTarget.valueAsNumber)}
      />
      <output>{props.shown}</output>
    </label>
  );
}

export function Dot({ model }: { model: Model }) {
  return <i class="dot" style={{ background: shade(model.colour) }} aria-hidden="true" />;
}

/** The head of a model's panel: its name, its layer, and how it goes. */
export function PanelHead(props: { model: Model; info: StoreInfo; layer: number; at: number }) {
  const { model, info, layer, at } = props;
  const set = (value: number) =>
    setShown((before) => before.map((one, place) => (place === at ? { ...one, layer: value } : one)), "replace");
  return (
    <header class="panel-head">
      <h3 title={model.id}>
        <Dot model={model} />
        {model.label}
        {model.size && <small>{model.size}</small>}
      </h3>
      <Slider
        label={`Layer of ${model.label}`}
        hideLabel
        value={layer}
        most={info.layers.length - 1}
        shown={`layer ${info.layers[layer]}`}
        onInput={set}
      />
      <button
        type="button"
        class="quiet"
        aria-label={`Remove ${model.label}`}
        title="Remove"
        onClick={() => setShown((before) => before.filter((_, place) => place !== at))}
      >
        ×
      </button>
    </header>
  );
}

/** An image whose address may be a promise; numbers that are asked for go before `late` ones. */
export function Picture({ path, alt, late }: { path: string; alt: string; late?: boolean }) {
  const address = data().source.address(path);
  const [src, setSrc] = useState(typeof address === "string" ? address : "");
  useEffect(() => {
    let current = true;
    Promise.resolve(address).then(
      (found) => current && setSrc(found),
      () => {},
    );
    return () => {
      current = false;
    };
  }, [path]);
  return src ? <img src={src} alt={alt} decoding="async" draggable={false} fetchpriority={late ? "low" : undefined} /> : null;
}

export interface MapProps {
  /** Rows and columns. */
  grid: [number, number];
  /** A value for each token, or three of red, green and blue. */
  values?: ArrayLike<number>;
  colours?: ArrayLike<number>;
  range?: [number, number];
  picture?: string;
  /** From 0 to 1: how much the values cover the picture. */
  cover?: number;
  mark?: number;
  outlined?: number[];
  label: string;
  stale?: boolean;
  onPick?: (token: number) => void;
  onHover?: (token: number | null) => void;
}

/** A map over an image: one colour a token. With `onPick`, pointer and arrow keys choose tokens. */
export function TokenMap(props: MapProps) {
  const { grid, values, colours, range = [0, 1], mark, outlined = [], onPick, onHover } = props;
  const [rows, columns] = grid;
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || !(values || colours)) return;
    const pixels = context.createImageData(columns, rows);
    const width = range[1] - range[0] || 1;
    for (let token = 0; token < rows * columns; token++) {
      const rgb = colours
        ? [colours[3 * token], colours[3 * token + 1], colours[3 * token + 2]]
        : magma(((values as ArrayLike<number>)[token] - range[0]) / width);
      pixels.data.set([...rgb, 255], 4 * token);
    }
    context.putImageData(pixels, 0, 0);
  }, [values, colours, range[0], range[1], rows, columns]);

  const tokenAt = (event: PointerEvent | MouseEvent): number => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    const within = (at: number, size: number, count: number) =>
      Math.min(count - 1, Math.max(0, Math.floor((at / size) * count)));
    return (
      within(event.clientY - box.top, box.height, rows) * columns +
      within(event.clientX - box.left, box.width, columns)
    );
  };
  const onKey = (event: KeyboardEvent) => {
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
    };
    const move = steps[event.key];
    if (!move || !onPick) return;
    event.preventDefault();
    event.stopPropagation();
    const from = mark ?? 0;
    const row = Math.min(rows - 1, Math.max(0, Math.floor(from / columns) + move[0]));
    const column = Math.min(columns - 1, Math.max(0, (from % columns) + move[1]));
    onPick(row * columns + column);
  };
  const interactive: HTMLAttributes<HTMLDivElement> = onPick
    ? {
        role: "application",
        tabIndex: 0,
        "aria-roledescription": "map of patches; arrow keys choose one",
        onClick: (event) => onPick(tokenAt(event)),
        onPointerMove: (event) => event.pointerType === "mouse" && onHover?.(tokenAt(event)),
        onPointerLeave: () => onHover?.(null),
        onKeyDown: onKey,
      }
    : { role: props.label ? "img" : "presentation" };
  const cell = (token: number, name: string) => (
    <rect class={name} x={token % columns} y={Math.floor(token / columns)} width={1} height={1} />
  );
  return (
    <div
      class={`map${props.stale ? " stale" : ""}`}
      style={{ aspectRatio: `${columns} / ${rows}` }}
      aria-label={props.label || undefined}
      {...interactive}
    >
      {props.picture && <Picture path={props.picture} alt="" />}
      <canvas
        ref={canvas}
        width={columns}
        height={rows}
        style={{ opacity: values || colours ? (props.cover ?? 1) : 0 }}
        aria-hidden="true"
      />
      {(mark !== undefined || outlined.length > 0) && (
        <svg viewBox={`0 0 ${columns} ${rows}`} preserveAspectRatio="none" aria-hidden="true">
          {outlined.map((token) => cell(token, "outlined"))}
          {mark !== undefined && (
            <>
              {cell(mark, "mark-back")}
              {cell(mark, "mark")}
            </>
          )}
        </svg>
      )}
    </div>
  );
}

const GRADIENT = `linear-gradient(to right, ${Array.from({ length: 9 }, (_, step) => interpolateMagma(step / 8)).join(", ")})`;

/** The colours with the values at their ends. */
export function ColourBar({ range, unit }: { range: [number, number]; unit: string }) {
  return (
    <div class="bar">
      <span>{short(range[0])}</span>
      <i style={{ background: GRADIENT }} />
      <span>{short(range[1])}</span>
      <small>{unit}</small>
    </div>
  );
}
