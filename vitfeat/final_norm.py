"""The norm that a ViT applies behind its last block, which stored features are without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FinalNorm:
    r"""A norm over channels.

    ``layer`` (Ba et al. 2016): :math:`\gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta` with
    mean :math:`\mu` and variance :math:`\sigma^2` over the channels (divided by their number).
    ``rms`` (Zhang and Sennrich 2019): :math:`\gamma x / \sqrt{\mathrm{mean}(x^2) + \epsilon}`.

    Attributes
    ----------
    kind
        Which of the two.
    scale, shift
        float32 (channel,): gamma and beta.
    eps
        Epsilon.
    pooled
        Whether the model applies it to pooled tokens rather than to each.
    """

    kind: Literal["layer", "rms"]
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    eps: float
    pooled: bool = False

    @property
    def described(self) -> dict[str, str | float | bool]:
        """What it is but for its channels, as stores keep it."""
        return {"kind": self.kind, "eps": self.eps, "pooled": self.pooled}

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Apply it to float (..., channel); computed in float64, returned in float32."""
        values = np.asarray(features, dtype=np.float64)
        if self.kind == "layer":
            values = values - values.mean(-1, keepdims=True)
        variance = np.square(values).mean(-1, keepdims=True)
        normed = values / np.sqrt(variance + self.eps) * self.scale + self.shift
        return np.asarray(normed, dtype=np.float32)
