"""Taps: what a forward pass exposes, through hooks that belong to a context manager.

A tap hands each tensor on as soon as it exists, so that nobody has to hold the attention of all
blocks at once. How attention is read depends on its module: PyTorch's own is asked for its weights,
calls of ``scaled_dot_product_attention`` are answered by its definition, as the softmax of a fused
kernel exists nowhere, and
attention that is computed step by step is read where its dropout would see it. A block may attend
in several modules side by side; their heads are then counted in one row. Leaving the context
removes every hook and puts every setting back, also after an exception.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.blocks import Site, attention_parts, attention_switch, find_branches
from vitfeat.store.arrays import RESIDUAL_TAPS

#: What hooks can read: the block's output tokens, the attention after its softmax, the block's
#: input, and what its attention and its MLP add.
RAW_TAPS = ("tokens", "attention", *RESIDUAL_TAPS)

#: What the user can do about a model that a tap is not made for.
LEAVE_OUT_ATTENTION = "leave out the taps attention, attention_summary and attention_mean"
LEAVE_OUT_RESIDUAL = (
    f"leave out the taps {', '.join(RESIDUAL_TAPS)} and residual_norms (the analysis residual), or "
    "the model"
)


# Attention matrices that are alive at once while attention is tapped: on a CPU what a core's cache
# holds, on a GPU what is small beside its memory.
_CPU_BYTES = 2**20
_GPU_BYTES = 2**28


class Sink(Protocol):
    """Receives tapped tensors.

    Called with the raw tap, the position among the asked layers, the first image that the tensor
    belongs to, and the tensor on the model's device: ``attention`` (image, head, query, key), any
    other (image, token, channel). The tensor must be used or copied at once.
    """

    def __call__(self, tap: str, position: int, start: int, tensor: Tensor, /) -> None:
        """Take one tensor."""


class _Pass(threading.local):
    """The state of one forward pass; every thread has its own."""

    sink: Sink | None = None
    seen: Counter[tuple[str, int]] | None = None
    # The attention module that the pass is inside of, and whether it has attended already.
    site: Site | None = None
    attended: bool = False

    def __init__(self) -> None:
        # Of a block of several modules, by module but the last: pieces of its attention.
        self.held: list[list[Tensor]] = []
        # Of a branch of several modules: what those give that have run.
        self.added: list[Tensor] = []


class Taps:
    """Hooks on a backbone for the time of a ``with`` block: some of :data:`RAW_TAPS`, some layers.

    Several threads may call :meth:`run` at once.

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
                if self._wanted & {"attn_branch", "mlp_branch"}:
                    self._hook_branches(block, position, layer)
                self._hook_tokens(block, position)
                if "attention" in self._wanted:
                    self._hook_attention(block, position, layer)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            self._undo.pop()()

    @torch.inference_mode()
    def run(self, images: Tensor, sink: Sink) -> None:
        """Push images through the model once, handing every tapped tensor to `sink`.

        Images are (n, 3, height, width) float32, normalised, on the model's device. The sink is
        called for every tap and layer, in the order of the pass: of a layer ``block_input``,
        ``attention``, ``attn_branch``, ``mlp_branch``, ``tokens``; for ``attention`` possibly
        several times, with some of the images each.
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
            state.held, state.added = [], []
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

    @property
    def site(self) -> Site | None:
        """The tapped attention module that this thread is inside of, if any."""
        return self._pass.site

    def begin_attention(self, site: Site) -> None:
        """Take note that a module attends, which it may do once: a second one is no attention."""
        if self._pass.attended:
            raise ModelError(
                f"model {self._backbone.entry.id}: the attention of layer "
                f"{self._layers[site.position]} takes more than one softmax; {LEAVE_OUT_ATTENTION}"
            )
        self._pass.attended = True

    def emit_attention(self, site: Site, start: int, weights: Tensor) -> None:
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
            (model.heads, model.n_tokens, model.n_tokens)
            if tap == "attention"
            else (model.n_tokens, model.width)
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
        def before(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._emit_tokens("block_input", position, args[0])

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            tokens = output[0] if isinstance(output, tuple) else output
            self._emit_tokens("tokens", position, tokens)

        if "block_input" in self._wanted:
            self._add(block.register_forward_pre_hook(before))
        if "tokens" in self._wanted:
            self._add(block.register_forward_hook(after))

    def _hook_branches(self, block: nn.Module, position: int, layer: int) -> None:
        branches = find_branches(block)
        if branches is None:
            raise ModelError(
                f"model {self._backbone.entry.id}: what attention alone adds in layer {layer} "
                f"({type(block).__name__}) is nowhere to be read; {LEAVE_OUT_RESIDUAL}"
            )
        for tap, ends in (("attn_branch", branches.attn), ("mlp_branch", branches.mlp)):
            if tap in self._wanted:
                for number, end in enumerate(ends):
                    self._hook_end(end, tap, position, number, len(ends))

    def _hook_end(self, end: nn.Module, tap: str, position: int, number: int, count: int) -> None:
        def after(_module: nn.Module, _args: Any, output: Tensor) -> None:
            state = self._pass
            # Modules side by side run one after the other; added up as the block does.
            state.added = [*state.added, output] if number else [output]
            if number == count - 1:
                added, state.added = state.added, []
                self._emit_tokens(tap, position, torch.stack(added).sum(0) if number else output)

        self._add(end.register_forward_hook(after))

    def _emit_tokens(self, tap: str, position: int, tokens: Tensor) -> None:
        first = self._backbone.batch_first
        self.emit(tap, position, 0, tokens if first else tokens.transpose(0, 1))

    def _hook_attention(self, block: nn.Module, position: int, layer: int) -> None:
        parts = attention_parts(block)
        if not parts:
            raise self._untappable(layer, block)
        for number, part in enumerate(parts):
            self._hook_part(part, Site(position, number, len(parts)), layer)

    def _hook_part(self, part: nn.Module, site: Site, layer: int) -> None:
        switch = attention_switch(part)
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
            f"({type(module).__name__}) cannot be tapped{reason}; {LEAVE_OUT_ATTENTION}"
        )


class _ExplicitAttention(TorchFunctionMode):
    """Answers ``scaled_dot_product_attention`` by its definition inside tapped blocks.

    It is computed a few images at a time, which on a CPU keeps the matrices in the cache.
    """

    def __init__(self, taps: Taps) -> None:
        super().__init__()
        self._taps = taps

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            site = self._taps.site
            if site is not None:
                return self._attend(site, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        site: Site,
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
    taps: Iterable[str] = ("tokens", "attention"),
    layers: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Return the tapped tensors of a few images, stacked over layers: for looking and for tests.

    Of images (n, 3, height, width): ``attention`` (n, layer, head, query, key), any other (n,
    layer, token, channel).
    """
    depth = backbone.depth if layers is None else len(layers)
    parts: dict[str, list[list[Tensor]]] = {tap: [[] for _ in range(depth)] for tap in taps}

    def keep(tap: str, position: int, _start: int, tensor: Tensor) -> None:
        parts[tap][position].append(tensor.clone())

    with Taps(backbone, parts, layers) as hooks:
        hooks.run(images, keep)
    return {tap: torch.stack([torch.cat(p) for p in each], 1) for tap, each in parts.items()}
