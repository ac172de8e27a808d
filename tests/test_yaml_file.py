"""Config files as YAML: what is odd in them is one line with the line's number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.workflow.harness import in_fork
from vitfeat.cli import main
from vitfeat.config.yaml_file import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_yaml, read_yaml
from vitfeat.errors import ConfigError

GOOD = "results: r\nmodels: [demo-dino]\n"


def _tenfold(levels: int, use: str = "[{}]") -> str:
    """Return aliases that stand for ten of the one before, as often as there are levels."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels + 1):
        again = use.format(", ".join([f"*a{level - 1}"] * 10))
        lines.append(f"a{level}: &a{level} {again}")
    return "\n".join(lines) + "\n"


ODD = {
    "anchors that explode": (_tenfold(30), "line 6: more than 200,000 values"),
    "merges that explode": (_tenfold(30, "{{<<: [{}]}}"), "more than 200,000 values"),
    "a list of itself": ("a: &a [*a]\n", "line 1: *a stands within itself"),
    "a mapping of itself": ("a: &a\n  b: *a\n", "line 2: *a stands within itself"),
    "a merge of itself": ("a: &a\n  <<: *a\n", "line 2: *a stands within itself"),
    "deep lists": ("a: " + "[" * 100_000, "line 1: nested deeper than 32 levels"),
    "deep mappings": ("a: " + "{a: " * 50_000, "line 1: nested deeper than 32 levels"),
    "deep blocks": ("a:\n" + " - " + "- " * 100_000 + "x", "line 2: nested deeper"),
    "an octal number": ("a: 010", "line 1: found 010, which YAML does not read as it looks"),
    "a number of base 60": ("a: 1:30", "line 1: found 1:30, which YAML does not read"),
    "a real of base 60": ("a: 1:30.5", "line 1: found 1:30.5, which YAML does not read"),
    "beyond 64 bits": (f"a: {2**63}", "a number beyond 64 bits"),
    "very many digits": ("a: " + "9" * 5000, "a number beyond 64 bits"),
    "a date": ("a: 2026-01-01", "of the kind 'timestamp'; put a text in quotes"),
    "no date": ("a: 2026-13-45", "of the kind 'timestamp'"),
    "bytes": ("a: !!binary AAAA", "of the kind 'binary'"),
    "a set": ("a: !!set {b}", "of the kind 'set'"),
    "an equals sign": ("a: =", "of the kind 'value'"),
    "an object": ("a: !!python/object/apply:os.system [x]", "of the kind 'python/object"),
    "a tag of its own": ("a: !b c", "of the kind '!b'"),
    "no number": ("a: !!int x", "'x' is not of its kind"),
    "an empty number": ("a: !!float ''", "'' is not of its kind"),
    "no truth value": ("a: !!bool x", "'x' is not of its kind"),
    "a text of a list": ("a: !!str [1]", "line 1: not YAML (expected a scalar node"),
    "a list as a key": ("? [a]\n: 1", "line 1: not YAML (found unhashable key)"),
    "no anchor": ("a: *b", "line 1: not YAML (found undefined alias"),
    "two documents": ("a: 1\n---\nb: 1\n", "not YAML (but found another document)"),
    "a control character": ("a: 'x\0'", "line 1: not YAML"),
    "an open quote": ("a: 1\nb: 'x", "not YAML (found unexpected end of stream)"),
    "a merge of a number": ("a: {<<: 1}", "not YAML (expected a mapping or list of mappings"),
    "a text": ("a", "no config of vitfeat: it is no mapping"),
    "nothing": ("", "no config of vitfeat: it is no mapping"),
    "code of yte": ("__use_yte__: true\n", "__use_yte__: Snakemake runs what stands under"),
    "definitions of yte": ("__definitions__: [import os]\n", "__definitions__: Snakemake runs"),
    "an expression": ("a:\n  b: ?open('x', 'w')\n", "a.b: found \"?open('x', 'w')\": Snakemake"),
    "an expression in a list": ("a: ['?1']", "a.0: found '?1': Snakemake can run"),
    "a condition": ("a:\n  ?if True:\n    b: 1\n", "a.?if True: Snakemake runs"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_one_line(tmp_path: Path, name: str) -> None:
    text, message = ODD[name]
    path = tmp_path / "config.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as info:
        read_yaml(path)
    assert str(info.value).startswith(f"{path}: ")
    assert message in str(info.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD + "# é\n", encoding)
    with pytest.raises(ConfigError, match=r"line \d: not UTF-8; save it in that encoding"):
        read_yaml(path)
    path.write_text(GOOD + "# é\r\n", "utf-8-sig")
    assert read_yaml(path) == {"results": "r", "models": ["demo-dino"]}


def test_large_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("#" * MAX_BYTES + "\n")
    with pytest.raises(ConfigError, match=r"config.yaml: larger than 1.0 MiB"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_within_the_bounds() -> None:
    nested = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert parse_yaml(f"a: {nested}") == yaml.safe_load(f"a: {nested}")
    many = "a: [" + "1, " * (MAX_VALUES - 10) + "]"
    assert len(parse_yaml(many)["a"]) == MAX_VALUES - 10


def test_plain_values_are_those_of_yaml() -> None:
    text = (
        "a: &a {b: 1, c: -0x10, d: 1_000, e: 0b11, f: 1.5e+3, g: .inf, h: yes, i: ~, j: 'no'}\n"
        "k: {<<: *a, b: 2}\nl: [*a, 0, +7, -9223372036854775808]\nm: |\n  x\n"
    )
    assert parse_yaml(text) == yaml.safe_load(text)


def test_the_commands_of_a_config_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "results: r\nmodels: [demo-dino]\n"
        "datasets: {digits: {layout: digits, split: test}}\n"
        "analyses: {sinks: {datasets: [digits]}}\n"
    )
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"{path}: nothing wrong with it; 1 model, 1 dataset, analyses: sinks\n"
    )
    path.write_text("__use_yte__: true\n" + path.read_text())
    for command in (
        ["check", path],
        ["fetch", "--configfile", path],
        ["doctor", "--configfile", path],
    ):
        main([str(word) for word in command])
        assert f"vitfeat: error: {path}: __use_yte__" in capsys.readouterr().err


def test_the_workflow_reads_its_config_so_first(tmp_path: Path) -> None:
    """Also where Snakemake's own reader takes the second of two keys, and eight for 010."""
    (tmp_path / "config.yaml").write_text("results: r\nmodels: [demo-dino]\nmodels: [demo-mae]\n")
    snakefile = Path(__file__).parents[1] / "Snakefile"
    for more in ([], ["--configfile", "config.yaml"]):
        done = in_fork(["-n", "-s", str(snakefile), *more], tmp_path, dict(os.environ))
        assert "config.yaml: line 3: the key 'models' stands there twice" in done.stderr
        assert "Traceback" not in done.stderr
