import { className, image, images, order, step, tab } from "./session";
import { go, view } from "./state";

/** The current image in words, with the way to the next. */
export function Current() {
  const known = images.value;
  const at = order.value.indexOf(image.value);
  const { pinned } = view.value;
  const kept = pinned.includes(image.value);
  if (!known) return null;
  return (
    <div class="current">
      <button type="button" class="quiet" aria-label="Previous image" title="k" disabled={at === 0} onClick={() => step(-1)}>
        ‹
      </button>
      <button
        type="button"
        class="quiet"
        aria-label="Next image"
        title="j"
        disabled={at === order.value.length - 1}
        onClick={() => step(1)}
      >
        ›
      </button>
      <h2>{known.ids[image.value]}</h2>
      <span>{className(known.labels[image.value])}</span>
      <button type="button" class="quiet" onClick={() => go({ sort: `like.${image.value}`, descending: false })}>
        sort by likeness to it
      </button>
      {tab.value !== "attention" && (
        <button
          type="button"
          class="quiet"
          aria-pressed={kept}
          onClick={() =>
            go({ pinned: kept ? pinned.filter((one) => one !== image.value) : [...pinned, image.value] })
          }
        >
          keep beside others
        </button>
      )}
    </div>
  );
}
