"""Clicks and keys through every view: what the page shows is what Python reads."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("playwright")
from playwright.sync_api import Browser, Locator, Page, expect

import vitfeat
from tests.explorer.browser import opened
from tests.explorer.conftest import CLASSES, IMAGES
from vitfeat.analyses.attention.norms import thresholds
from vitfeat.analyses.attention.rollout import rollout_row
from vitfeat.explorer.catalog import Results
from vitfeat.explorer.content import Content, Held
from vitfeat.explorer.server import Server

pytestmark = pytest.mark.browser

MODELS = ("demo-supervised", "demo-clip", "demo-dino")
THREE = "shown=demo-supervised:5,demo-clip:5,demo-dino:5"


def panel(page: Page, model: str) -> Locator:
    return page.locator(f"article[data-model={model}]")


def pixels(canvas: Locator) -> NDArray[Any]:
    """Read what is drawn, (y, x, 3)."""
    width, height, values = canvas.evaluate(
        "(c) => [c.width, c.height, "
        "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    return np.array(values).reshape(height, width, 4)[..., :3]


def magma(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    shares = np.clip((values - low) / (high - low), 0, 1)
    return np.round(np.asarray(mpl.colormaps["magma"](shares))[..., :3] * 255)


def assert_drawn(canvas: Locator, values: NDArray[Any], low: float, high: float) -> None:
    """Assert that a canvas has the colours of some values, but for rounding to 256 steps."""
    wanted = magma(values, low, high)
    for _ in range(50):
        if np.abs(pixels(canvas) - wanted).max() <= 6:
            return
        canvas.page.wait_for_timeout(100)
    np.testing.assert_allclose(pixels(canvas), wanted, atol=6)


def store_of(default: Path, model: str, kind: str = "features") -> Any:
    return vitfeat.open(default / kind / "digits" / f"{model}.zarr")


def cosines(default: Path, model: str, row: int, layer: int, patch: tuple[int, int]) -> Any:
    tokens = np.asarray(store_of(default, model)["spatial"][row, layer], dtype=np.float64)
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    return unit @ unit[patch]


def click_patch(page: Page, model: str, patch: tuple[int, int], grid: int = 8) -> None:
    target = panel(page, model).get_by_role("application")
    box = target.bounding_box()
    assert box is not None
    y, x = ((place + 0.5) / grid for place in patch)
    target.click(position={"x": x * box["width"], "y": y * box["height"]})


def test_similarity_to_a_clicked_patch_is_that_of_python_in_every_model_and_layer(
    browser: Browser, link: str, default: Path
) -> None:
    with opened(browser, link, THREE) as page:
        click_patch(page, "demo-clip", (2, 5))
        for layer in (5, 1):
            page.get_by_label("Layer of all").fill(str(layer))
            for model in MODELS:
                wanted = cosines(default, model, 0, layer, (2, 5))
                canvas = panel(page, model).locator(".map canvas").first
                assert_drawn(canvas, wanted, wanted.min(), 1.0)
                mean = shortened(float(wanted.mean()))
                expect(panel(page, model)).to_contain_text(f"mean over the image {mean}")
                beside = panel(page, model).locator(".beside canvas").nth(2)
                other = cosines_beside(default, model, 3, layer, (2, 5))
                assert_drawn(beside, other, wanted.min(), 1.0)


def cosines_beside(default: Path, model: str, row: int, layer: int, patch: tuple[int, int]) -> Any:
    spatial = store_of(default, model)["spatial"]
    vector = np.asarray(spatial[0, layer], dtype=np.float64)[patch]
    tokens = np.asarray(spatial[row, layer], dtype=np.float64)
    return tokens @ vector / np.linalg.norm(tokens, axis=-1) / np.linalg.norm(vector)


def test_arrow_keys_move_the_patch_and_hovering_shows_another_for_a_while(
    browser: Browser, link: str
) -> None:
    with opened(browser, link, THREE) as page:
        click_patch(page, "demo-dino", (3, 3))
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
        page.mouse.move(700, 5)
        expect(panel(page, "demo-clip")).to_contain_text("row 2, column 4")
        box = panel(page, "demo-dino").get_by_role("application").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        expect(panel(page, "demo-clip")).to_contain_text("row 0, column 0")
        page.mouse.move(700, 5)
        expect(panel(page, "demo-clip")).to_contain_text("row 2, column 4")


def test_an_image_that_is_kept_stands_beside_every_other(
    browser: Browser, link: str, default: Path
) -> None:
    with opened(browser, link, "shown=demo-dino:5&image=7&beside=1") as page:
        page.get_by_role("button", name="keep beside others").click()
        page.locator("aside [role=option]").first.click()
        click_patch(page, "demo-dino", (2, 5))
        wanted = cosines(default, "demo-dino", 0, 5, (2, 5))
        spatial = store_of(default, "demo-dino")["spatial"]
        vector = np.asarray(spatial[0, 5], dtype=np.float64)[2, 5]
        tokens = np.asarray(spatial[7, 5], dtype=np.float64)
        kept = tokens @ vector / np.linalg.norm(tokens, axis=-1) / np.linalg.norm(vector)
        beside = panel(page, "demo-dino").locator(".beside canvas")
        expect(beside).to_have_count(2)
        assert_drawn(beside.first, kept, wanted.min(), 1.0)
        assert "pinned=7" in page.url


def test_components_and_norms_are_drawn(browser: Browser, link: str, default: Path) -> None:
    with opened(browser, link, f"{THREE}&map=norms&beside=0") as page:
        for model in MODELS:
            tokens = np.asarray(store_of(default, model)["spatial"][0, 5], dtype=np.float64)
            norms = np.linalg.norm(tokens, axis=-1)
            canvas = panel(page, model).locator(".map canvas").first
            assert_drawn(canvas, norms, norms.min(), norms.max())
        page.get_by_label("Show").select_option("components")
        tokens = np.asarray(store_of(default, "demo-dino")["spatial"][:, 5], dtype=np.float64)
        mean = tokens.mean((0, 1, 2))
        flat = (tokens - mean).reshape(-1, tokens.shape[-1])
        axis = np.linalg.svd(flat[::7], full_matrices=False)[2][0]
        first = (tokens[0] - mean) @ axis
        page.wait_for_timeout(500)
        red = pixels(panel(page, "demo-dino").locator(".map canvas").first)[..., 0]
        inside = (red > 0) & (red < 255)
        assert abs(np.corrcoef(red[inside], first[inside])[0, 1]) > 0.99


def test_attention_of_every_head_and_its_mass_on_cls_are_those_of_the_store(
    browser: Browser, link: str, default: Path
) -> None:
    with opened(browser, link, f"tab=attention&query=cls&image=3&{THREE}") as page:
        for model in MODELS:
            rows = store_of(default, model)["attention_summary/prefix_query"][3, 5][:, 0]
            heads = panel(page, model).locator(".heads figure")
            expect(heads).to_have_count(4)
            for head, row in enumerate(rows):
                expect(heads.nth(head)).to_contain_text(f"CLS {shortened(row[0])}")
                spatial = row[1:].reshape(8, 8)
                assert_drawn(heads.nth(head).locator("canvas"), spatial, 0, spatial.max())
        page.get_by_role("button", name="mean of patches").click()
        rows = store_of(default, "demo-clip")["attention_summary/spatial_query"][3, 5]
        spatial = rows[2][1:].reshape(8, 8)
        canvas = panel(page, "demo-clip").locator(".heads canvas").nth(2)
        assert_drawn(canvas, spatial, 0, spatial.max())


def test_metrics_of_all_heads_are_those_of_the_table_and_lead_to_layers(
    browser: Browser, link: str, default: Path
) -> None:
    with opened(browser, link, "tab=attention&query=cls&shown=demo-beit:5") as page:
        page.get_by_text("Metrics of all heads").click()
        page.get_by_role("combobox", name="Metric", exact=True).select_option("entropy")
        values = np.zeros((6, 4))
        with (default / "attention/digits/demo-beit.csv").open() as stream:
            for row in csv.DictReader(stream):
                if row["metric"] == "entropy":
                    values[5 - int(row["layer"]), int(row["head"])] = float(row["mean"])
        canvas = page.locator(".metrics canvas")
        assert_drawn(canvas, values, values.min(), values.max())
        target = page.locator(".metrics [role=application]")
        box = target.bounding_box()
        assert box is not None
        # The second row from below is layer 1.
        target.click(position={"x": 10, "y": box["height"] * 4.5 / 6})
        expect(panel(page, "demo-beit")).to_contain_text("layer 1")


def shortened(value: float) -> str:
    """Write a number as the page does."""
    return f"{value:.{4 if abs(value) < 0.1 else 3}f}".replace("-", "−")


def test_attention_of_a_patch_and_rollout_are_there_where_the_attention_is_stored(
    browser: Browser, link: str, default: Path
) -> None:
    store = store_of(default, "demo-dino", "attention_maps/stores")
    name = store.image_ids[1]
    place = store_of(default, "demo-dino").image_ids.index(name)
    hash = f"tab=attention&image={place}&shown=demo-dino:4"
    with opened(browser, link, hash) as page:
        click_patch(page, "demo-dino", (6, 1))
        query = 1 + 6 * 8 + 1
        attention = np.asarray(store["attention"][1], dtype=np.float64)
        for head in range(4):
            spatial = attention[4, head, query, 1:].reshape(8, 8)
            canvas = panel(page, "demo-dino").locator(".heads canvas").nth(head)
            assert_drawn(canvas, spatial, 0, spatial.max())
        page.get_by_label("all layers").check()
        expect(panel(page, "demo-dino").locator(".overview .map")).to_have_count(24)
        flow = rollout_row(attention, query)[1:].reshape(8, 8)
        canvas = panel(page, "demo-dino").locator(".rollout canvas")
        assert_drawn(canvas, flow, flow.min(), flow.max())
        panel(page, "demo-dino").get_by_role("button", name="Layer 2").click()
        expect(panel(page, "demo-dino")).to_contain_text("layer 2")


@pytest.mark.parametrize("image", [0, 1])  # of the second the attention of all queries is stored
def test_registers_share_and_high_norm_tokens_are_those_of_the_store(
    browser: Browser, served: Server, made: Path, image: int
) -> None:
    store = vitfeat.open(made / "results" / "features" / "d" / "a.zarr")
    norms = np.linalg.norm(store["spatial"][image, -1].astype(np.float64), axis=-1)
    high = np.flatnonzero(norms > thresholds(norms, "median"))
    assert len(high) == 1
    row = {0: store["attention_summary/prefix_query"], 1: store["attention"]}[image]
    entry = 0  # of the attention of two images, the second image's is the first
    # From the second register, behind CLS and the first one, in every head of the middle layer.
    attention = np.asarray(row[entry, 1], dtype=np.float64)[:, 2]
    with opened(
        browser, served.link, f"tab=attention&query=register 1&image={image}&shown=a:1"
    ) as page:
        figures = panel(page, "a").locator(".heads figure")
        for head, values in enumerate(attention):
            expect(figures.nth(head)).to_contain_text(f"reg {shortened(values[1:3].sum())}")
        mean = attention.mean(0)
        table = panel(page, "a").locator(".mass")
        for name, share in (
            ("CLS", mean[0]),
            ("registers", mean[1:3].sum()),
            ("patches", mean[3:].sum()),
            ("high-norm", mean[3 + high].sum()),
        ):
            expect(table.get_by_role("row", name=name)).to_contain_text(shortened(share))
        outlined = panel(page, "a").locator(".asked rect.outlined")
        expect(outlined).to_have_count(1)
        assert outlined.get_attribute("x") == str(high[0] % 3)
        assert outlined.get_attribute("y") == str(high[0] // 3)


def test_what_a_store_does_not_hold_is_said_with_the_line_that_brings_it(
    browser: Browser, link: str
) -> None:
    with opened(browser, link, "tab=attention&image=2&query=0.5,0.5") as page:
        expect(page.locator("article").first).to_contain_text("extraction: {taps: [attention]}")
        page.get_by_role("button", name="Go to an image that has it").first.click()
        expect(page.locator("article").first.locator(".heads figure")).to_have_count(4)
    with opened(browser, link, "dataset=coco") as page:
        expect(page.locator("article").first).to_contain_text("extraction: {taps: [spatial]}")
    with opened(browser, link, "dataset=coco&tab=similarity") as page:
        expect(page.locator("main")).to_contain_text("analyses: {cka: {datasets: [coco]}}")


def test_a_cell_of_the_matrix_opens_its_two_layers(
    browser: Browser, link: str, default: Path
) -> None:
    with opened(browser, link, "tab=similarity&tokens=spatial") as page:
        cells = page.locator(".matrix .cells")
        box = cells.bounding_box()
        assert box is not None
        # Layer 2 of the second model upwards, layer 4 of the third to the right; six layers each.
        at = {"x": (2 * 6 + 4.5) / 42 * box["width"], "y": (1 - (6 + 2.5) / 42) * box["height"]}
        cells.click(position=at)
        wanted = None
        with (default / "cka/digits/spatial/demo-clip--demo-dino.csv").open() as stream:
            for row in csv.DictReader(stream):
                if (row["layer_a"], row["layer_b"]) == ("2", "4"):
                    wanted = float(row["cka"])
        assert wanted is not None
        name = f"CKA of CLIP layer 2 and DINO layer 4: {wanted:.3f}"
        expect(cells).to_have_attribute("aria-label", name)
        expect(page.locator("article")).to_have_count(2)
        expect(panel(page, "demo-clip")).to_contain_text("layer 2")
        expect(panel(page, "demo-dino")).to_contain_text("layer 4")
        cells.focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        expect(panel(page, "demo-clip")).to_contain_text("layer 3")


def test_a_score_sets_model_and_layer(browser: Browser, link: str, default: Path) -> None:
    with opened(browser, link, f"tab=scores&analysis=knn/digits&{THREE}") as page:
        with (default / "knn/digits/demo-mae.csv").open() as stream:
            values = {
                row["layer"]: float(row["value"])
                for row in csv.DictReader(stream)
                if (row["features"], row["variant"], row["score"]) == ("cls", "k=20", "top1")
            }
        chart = page.get_by_role("figure", name="top1 · cls · k=20", exact=True)
        chart.locator("summary").click()
        chart.get_by_role("button", name=f"MAE, layer 3: {values['3']:.3f}").click()
        page.keyboard.press("2")
        expect(panel(page, "demo-mae")).to_contain_text("layer 3")
        page.go_back()
        # A point itself.
        point = page.locator("figure").first.locator("circle").first.bounding_box()
        assert point is not None
        page.mouse.move(point["x"] + 12, point["y"] + 2)
        page.mouse.move(point["x"] + 2, point["y"] + 2)
        page.wait_for_timeout(100)
        page.mouse.click(point["x"] + 2, point["y"] + 2)
        page.wait_for_function("() => location.hash.includes('%3A0')")


def test_a_lasso_filters_the_grid(browser: Browser, link: str) -> None:
    with opened(browser, link, "tab=points") as page:
        page.wait_for_selector("canvas[data-drawn='599']")
        box = page.locator(".plane canvas").bounding_box()
        assert box is not None
        corners = [(0.02, 0.02), (0.5, 0.02), (0.5, 0.98), (0.02, 0.98), (0.02, 0.03)]
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()
        page.wait_for_function("() => location.hash.includes('chosen=')")
        count = int(page.locator("aside output").inner_text())
        assert 0 < count < 599
        page.get_by_role("button", name=re.compile("Forget")).click()
        expect(page.locator("aside output")).to_have_text("599")


def shown_ids(page: Page, count: int) -> list[str]:
    options = page.locator("[role=option]")
    return [str(options.nth(n).get_attribute("title")).split("\n")[0] for n in range(count)]


def test_images_are_filtered_and_sorted_by_class_metric_and_likeness(
    browser: Browser, link: str, default: Path
) -> None:
    store = store_of(default, "demo-dino")
    with opened(browser, link, "tab=images&shown=demo-dino:3") as page:
        page.get_by_role("combobox", name="Class", exact=True).select_option("7")
        expect(page.locator(".filters output")).to_have_text(str(int((store.labels == 7).sum())))
        page.get_by_role("combobox", name="Class", exact=True).select_option("")
        page.get_by_label("Find").fill("0036")
        expect(page.locator(".filters output")).to_have_text(
            str(sum("0036" in name for name in store.image_ids))
        )
        page.get_by_label("Find").fill("")
        page.get_by_role("combobox", name="Sort by", exact=True).select_option("entropy")
        page.get_by_role("combobox", name="Head", exact=True).select_option("2")
        entropy = np.asarray(store["attention_summary/entropy"][:, 3, 2])
        wanted = [store.image_ids[row] for row in np.argsort(entropy, kind="stable")[:6]]
        page.wait_for_function(
            f"() => document.querySelector('[role=option]').title.startsWith({wanted[0]!r})"
        )
        assert shown_ids(page, 6) == wanted
        page.get_by_role("combobox", name="Sort by", exact=True).select_option("like")
        features = np.asarray(store["cls"][:, 3], dtype=np.float64)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        like = [store.image_ids[row] for row in np.argsort(-features @ features[0])[:6]]
        page.wait_for_function(
            f"() => document.querySelector('[role=option]').title.startsWith({like[0]!r})"
        )
        assert shown_ids(page, 6) == like


def test_keys_step_through_images_layers_and_views(browser: Browser, link: str) -> None:
    with opened(browser, link, THREE) as page:
        first = page.locator("h2").inner_text()
        page.keyboard.press("j")
        page.keyboard.press("j")
        expect(page.locator("h2")).not_to_have_text(first)
        page.keyboard.press("k")
        page.keyboard.press("k")
        expect(page.locator("h2")).to_have_text(first)
        page.keyboard.press("[")
        expect(panel(page, "demo-clip")).to_contain_text("layer 4")
        page.get_by_role("listbox").focus()
        page.keyboard.press("End")
        expect(page.locator("[aria-selected=true]")).to_be_visible()
        assert page.locator("h2").inner_text().startswith("test/9")
        page.keyboard.press("3")
        expect(page.locator("nav [aria-current]")).to_have_text("Attention")


def test_the_address_holds_the_view_and_back_and_forward_work(browser: Browser, link: str) -> None:
    with opened(browser, link, THREE) as page:
        page.get_by_role("button", name="Similarity").click()
        page.get_by_role("button", name="Attention").click()
        page.get_by_role("button", name="CLS").click()
        page.go_back()
        page.go_back()
        expect(page.locator("nav [aria-current]")).to_have_text("Similarity")
        page.go_forward()
        page.go_forward()
        expect(page.get_by_role("button", name="CLS")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Patches", exact=True).click()
        page.get_by_label("Layer of DINO").fill("1")
        page.get_by_label("Dataset").select_option("digits-train")
        page.wait_for_timeout(300)
        address = page.url
        with opened(browser, link, address.split("#")[1]) as again:
            expect(panel(again, "demo-dino")).to_contain_text("layer 1")
            expect(again.get_by_label("Dataset")).to_have_value("digits-train")


def test_models_are_chosen_and_removed(browser: Browser, link: str) -> None:
    with opened(browser, link, THREE) as page:
        page.locator("details.models summary").click()
        page.get_by_role("group", name="Models").get_by_label("MAE").check()
        expect(page.locator("article")).to_have_count(4)
        page.locator("details.models summary").click()
        page.get_by_role("button", name="Remove CLIP").click()
        expect(page.locator("article")).to_have_count(3)
        expect(panel(page, "demo-clip")).to_have_count(0)


@pytest.mark.parametrize("width", [390, 1000, 2500])
def test_no_view_is_wider_than_the_window(browser: Browser, link: str, width: int) -> None:
    with opened(browser, link, viewport={"width": width, "height": 900}) as page:
        for number in range(1, 7):
            page.keyboard.press(str(number))
            page.wait_for_timeout(250)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (number, wide)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, link: str, root: Path, scheme: Any) -> None:
    axe = (root / "explorer" / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")
    with opened(browser, link, THREE, color_scheme=scheme) as page:
        page.wait_for_selector("article canvas")
        page.evaluate(axe)
        for number in range(1, 7):
            page.keyboard.press(str(number))
            page.wait_for_timeout(600)
            found = page.evaluate("axe.run()")
            faults = [
                (fault["id"], fault["nodes"][0]["html"][:200])
                for fault in found["violations"]
                if fault["impact"] in ("serious", "critical")
            ]
            assert faults == [], number


def test_names_that_would_break_out_of_the_page_are_shown_as_they_are(
    browser: Browser, served: Server
) -> None:
    with opened(browser, served.link, "tab=images") as page:
        page.on("dialog", lambda _: pytest.fail("a script of a name ran"))
        expect(page.get_by_role("option", name=IMAGES[0])).to_have_count(2)
        expect(page.locator(".caption").first).to_have_text(CLASSES[0])
        for number in range(1, 7):
            page.keyboard.press(str(number))
            page.wait_for_timeout(200)
        expect(page.locator(".legend.classes")).to_contain_text(CLASSES[0])
        assert page.locator("img[src=x]").count() == 0


def test_a_host_without_ranges_is_told(browser: Browser, made: Path) -> None:
    server = Server(Content(Results.of(made / "results", None, {"d": made / "images"})))
    with server.running() as link, browser.new_context() as context:
        page = context.new_page()
        page.route(
            "**/c.*",
            lambda route: route.continue_(
                headers={k: v for k, v in route.request.headers.items() if k != "range"}
            ),
        )
        page.goto(link)
        expect(page.locator("main")).to_contain_text("does not serve parts of files")


def test_a_store_that_reads_otherwise_than_python_is_not_shown(
    browser: Browser, made: Path
) -> None:
    class Other(Content):
        def read(self, path: str) -> Held:
            held = super().read(path)
            if path.startswith("details/"):
                text = held.part(0, held.size).decode()
                return Held(held.type, re.sub(r'"value":[^}]+', '"value":0.123', text).encode())
            return held

    server = Server(Other(Results.of(made / "results", None, {"d": made / "images"})))
    with server.running() as link, opened(browser, link) as page:
        expect(page.locator("main")).to_contain_text("where 0.123 is stored")
        expect(page.locator("article")).to_have_count(0)


def test_images_of_their_own_aspect_have_their_own_grids(
    browser: Browser, link: str, default: Path
) -> None:
    store = vitfeat.open(default / "features/davis/demo-dino.zarr")
    row = len(store.image_ids) - 1
    tokens = np.asarray(store.tokens(row, 3), dtype=np.float64)
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    middle = (tokens.shape[0] // 2, tokens.shape[1] // 2)
    wanted = unit @ unit[middle]
    hash = f"dataset=davis&image={row}&shown=demo-dino:3&beside=0"
    with opened(browser, link, hash) as page:
        canvas = panel(page, "demo-dino").locator(".map canvas").first
        canvas.wait_for()
        assert_drawn(canvas, wanted, wanted.min(), 1.0)


def test_memory_does_not_grow_with_every_image(browser: Browser, link: str) -> None:
    """No view keeps what it has shown; what was decoded is kept in a bounded number of bytes."""
    with opened(browser, link, f"{THREE}&dataset=digits-train&beside=0") as page:
        page.wait_for_selector("article canvas")
        session = page.context.new_cdp_session(page)
        session.send("HeapProfiler.enable")

        def nodes_after(steps: int) -> int:
            for _ in range(steps):
                page.keyboard.press("j")
                page.wait_for_timeout(10)
            page.wait_for_timeout(500)
            session.send("HeapProfiler.collectGarbage")
            return int(session.send("Memory.getDOMCounters")["nodes"])

        before = nodes_after(40)
        assert nodes_after(120) < before + 200


def test_regions_are_points_of_their_categories(browser: Browser, link: str, default: Path) -> None:
    with (default / "datasets/regions/coco.csv").open() as stream:
        names = [row["name"] for row in csv.DictReader(stream)]
    with opened(browser, link, "dataset=coco&tab=points&shown=demo-dino:5") as page:
        page.wait_for_selector("canvas[data-drawn]")
        page.get_by_role("combobox", name="Of", exact=True).select_option("regions")
        store = vitfeat.open(default / "features/coco/demo-dino.zarr")
        count = store["regions"].shape[0]
        page.wait_for_selector(f"canvas[data-drawn='{count}']")
        kept = {names[number] for number in store.region_numbers}
        legend = page.locator(".legend.classes li")
        assert sorted(legend.all_inner_texts()) == sorted(kept)
