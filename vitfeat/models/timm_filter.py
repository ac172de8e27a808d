"""The filter that timm loads an architecture's published weights through.

timm's builders hand it to one function and keep it nowhere; several architectures of one class have
filters of their own (FlexiViT's positions, MobileCLIP's names). So it is noted while they build.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Filter = Callable[..., Any]

_BUILDER = "build_model_with_cfg"
_lock = threading.Lock()


@contextmanager
def noted_filters() -> Iterator[list[Filter | None]]:
    """Give a list that gets the filter of every timm model that is built inside, in their order.

    A network that a model builds as a part of itself is none of them. Models that other threads
    build at the time wait for nobody, but may be noted too.
    """
    found: list[Filter | None] = []
    depth = 0
    with _lock:
        modules = [
            m
            for name, m in sys.modules.copy().items()
            if name.startswith("timm.models.") and hasattr(m, _BUILDER)
        ]
        build = getattr(modules[0], _BUILDER) if modules else None

        def note(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            if depth == 0:
                found.append(kwargs.get("pretrained_filter_fn"))
            depth += 1
            try:
                return build(*args, **kwargs) if build else None
            finally:
                depth -= 1

        try:
            for module in modules:
                setattr(module, _BUILDER, note)
            yield found
        finally:
            for module in modules:
                setattr(module, _BUILDER, build)


def resampling(adapt: Filter | None) -> Mapping[str, Any]:
    """Return how a filter resamples positions, where that is other than timm's way.

    ``interpolation``, ``antialias`` and ``align_corners``, as its architecture binds them.
    """
    bound = adapt.keywords if isinstance(adapt, functools.partial) else {}
    return {k: v for k, v in bound.items() if k in ("interpolation", "antialias", "align_corners")}
