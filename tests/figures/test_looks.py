from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from matplotlib.artist import Artist
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from tests.figures.made_tables import DEMO, PAPER, models
from vitfeat.figures import style
from vitfeat.figures.looks import (
    Look,
    family_title,
    group_title,
    looks,
    point_handles,
    reference_look,
    short_size,
    size_groups,
    size_handles,
)
from vitfeat.figures.models import Model


def test_families_have_colours_and_sizes_lines_and_markers() -> None:
    found = looks(models(PAPER))
    for made in PAPER:
        assert found[made.model.id].colour == style.family_colour(made.model.family).lower()
    lines = {size: found[f"supervised-{size}"].line for size in ("S/16", "B/16", "L/16")}
    assert len(set(map(str, lines.values()))) == 3
    assert lines["B/16"] == "solid"
    markers = [found[f"supervised-{size}"].marker for size in ("B/32", "B/16", "B/8")]
    assert markers == ["s", "o", "^"]
    assert found["supervised-B/16"].filled
    assert not found["supervised-B/16@384"].filled
    points = [found[name].points for name in ("dino-S/16", "mae-B/16", "mae-L/16", "mae-H/14")]
    assert points == sorted(points)


def test_no_two_models_look_alike_nor_as_a_baseline() -> None:
    for given in (models(PAPER), models(DEMO)):
        found = looks(given)
        for a, b in combinations([*found.values(), reference_look()], 2):
            assert a != b


def test_only_baselines_are_dotted() -> None:
    """Dots are as long as the line is wide; the longest dash of any size is over twice that."""
    assert max(style.BASELINE_LINE[1]) < 2
    dashes = [max(line[1][::2]) for line in style.SIZE_LINES.values() if line != "solid"]
    assert min(dashes) > 2
    assert len(set(map(str, style.SIZE_LINES.values()))) == len(style.SIZE_LINES)


def test_lines_of_a_single_size_are_solid() -> None:
    small = [Model("a", "A", "dino", "S/16@224"), Model("b", "B", "random", "S/14@224")]
    assert {look.line for look in looks(small).values()} == {"solid"}
    large = Model("c", "C", "mae", "B/16@224")
    assert looks([*small, large])["a"].line == style.SIZE_LINES["S"]


def test_models_of_one_family_and_size_are_tints() -> None:
    given = [Model(name, name, "dino", "B/16@224") for name in "abc"]
    found = looks(given)
    light = [sum(to_rgb(found[name].colour)) for name in "abc"]
    assert found["a"].colour == style.family_colour("dino").lower()
    assert light[0] < light[1] < light[2] < 2.7
    assert {found[name].line for name in "abc"} == {"solid"}
    # A single one of another size keeps the family's colour.
    other = looks([*given, Model("d", "d", "dino", "B/8@224")])
    assert other["d"].colour == found["a"].colour


def test_a_model_of_unknown_size_has_a_look() -> None:
    (look,) = looks([Model("a", "A", "mine")]).values()
    assert (look.line, look.marker, look.filled) == ("solid", "o", True)
    assert style.size_marker("B/7@224")[0] == style.OTHER_MARKER


def test_tints_go_to_white() -> None:
    assert style.lighter("#000000", 0) == "#000000"
    assert style.lighter("#000000", 1) == "#ffffff"
    assert style.lighter("#ff0000", 0.5) == "#ff8080"


def named(handles: Sequence[Artist]) -> list[str]:
    return [str(handle.get_label()) for handle in handles]


def test_a_legend_says_what_lines_and_markers_mean() -> None:
    handles = size_handles(models(PAPER))
    lines = ["ViT-S", "ViT-B", "ViT-L", "ViT-H"]
    markers = ["patch 32", "patch 16", "patch 8", "patch 14"]
    assert named(handles) == [*lines, *markers, "input over 256 pixels"]
    found = looks(models(PAPER))
    by_name = dict(zip(named(handles), handles, strict=True))
    for size, model in (("S", "dino-S/16"), ("B", "mae-B/16"), ("L", "mae-L/16")):
        assert by_name[f"ViT-{size}"].get_linestyle() == style_of(found[model])
        assert by_name[f"ViT-{size}"].get_marker() in ("", "None")
    for patch in (32, 16, 8):
        assert by_name[f"patch {patch}"].get_marker() == found[f"supervised-B/{patch}"].marker
        assert by_name[f"patch {patch}"].get_linestyle() == "None"
    assert by_name["input over 256 pixels"].get_markerfacecolor() == "white"


def style_of(look: Look) -> str:
    return str(Line2D([], [], **look.drawn()).get_linestyle())


def test_what_does_not_differ_is_in_no_legend() -> None:
    assert size_handles([Model("a", "A", "mine")]) == []
    assert size_handles(models(DEMO)) == []
    two = [Model("a", "A", "dino", "S/16@224"), Model("b", "B", "mae", "S/14@224")]
    assert named(size_handles(two)) == ["patch 16", "patch 14"]
    two = [Model("a", "A", "dino", "S/16@224"), Model("b", "B", "mae", "B/16@224")]
    assert named(size_handles(two)) == ["ViT-S", "ViT-B"]


def test_points_have_a_legend_of_their_sizes() -> None:
    assert " ".join(named(point_handles(models(PAPER)))) == (
        "S/32 S/16 S/8 B/32 B/32@384 B/16 B/16@384 B/8 L/32@384 L/16 L/16@384 L/14 L/14@336 H/14"
    )
    assert short_size("B/16@224") == "B/16"
    assert short_size("B/16@384") == "B/16@384"
    assert point_handles(models(DEMO)) == []
    found = looks(models(PAPER))["mae-H/14"]
    (last,) = point_handles(models(PAPER))[-1:]
    assert (last.get_marker(), last.get_markersize()) == (found.marker, found.points)


def test_models_are_grouped_by_network() -> None:
    depths = {made.model.id: made.depth for made in PAPER}
    groups = size_groups(models(PAPER), depths)
    # A single ViT-H joins the ViT-L.
    assert [group_title(group) for group in groups] == ["ViT-S", "ViT-B", "ViT-L, ViT-H"]
    assert [len(group) for group in groups] == [5, 13, 8]
    assert sorted(m.id for group in groups for m in group) == sorted(depths)
    order = [m.id for m in models(PAPER)]
    for group in groups:
        assert [m.id for m in group] == [name for name in order if name in {m.id for m in group}]


def test_much_deeper_networks_keep_a_column() -> None:
    given = [
        Model("a", "A", "dino", "B/16@224"),
        Model("b", "B", "mae", "B/16@224"),
        Model("h", "H", "ijepa", "H/14@224"),
    ]
    far, near = {"a": 12, "b": 12, "h": 32}, {"a": 12, "b": 12, "h": 18}
    assert [len(group) for group in size_groups(given, far)] == [2, 1]
    assert [len(group) for group in size_groups(given, near)] == [3]
    assert [len(group) for group in size_groups(models(DEMO), {})] == [7]


def test_families_are_named_after_their_labels() -> None:
    by_family = {
        family: [m for m in models(PAPER) if m.family == family] for family in ("moco", "clip")
    }
    assert family_title(by_family["moco"]) == "MoCo-v3"
    assert family_title(by_family["clip"]) == "CLIP"
    assert family_title([Model("a", "DINO", "dino", "6x64/4@32")]) == "DINO"
    assert family_title([Model("a", "Mine", "x"), Model("b", "Yours", "x")]) == "x"
