"""How well each layer's features tell the digits apart: k-nearest-neighbour accuracy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from timm.models.vision_transformer import VisionTransformer

from vitfeat.demo import digits, tokens
from vitfeat.demo.batches import to_tensor

NEIGHBOURS = 20


def layer_features(
    network: VisionTransformer, images: NDArray[np.uint8]
) -> dict[str, list[NDArray[np.float32]]]:
    """Return features at every block's output, before the final norm, of images of 0..255.

    Of ``cls`` (the CLS token) and ``mean`` (of the spatial tokens), an array (n, d) a block.
    """
    features: dict[str, list[NDArray[np.float32]]] = {"cls": [], "mean": []}
    with torch.inference_mode():
        x = tokens.with_cls(network, tokens.embed(network, to_tensor(images)))
        for block in network.blocks:
            x = block(x)
            features["cls"].append(x[:, 0].numpy())
            features["mean"].append(x[:, 1:].mean(dim=1).numpy())
    return features


def accuracy_by_layer(network: VisionTransformer) -> dict[str, list[float]]:
    """Return the 20-nearest-neighbour accuracy of each block, 0..1, of ``cls`` and of ``mean``.

    Cosine distance, train split as bank, test split as queries: the protocol of Wu et al. (2018) as
    DINO (Caron et al., 2021) uses it, with plain votes.
    """
    bank_images, bank_labels = digits.load("train")
    query_images, query_labels = digits.load("test")
    bank = layer_features(network, bank_images)
    queries = layer_features(network, query_images)
    accuracies: dict[str, list[float]] = {}
    for kind, layers in bank.items():
        accuracies[kind] = []
        for stored, asked in zip(layers, queries[kind], strict=True):
            classifier = KNeighborsClassifier(NEIGHBOURS, metric="cosine", algorithm="brute")
            classifier.fit(stored, bank_labels)
            accuracies[kind].append(round(float(classifier.score(asked, query_labels)), 4))
    return accuracies
