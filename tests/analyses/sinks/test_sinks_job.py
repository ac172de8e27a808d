"""From a store's tokens and attention to the table of shares, and the figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.analyses.attention_maps.attended import Attended, random_attention
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.analyses.sinks import job
from vitfeat.analyses.sinks.job import write_sinks
from vitfeat.analyses.sinks.settings import SinkSettings
from vitfeat.cli import main
from vitfeat.errors import AnalysisError
from vitfeat.figures.curves import CurveRow, HeadRow
from vitfeat.store.arrays import Geometry
from vitfeat.tables import read_table, write_table

TOKENS = Tokens((2, 4), has_cls=True, n_registers=1)
N_IMAGES, LAYERS, HEADS = 7, (0, 2, 3), 2


@dataclass(frozen=True)
class Sinking(Attended):
    """A store whose spatial tokens are given, too."""

    spatial: NDArray[Any] = field(default_factory=lambda: np.empty(0))

    def arrays(self) -> dict[str, NDArray[Any]]:
        rows = list(self.kept.get("spatial", range(self.n_images)))
        return super().arrays() | (
            {"spatial": self.spatial[rows]} if "spatial" in self.taps else {}
        )


def features() -> NDArray[np.float32]:
    """Tokens of norms near 1; some are tenfold, others in each layer, and none in image 3."""
    generator = np.random.default_rng(1)
    found = generator.normal(size=(N_IMAGES, len(LAYERS), 2, 4, 6))
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    for image in (0, 1, 2, 4, 5, 6):
        for layer in range(len(LAYERS)):
            for token in generator.choice(8, 1 + image % 3, replace=False):
                found[image, layer, token // 4, token % 4] *= 10
    return found.astype(np.float32)


def content(tokens: Tokens = TOKENS, attention: NDArray[Any] | None = None, **more: Any) -> Sinking:
    if attention is None:
        attention = random_attention(N_IMAGES, len(LAYERS), HEADS, tokens)
    geometry = Geometry(LAYERS, 6, HEADS, tokens.grid, tokens.has_cls, tokens.n_registers)
    made = Sinking(
        geometry=geometry,
        taps=("spatial", "attention_summary"),
        dtype="float32",
        n_images=N_IMAGES,
        block=4,
        attention=attention,
        tokens=tokens,
        labels=[0] * N_IMAGES,
        spatial=features(),
    )
    return replace(made, **more)


def written(of: Sinking, tmp_path: Path, model: str = "m") -> Path:
    path = tmp_path / "digits" / f"{model}.zarr"
    path.parent.mkdir(parents=True, exist_ok=True)
    of.write(path)
    return path


def scored(store: Path, tmp_path: Path, **options: Any) -> list[ScoreRow]:
    write_sinks(store, tmp_path / "out.csv", SinkSettings(**options))
    return read_scores(tmp_path / "out.csv")


Key = tuple[int, str, str, str]


def values(rows: list[ScoreRow]) -> dict[Key, float]:
    found = {(r.layer, r.features, r.score, r.group): r.value for r in rows}
    assert len(found) == len(rows)
    return found


def sinks(of: Sinking, image: int, position: int) -> list[int]:
    """Tokens of more than three medians, by definition."""
    tokens = of.spatial[image, position].reshape(-1, 6).astype(np.float64)
    norms = [math.sqrt(math.fsum(c * c for c in token)) for token in tokens]
    ordered = sorted(norms)
    bound = 3 * (ordered[3] + ordered[4]) / 2
    return [place for place, norm in enumerate(norms) if norm > bound]


def expected(of: Sinking, norms: str, images: tuple[int, ...]) -> dict[Key, float]:
    """All values from the attention itself, in float64."""
    prefix, found = of.tokens.n_prefix, {}
    for position, layer in enumerate(LAYERS):
        place = position if norms == "own" else len(LAYERS) - 1
        high = {image: sinks(of, image, place) for image in images}
        for query in ("cls", "mean") if of.tokens.has_cls else ("mean",):
            heads = []
            for head in range(HEADS):
                shares = []
                for image in images:
                    a = of.attention[image, position, head].astype(np.float64)
                    row = a[0, prefix:] if query == "cls" else a[prefix:, prefix:].mean(0)
                    shares.append(math.fsum(row[k] for k in high[image]) / math.fsum(row))
                heads.append(math.fsum(shares) / len(shares))
                found[layer, f"attn_{query}", "sink_share", str(head)] = heads[-1]
            found[layer, f"attn_{query}", "sink_share", ""] = sum(heads) / HEADS
        counts = [len(tokens) for tokens in high.values()]
        found[layer, "spatial", "high_norm", ""] = sum(counts) / 8 / len(images)
        found[layer, "spatial", "high_norm_images", ""] = sum(map(bool, counts)) / len(images)
    return found


EVERY = tuple(range(N_IMAGES))


@pytest.mark.parametrize("norms", ["last", "own"])
def test_shares_by_loops(tmp_path: Path, norms: str, caplog: pytest.LogCaptureFixture) -> None:
    of = content()
    rows = scored(written(of, tmp_path), tmp_path, norms=norms)
    # Summaries are float32.
    assert values(rows) == pytest.approx(expected(of, norms, EVERY), rel=2e-6)
    assert {(r.task, r.model, r.dataset, r.variant, r.n) for r in rows} == {
        ("sinks", "m", "digits", f"median/{norms}", N_IMAGES)
    }
    assert caplog.messages == []


def test_the_made_store_has_an_image_without_and_images_with_several() -> None:
    counts = [len(sinks(content(), image, 2)) for image in EVERY]
    assert counts == [1, 2, 3, 0, 2, 3, 1]


def test_pieces_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = written(content(), tmp_path)
    whole = scored(store, tmp_path)
    monkeypatch.setattr(job, "_PIECE_BYTES", 1)
    pieces = scored(store, tmp_path)
    assert values(pieces) == pytest.approx(values(whole), rel=1e-14)


def test_a_model_without_cls_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of = content(Tokens((2, 4), has_cls=False, n_registers=0))
    store = written(of, tmp_path)
    rows = scored(store, tmp_path)
    assert values(rows) == pytest.approx(expected(of, "last", EVERY), rel=2e-6)
    assert caplog.messages == ["m has no CLS token: the query cls is left out"]
    assert {r.features for r in scored(store, tmp_path, queries=["cls"])} == {"spatial"}


def test_images_that_have_both_tokens_and_attention(tmp_path: Path) -> None:
    of = content(kept={"spatial": (1, 3, 6)})
    rows = scored(written(of, tmp_path), tmp_path)
    assert values(rows) == pytest.approx(expected(of, "last", (1, 3, 6)), rel=2e-6)
    assert {row.n for row in rows} == {3}


def test_a_head_without_spatial_attention_counts_where_it_has_some(tmp_path: Path) -> None:
    whole = content()
    attention = whole.attention.copy()
    attention[2, 0, 1, 0] = np.eye(10)[0]  # one image, by the CLS query
    attention[:, 1, 0, 0] = np.eye(10)[1]  # all images
    store = written(content(attention=attention), tmp_path)
    rows = scored(store, tmp_path, queries=["cls"])
    n = {(r.layer, r.group): r.n for r in rows if r.score == "sink_share"}
    assert n == {(0, ""): 6, (0, "0"): 7, (0, "1"): 6, (2, ""): 7, (2, "1"): 7} | {
        (3, group): 7 for group in ("", "0", "1")
    }
    found, others = values(rows), tuple(image for image in EVERY if image != 2)
    key = (0, "attn_cls", "sink_share", "1")
    assert found[key] == pytest.approx(expected(whole, "last", others)[key], rel=2e-6)
    assert found[2, "attn_cls", "sink_share", ""] == found[2, "attn_cls", "sink_share", "1"]


def test_without_high_norm_tokens_shares_are_0_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = content(spatial=np.ones_like(features()))
    rows = scored(written(of, tmp_path), tmp_path)
    assert {row.value for row in rows} == {0}
    assert caplog.messages == ["m: no high-norm tokens in 7 images"]


def without(of: Sinking, tap: str) -> Sinking:
    return replace(of, taps=tuple(name for name in of.taps if name != tap))


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (without(content(), "spatial"), "no spatial tokens in this store .*; extract the tap spa"),
        (
            without(content(), "attention_summary"),
            "no attention_summary/prefix_query in this store .* 'cls' out of analyses.sinks.quer",
        ),
        (
            content(spatial=np.where(np.arange(6) == 2, np.nan, features())),
            r"m\.zarr, layer 0: features hold values that are not finite",
        ),
        (
            content(kept={"spatial": (1, 3), "attention_summary": (0, 2)}),
            "no image has both spatial tokens and attention",
        ),
    ],
)
def test_what_stores_lack_is_one_line(tmp_path: Path, of: Sinking, words: str) -> None:
    store = written(of, tmp_path)
    with pytest.raises(AnalysisError, match=words) as error:
        scored(store, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.csv").exists()


MODELS = (
    '[{"id": "m", "label": "M", "family": "dino", "size": "6x64/4@32"},'
    ' {"id": "none", "label": "None of them", "family": "mae", "size": "6x64/4@32"}]'
)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of, tables = content(), tmp_path / "sinks" / "digits"
    store = written(of, tmp_path)
    command = ["run", "sinks", str(store), "--norms", "own"]
    assert main([*command, "--out", str(tables / "m.csv")]) == 0
    rows = read_scores(tables / "m.csv")
    assert rows == scored(store, tmp_path, norms="own")
    none = [row._replace(model="none", value=0.0) for row in rows]
    write_table(tables / "none.csv", ScoreRow, none)
    draw = ["draw", "sinks", str(tmp_path / "sinks"), "--datasets", "digits", "--models", MODELS]
    assert main(draw) == 0
    truth = expected(of, "own", EVERY)
    place = tmp_path / "sinks" / "digits" / "sets" / "all"
    for path in (place / "by_layer.csv", place / "families.csv", tmp_path / "sinks" / "all.csv"):
        curves = read_table(path, CurveRow, "table", "it")
        drawn = {(r.layer, r.metric): r.value for r in curves if r.model == "m"}
        whole = {
            (layer, kind): value
            for (layer, kind, score, group), value in truth.items()
            if not group and score != "high_norm_images"
        }
        assert drawn == pytest.approx(whole, rel=2e-6)
        assert {r.value for r in curves if r.model == "none"} == {0}
    heads = read_table(place / "breakout.csv", HeadRow, "table", "it")
    drawn_heads = {
        (r.layer, r.metric, str(r.head)): r.value
        for r in heads
        if r.model == "m" and r.metric != "spatial"
    }
    assert drawn_heads == pytest.approx(
        {key[:2] + key[3:]: value for key, value in truth.items() if key[3]}, rel=2e-6
    )
    assert main([*command, "--out", str(tmp_path / "x"), "--rule", "mean"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitfeat: error: --rule: found 'mean'")
