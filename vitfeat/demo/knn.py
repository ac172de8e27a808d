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
    """Features at every block's output, before the final norm.

    Parameters
    ----------
    network
        Network of :func:`vitfeat.demo.network.build`.
    images
        Shape ``(n, 32, 32, 3)``, values 0..255.

    Returns
    -------
    dict
        ``"cls"``: the CLS token; ``"mean"``: the mean of the spatial tokens; a list over the
        blocks of arrays of shape ``(n, d)`` each.
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
    """20-nearest-neighbour accuracy by layer: cosine distance, train split as bank, test queries.

    The protocol of Wu et al. (2018) as DINO (Caron et al., 2021) uses it, with plain votes.

    Parameters
    ----------
    network
        Network of :func:`vitfeat.demo.network.build`.

    Returns
    -------
    dict
        ``"cls"`` and ``"mean"`` as in :func:`layer_features`: a list over the blocks of
        accuracies in 0..1.
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
