"""What the installed libraries know by name, read off their files: importing them takes seconds.

Planning asks here; what looks wrong here is asked of the library itself before anybody is told so.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Files of timm whose networks are no plain ViTs, none of them (docs/architectures.md).
_NO_PLAIN_VITS = """
    byoanet byobnet cait coat convit convmixer convnext cpubone crossvit csatv2 cspnet cspnext davit
    densenet dla dpn edgenext efficientformer efficientformer_v2 efficientnet efficientvim
    efficientvit_mit efficientvit_msra fasternet fastvit focalnet gcvit ghostnet hardcorenas hgnet
    hiera hieradet_sam2 hrnet iformer inception_next inception_resnet_v2 inception_v3 inception_v4
    lcnetv2 levit lowformer mambaout maxxvit metaformer mlp_mixer mobilenetv3 mobilenetv5 mobilevit
    mvitv2 nasnet nest nextvit nfnet pit pnasnet pvt_v2 rdnet regnet repghost repvit res2net resnest
    resnet resnetv2 rexnet selecsls senet sequencer shvit sknet starnet swiftformer swin_transformer
    swin_transformer_v2 swin_transformer_v2_cr tiny_vit tnt tresnet twins vgg visformer
    vision_transformer_sam volo vovnet xception xception_aligned xcit
"""
NO_PLAIN_VITS = frozenset(_NO_PLAIN_VITS.split())

# What timm takes out of the arguments before the network gets them.
_TIMMS_OWN = {"cache_dir", "exportable", "no_jit", "pretrained_strict", "scriptable", "use_naflex"}


def _folder(library: str, below: str) -> Path | None:
    spec = find_spec(library)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) / below if places else None


@cache
def _timm_source(module: str) -> str:
    folder = _folder("timm", "models")
    path = folder / f"{module}.py" if folder else None
    return path.read_text("utf-8") if path and path.is_file() else ""


@cache
def timm_modules() -> Mapping[str, str]:
    """Return every architecture of timm, old names included, with the file that it stands in."""
    folder = _folder("timm", "models")
    found = {}
    for path in sorted(folder.glob("*.py")) if folder else ():
        text = _timm_source(path.stem)
        for match in re.finditer(r"^@register_model\s*\ndef (\w+)\(", text, re.MULTILINE):
            found[match[1]] = path.stem
        for block in re.findall(r"register_model_deprecations\(__name__, \{(.*?)\}\)", text, re.S):
            found.update(dict.fromkeys(re.findall(r"'(\w+)':", block), path.stem))
    return found


def timm_tags(architecture: str) -> Mapping[str, bool]:
    """Return the tags of an architecture of timm, with whether weights are published for it.

    The tag of weights without one is ``""``.
    """
    text = _timm_source(timm_modules().get(architecture, ""))
    # Those of the one are made from those of the other that say so in their notes.
    name = architecture.replace("_clip_quickgelu_", "_clip_")
    found = {}
    start = rf"^    ['\"]{re.escape(name)}(?:\.([^'\"]+))?['\"]: (.*?)^(?:    ['\"]|\}})"
    while match := re.search(start, text, re.MULTILINE | re.S):
        settings = re.sub(r"#.*", "", match[2])
        published = re.search(r"(hf_hub_id|url|file)=['\"]\w", settings)
        if name == architecture or "quickgelu" in settings:
            found[(match[1] or "").strip("*")] = published is not None
        text = text[match.end(2) :]
    return found


def timm_arguments(architecture: str) -> frozenset[str] | None:
    """Return the arguments that an architecture of timm takes; None where they cannot be read."""
    text = _timm_source(timm_modules().get(architecture, ""))
    made = re.search(rf"^def {re.escape(architecture)}\(.*?\) -> (\w+):", text, re.MULTILINE)
    tree = ast.parse(text) if made else None
    for node in tree.body if tree else ():
        if not isinstance(node, ast.ClassDef) or not made or node.name != made[1]:
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                own = method.args
                if own.kwarg is None and own.vararg is None:
                    names = {a.arg for a in (*own.args, *own.kwonlyargs)} - {"self"}
                    return frozenset(names | _TIMMS_OWN)
    return None


@cache
def open_clip_configs() -> Mapping[str, Path]:
    """Return every architecture of open_clip, with the file that describes it."""
    folder = _folder("open_clip", "model_configs")
    return {path.stem: path for path in sorted(folder.glob("*.json"))} if folder else {}


def open_clip_vision(name: str) -> Mapping[str, Any]:
    """Return the settings of the image tower of an architecture of open_clip."""
    vision: Mapping[str, Any] = json.loads(open_clip_configs()[name].read_text("utf-8"))[
        "vision_cfg"
    ]
    return vision


@cache
def open_clip_tags() -> Mapping[str, frozenset[str]]:
    """Return the tags of published weights of open_clip, by architecture."""
    path = _folder("open_clip", "pretrained.py")
    text = path.read_text("utf-8") if path and path.is_file() else ""
    tables: dict[str, ast.expr] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            tables[node.targets[0].id] = node.value
    found = {}
    whole = tables.get("_PRETRAINED")
    pairs = zip(whole.keys, whole.values, strict=True) if isinstance(whole, ast.Dict) else ()
    for key, value in pairs:
        table = tables.get(value.id) if isinstance(value, ast.Name) else value
        if isinstance(key, ast.Constant) and isinstance(table, ast.Call):
            tags = {word.arg: ast.unparse(word.value) for word in table.keywords if word.arg}
            quick = {tag for tag, text in tags.items() if "quick_gelu=True" in text}
            name = str(key.value)
            found[name] = frozenset(tags)
            found[f"{name}-quickgelu"] = frozenset(quick)
    return found
