// Starts the page with the data that it is served with, that stand in it, or that a kernel sends.
import { render } from "preact";
import { App, complete } from "./app";
import style from "./app.css";
import { Data } from "./data";
import { Note } from "./parts";
import { session } from "./session";
import { Embedded, Http, Messages, type Model, type Source } from "./source";
import { parse, startTheme, view, withoutAddress } from "./state";

async function start(root: HTMLElement, themed: HTMLElement, source: () => Source, alone: boolean) {
  startTheme(themed);
  try {
    if (typeof Float16Array === "undefined") {
      throw new Error("This browser cannot read float16 numbers: use one of 2025 or later");
    }
    const known = await Data.open(source());
    if (alone) view.value = parse(location.hash);
    session.value = known;
    complete(known);
    root.replaceChildren();
    render(<App alone={alone} />, root);
  } catch (error) {
    render(<Note>{(error as Error).message}</Note>, root);
  }
}

const page = document.getElementById("vitfeat-explorer");
if (page) {
  const files = document.getElementById("vitfeat-files")?.textContent;
  const source = () => (files ? new Embedded(JSON.parse(files)) : new Http(document.baseURI));
  start(page, document.documentElement, source, true);
}

/** In a notebook, as anywidget calls it; styles stay within the widget. */
export default {
  render({ model, el }: { model: Model; el: HTMLElement }) {
    withoutAddress();
    const host = document.createElement("div");
    host.style.height = `${model.get("height")}px`;
    const shadow = host.attachShadow({ mode: "open" });
    const rules = document.createElement("style");
    rules.textContent = style
      .replaceAll(':root[data-theme="dark"]', ':host([data-theme="dark"])')
      .replaceAll(":root", ":host");
    const root = document.createElement("div");
    root.id = "vitfeat-explorer";
    shadow.append(rules, root);
    el.append(host);
    start(root, host, () => new Messages(model), false);
  },
};
