"""Config files, read from YAML such that nobody is surprised: no code, no explosions, no guesses.

YAML of the few kinds that a config needs: mappings, lists, texts, numbers, truth values, null. What
the YAML of 2005 reads otherwise than it looks is refused (``010`` is 8, ``1:30`` is 90), and so is
what Snakemake would run as Python.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from vitfeat.errors import ConfigError
from vitfeat.text import size

MAX_BYTES = 2**20
"""Of a config; those of vitfeat have some thousands."""

MAX_VALUES = 200_000
"""With each alias as many as what it stands for."""

MAX_DEPTH = 32

#: Keys by which Snakemake's reader of YAML (yte) runs what stands in a file.
RUN = frozenset({"__use_yte__", "__definitions__", "__variables__"})

# libyaml's parser, where PyYAML was built with it, is ten times as fast.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("map", "seq", "str", "int", "float", "bool", "null", "merge")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file's mapping; what is wrong is said in one line, with file and line."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {size(MAX_BYTES)}, too much for a config")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8; save it in that encoding") from None
    try:
        found = parse_yaml(text)
        if not isinstance(found, dict):
            raise ConfigError("no config of vitfeat: it is no mapping")
        _check_plain(found, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return found


def parse_yaml(text: str) -> Any:
    """Read a text of YAML."""
    try:
        _check_size(text)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{where}not YAML ({error.problem or error.context})") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"line {line}: not YAML ({error.reason})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML ({error})") from None


def _check_size(text: str) -> None:
    """Refuse what is nested deeply, holds itself, or becomes much more by its aliases."""
    sizes: dict[str, int | None] = {}  # of what has an anchor; None until it has ended
    open_nodes: list[tuple[str | None, int]] = []  # its anchor, and how much stood before it
    total = 0
    for event in yaml.parse(text, _Base):
        line = event.start_mark.line + 1  # type: ignore[union-attr]
        if isinstance(event, yaml.AliasEvent):
            # Of an anchor that is not there the loader tells.
            of_alias = sizes.get(str(event.anchor), 1)
            if of_alias is None:
                raise ConfigError(f"line {line}: *{event.anchor} stands within itself")
            total += of_alias
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
            if event.anchor:
                sizes[event.anchor] = None
            if len(open_nodes) > MAX_DEPTH:
                raise ConfigError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > MAX_VALUES:
            raise ConfigError(
                f"line {line}: more than {MAX_VALUES:,} values, those of aliases counted"
            )


def _check_plain(value: Any, where: str) -> None:
    """Refuse what Snakemake would run as Python, had its reader been asked to."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in RUN or (isinstance(key, str) and key.startswith("?")):
                raise ConfigError(
                    f"{where}{key}: Snakemake runs what stands under such a key as Python; remove "
                    "it, and write the values themselves"
                )
            _check_plain(below, f"{where}{key}.")
    elif isinstance(value, list):
        for number, below in enumerate(value):
            _check_plain(below, f"{where}{number}.")
    elif isinstance(value, str) and value.startswith("?"):
        raise ConfigError(
            f"{where.rstrip('.')}: found {value[:80]!r}: Snakemake can run what begins with '?' as "
            "Python; write the value itself"
        )


class _Loader(_Base):  # type: ignore[misc]
    """Makes plain values, and refuses those that read otherwise than they look."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in _TAGS:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            raise _fault(node, f"a value of the kind {kind!r}; put a text in quotes")
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise _fault(node, f"{str(node.value)[:80]!r} is not of its kind") from None


def _number(loader: Any, node: yaml.ScalarNode) -> int:
    """Read a whole number that is what it looks like, and fits into 64 bits."""
    text = node.value
    plain = text.lstrip("+-").replace("_", "")
    if re.fullmatch(r"0\d+|.*:.*", plain):
        raise _fault(node, f"{text}, which YAML does not read as it looks; put it in quotes")
    if len(plain) > 66 or not -(2**63) <= (value := loader.construct_yaml_int(node)) < 2**63:
        raise _fault(node, f"{text[:20]}..., a number beyond 64 bits")
    return int(value)


def _real(loader: Any, node: yaml.ScalarNode) -> float:
    """Read a number that is what it looks like."""
    if ":" in node.value:
        raise _fault(node, f"{node.value}, which YAML does not read as it looks; put it in quotes")
    return float(loader.construct_yaml_float(node))


def _fault(node: yaml.Node, found: str) -> ConfigError:
    return ConfigError(f"line {node.start_mark.line + 1}: found {found}")


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _real)
