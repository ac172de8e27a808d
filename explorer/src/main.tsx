// Starts the page with the data that it is served with, or that stand in it.
import { render } from "preact";
import { App, complete } from "./app";
import { Data } from "./data";
import { Note } from "./parts";
import { session } from "./session";
import { Embedded, Http } from "./source";
import { parse, startTheme, view } from "./state";

async function start(root: HTMLElement): Promise<void> {
  startTheme(document.documentElement);
  try {
    if (typeof Float16Array === "undefined") {
      throw new Error("This browser cannot read float16 numbers: use one of 2025 or later");
    }
    const files = document.getElementById("vitfeat-files")?.textContent;
    const known = await Data.open(files ? new Embedded(JSON.parse(files)) : new Http(document.baseURI));
    view.value = parse(location.hash);
    session.value = known;
    complete(known);
    root.replaceChildren();
    render(<App />, root);
  } catch (error) {
    render(<Note>{(error as Error).message}</Note>, root);
  }
}

const root = document.getElementById("app");
if (root) start(root);
