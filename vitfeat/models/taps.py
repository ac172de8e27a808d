"""Taps: what a forward pass exposes, through hooks that belong to a context manager.

A tap hands each tensor on as soon as it exists, so that nobody has to hold the attention of all
blocks at once. The softmax of a fused kernel exists nowhere; so while attention is tapped, the call
``scaled_dot_product_attention`` inside a block is answered by its definition, computed a few images
at a time, which on a CPU keeps the matrices in the cache. PyTorch's own attention module is asked
for its weights, and attention that is computed step by step is read where its dropout would see it.
A block may attend in several modules side by side; their heads are then counted in one row. Leaving
the context removes every hook and puts every setting back, also after an exception.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone

#: What hooks can read: the block's output tokens, and the attention after its softmax.
RAW_TAPS = ("tokens", "attention")

# Attention matrices that are alive at once while attention is tapped: on a CPU what a core's cache
# holds, on a GPU what is small beside its memory.
_CPU_BYTES = 2**20
_GPU_BYTES = 2**28


class Sink(Protocol):
    """Receives tapped tensors.

    Called with the raw tap, the position among the asked layers, the first image that the tensor
    belongs to, and the tensor on the model's device: ``tokens`` (image, token, channel) or
    ``attention`` (image, head, query, key). The tensor must be used or copied at once.
    """

    def __call__(self, tap: str, position: int, start: int, tensor: Tensor, /) -> None:
        """Take one tensor."""


def attention_parts(block: nn.Module) -> list[nn.Module]:
    """Return the modules that a block attends in, in the order in which their heads are counted.

    One module; or several whose outputs are added (`Touvron et al. 2022
    <https://arxiv.org/abs/2203.09795>`_); or the block itself, where attention and MLP share their
    projections (`Dehghani et al. 2023 <https://arxiv.org/abs/2302.05442>`_). None is known of any
    other block.
    """
    single = getattr(block, "attn", None)
    if isinstance(single, nn.Module):
        return [single]
    branches = getattr(block, "attns", None)
    if isinstance(branches, nn.ModuleList):
        found = [getattr(branch, "attn", None) for branch in branches]
        return [part for part in found if isinstance(part, nn.Module)]
    return [block] if _switch(block) else []


def _switch(part: nn.Module) -> str | None:
    """Return the name of the setting by which a module asks PyTorch for attention, if it has one.

    timm and open_clip name it differently.
    """
    return next((name for name in ("fused_attn", "use_fsdpa") if hasattr(part, name)), None)


@dataclass(frozen=True)
class _Site:
    """One attention module of a tapped block: module `part` of `parts`."""

    position: int
    part: int = 0
    parts: int = 1


class _Pass(threading.local):
    """The state of one forward pass; every thread has its own."""

    sink: Sink | None = None
    seen: Counter[tuple[str, int]] | None = None
    # The attention module that the pass is inside of, and whether it has attended already.
    site: _Site | None = None
    attended: bool = False

    def __init__(self) -> None:
        # Of a block of several modules, by module but the last: pieces of its attention.
        self.held: list[list[Tensor]] = []


class Taps:
    """Hooks on a backbone for the time of a ``with`` block.

    Several threads may call :meth:`run` at once.

    Parameters
    ----------
    backbone
        The model.
    wanted
        Raw taps, a subset of :data:`RAW_TAPS`.
    layers
        Layers to read, counted from 0; all if not given.

    Examples
    --------
    >>> with Taps(backbone, ("tokens",)) as taps:  # doctest: +SKIP
    ...     taps.run(images, lambda tap, position, start, tensor: ...)
    """

    def __init__(
        self, backbone: Backbone, wanted: Iterable[str], layers: Sequence[int] | None = None
    ) -> None:
        self._backbone = backbone
        self._wanted = frozenset(wanted)
        if unknown := self._wanted - set(RAW_TAPS):
            raise ValueError(f"unknown raw taps: {sorted(unknown)}")
        self._layers = list(range(backbone.depth)) if layers is None else list(layers)
        self._undo: list[Callable[[], None]] = []
        self._pass = _Pass()

    def __enter__(self) -> Taps:
        try:
            for position, layer in enumerate(self._layers):
                block = self._backbone.blocks[layer]
                if "tokens" in self._wanted:
                    self._hook_tokens(block, position)
                if "attention" in self._wanted:
                    self._hook_attention(block, position, layer)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        while self._undo:
            self._undo.pop()()

    @torch.inference_mode()
    def run(self, images: Tensor, sink: Sink) -> None:
        """Push images through the model once, handing every tapped tensor to `sink`.

        Parameters
        ----------
        images
            (n, 3, height, width) float32, normalised, on the model's device.
        sink
            Called for every tap and layer, in the order of the layers; for ``attention`` possibly
            several times, with some of the images each.

        Raises
        ------
        ModelError
            When a layer gave not exactly one tensor an image, or one of another shape than the
            model's.
        """
        state = self._pass
        state.sink, state.seen = sink, Counter()
        try:
            if "attention" in self._wanted:
                with _ExplicitAttention(self):
                    self._backbone.forward(images)
            else:
                self._backbone.forward(images)
            seen = state.seen
        finally:
            state.sink = state.seen = state.site = None
            state.held = []
        for tap in sorted(self._wanted):
            wrong = {
                self._layers[p]: seen[tap, p]
                for p in range(len(self._layers))
                if seen[tap, p] != len(images)
            }
            if wrong:
                raise ModelError(
                    f"model {self._backbone.entry.id}: the tap {tap} should have been read once an "
                    f"image in each of {len(self._layers)} layers; of {len(images)} images these "
                    f"layers were read for: {wrong}"
                )

    def tapped_site(self) -> _Site | None:
        """Return the tapped attention module that this thread is inside of, if any."""
        return self._pass.site

    def begin_attention(self, site: _Site) -> None:
        """Take note that a module attends, which it may do once.

        Raises
        ------
        ModelError
            When it does so again: no softmax of it is its attention.
        """
        if self._pass.attended:
            raise ModelError(
                f"model {self._backbone.entry.id}: the attention of layer "
                f"{self._layers[site.position]} takes more than one softmax; leave out the taps "
                "attention and attention_summary"
            )
        self._pass.attended = True

    def emit_attention(self, site: _Site, start: int, weights: Tensor) -> None:
        """Hand on (image, head, query, key) of one module, as soon as its whole block's is there.

        Modules of a block run one after the other; they see the same images, but maybe not in the
        same pieces.
        """
        if site.parts > 1:
            state = self._pass
            if site.part == start == 0:
                state.held = [[] for _ in range(site.parts - 1)]
            if site.part < site.parts - 1:
                state.held[site.part].append(weights)
                return
            stop = start + len(weights)
            weights = torch.cat([*(torch.cat(p)[start:stop] for p in state.held), weights], 1)
        self.emit("attention", site.position, start, weights)

    def emit(self, tap: str, position: int, start: int, tensor: Tensor) -> None:
        """Check a tensor's shape and hand it to the sink of this thread's pass."""
        state, model = self._pass, self._backbone
        if state.sink is None or state.seen is None:
            return
        expected = (
            (model.n_tokens, model.width)
            if tap == "tokens"
            else (model.heads, model.n_tokens, model.n_tokens)
        )
        if tuple(tensor.shape[1:]) != expected:
            raise ModelError(
                f"model {model.entry.id}: the tap {tap} of layer {self._layers[position]} has "
                f"shape {tuple(tensor.shape)}, expected (images, "
                f"{', '.join(map(str, expected))})"
            )
        state.seen[tap, position] += len(tensor)
        state.sink(tap, position, start, tensor)

    def _add(self, handle: RemovableHandle) -> None:
        self._undo.append(handle.remove)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, before))

    def _hook_tokens(self, block: nn.Module, position: int) -> None:
        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            tokens = output[0] if isinstance(output, tuple) else output
            first = self._backbone.batch_first
            self.emit("tokens", position, 0, tokens if first else tokens.transpose(0, 1))

        self._add(block.register_forward_hook(after))

    def _hook_attention(self, block: nn.Module, position: int, layer: int) -> None:
        parts = attention_parts(block)
        if not parts:
            raise self._untappable(layer, block)
        for number, part in enumerate(parts):
            self._hook_part(part, _Site(position, number, len(parts)), layer)

    def _hook_part(self, part: nn.Module, site: _Site, layer: int) -> None:
        switch = _switch(part)
        if hasattr(part, "lambda_init"):  # timm's differential attention
            raise self._untappable(
                layer, part, ": it is a difference of two softmaxes, whose rows do not sum to 1"
            )
        if isinstance(part, nn.MultiheadAttention):
            # PyTorch's module returns the weights when asked to; its callers here ask not to.
            def ask(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
                return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

            def read(_module: nn.Module, _args: Any, output: tuple[Tensor, Tensor]) -> None:
                self.emit_attention(site, 0, output[1])

            self._add(part.register_forward_pre_hook(ask, with_kwargs=True))
            self._add(part.register_forward_hook(read))
        elif switch is not None:

            def enter(_module: nn.Module, _args: Any) -> None:
                self._pass.site, self._pass.attended = site, False

            def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
                self._pass.site = None

            self._set(part, switch, True)
            self._add(part.register_forward_pre_hook(enter))
            self._add(part.register_forward_hook(leave))
        elif isinstance(drop := getattr(part, "attn_drop", None), nn.Module):

            def before(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
                sums = args[0].float().sum(-1)
                # Some mix heads behind the softmax. 8 bits of a half precision may be missing.
                if not torch.allclose(sums, torch.ones_like(sums), atol=2e-2):
                    raise self._untappable(layer, part, ": its rows do not sum to 1")
                self.emit_attention(site, 0, args[0])

            self._add(drop.register_forward_pre_hook(before))
        else:
            raise self._untappable(layer, part)

    def _untappable(self, layer: int, module: nn.Module, reason: str = "") -> ModelError:
        return ModelError(
            f"model {self._backbone.entry.id}: the attention of layer {layer} "
            f"({type(module).__name__}) cannot be tapped{reason}; leave out the taps attention and "
            "attention_summary"
        )


class _ExplicitAttention(TorchFunctionMode):
    """Answers ``scaled_dot_product_attention`` by its definition inside tapped blocks."""

    def __init__(self, taps: Taps) -> None:
        super().__init__()
        self._taps = taps

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            site = self._taps.tapped_site()
            if site is not None:
                return self._attend(site, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        site: _Site,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        self._taps.begin_attention(site)
        if is_causal:
            raise ModelError("causal attention cannot be tapped: vitfeat is for image encoders")
        if enable_gqa:  # neighbouring queries share a key and a value
            group = query.shape[1] // key.shape[1]
            key, value = (t.repeat_interleave(group, 1) for t in (key, value))
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        per_image = query.shape[1] * query.shape[2] * key.shape[2] * 4
        budget = _CPU_BYTES if query.device.type == "cpu" else _GPU_BYTES
        step = max(1, budget // per_image)
        output: list[Tensor] = []
        for start in range(0, len(query), step):
            rows = slice(start, start + step)
            # Summed in float32 whatever autocast says, as fused kernels do: logits come to
            # hundreds, where bfloat16 counts in steps of 2.
            with torch.autocast(query.device.type, enabled=False):
                weights = (query[rows].float() * scale) @ key[rows].float().transpose(-2, -1)
            if attn_mask is not None:
                mask = attn_mask[rows] if attn_mask.ndim == 4 and len(attn_mask) > 1 else attn_mask
                if mask.dtype == torch.bool:
                    weights = weights.masked_fill(~mask, -math.inf)
                else:
                    weights = weights + mask
            weights = weights.softmax(-1)
            self._taps.emit_attention(site, start, weights)
            output.append(weights.to(value.dtype) @ value[rows])
        return output[0] if len(output) == 1 else torch.cat(output)


def collect(
    backbone: Backbone,
    images: Tensor,
    taps: Iterable[str] = RAW_TAPS,
    layers: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Return the tapped tensors of a few images, stacked over layers: for looking and for tests.

    Parameters
    ----------
    backbone
        The model.
    images
        (n, 3, height, width) float32, normalised, on the model's device.
    taps
        Raw taps.
    layers
        Layers to read, counted from 0; all if not given.

    Returns
    -------
    dict
        ``tokens`` (n, layer, token, channel), ``attention`` (n, layer, head, query, key).
    """
    depth = backbone.depth if layers is None else len(layers)
    parts: dict[str, list[list[Tensor]]] = {tap: [[] for _ in range(depth)] for tap in taps}

    def keep(tap: str, position: int, _start: int, tensor: Tensor) -> None:
        parts[tap][position].append(tensor.clone())

    with Taps(backbone, parts, layers) as hooks:
        hooks.run(images, keep)
    return {tap: torch.stack([torch.cat(p) for p in found], 1) for tap, found in parts.items()}
