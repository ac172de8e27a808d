// Builds the page that vitfeat serves: `npm run build`, or `node build.mjs FOLDER` to write elsewhere.
import { copyFile, mkdir } from "node:fs/promises";
import { build } from "esbuild";

const out = process.argv[2] ?? new URL("../vitfeat/explorer/page", import.meta.url).pathname;

// Codecs that no store is written with, and Blosc's WebAssembly, which zarrita would bring in: 1.5 MB.
const unused = {
  name: "unused-codecs",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^numcodecs\/(blosc|zstd|lz4)$/ }, ({ path }) => ({ path, namespace: "unused" }));
    onLoad({ filter: /.*/, namespace: "unused" }, () => ({ contents: "export default {}" }));
  },
};

await mkdir(out, { recursive: true });
await build({
  entryPoints: { app: "src/main.tsx" },
  outdir: out,
  absWorkingDir: new URL(".", import.meta.url).pathname,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "ascii",
  legalComments: "eof",
  // A widget puts its styles into itself.
  loader: { ".css": "text" },
  jsx: "automatic",
  jsxImportSource: "preact",
  plugins: [unused],
  logLevel: "warning",
});
for (const name of ["index.html", "app.css"]) {
  await copyFile(new URL(`src/${name}`, import.meta.url), `${out}/${name}`);
}
