"""Augmentation of image batches on tensors, driven by a generator of its own.

Digits have a handedness, so there are no flips; everything else follows the usual set of
random resized crops, small affine maps, brightness and contrast, blur and noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """A random view of an image."""

    # Least and greatest part of the image's area that the crop covers.
    area: tuple[float, float] = (1.0, 1.0)
    # rotation, shear: greatest angle in degrees, and horizontal slope, either way
    rotation: float = 0.0
    shear: float = 0.0
    jitter: float = 0.0  # greatest relative change of brightness, and of contrast
    blur: float = 0.0  # greatest strength of a 3x3 binomial blur (0 none, 1 full)
    noise: float = 0.0  # greatest standard deviation of Gaussian noise
    size: int = 32  # side of the view, in pixels

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Draw one view of every image: (n, 3, h, w) in 0..1 becomes (n, 3, size, size)."""
        views = self._warp(images, generator)
        if self.jitter:
            views = self._jitter(views, generator)
        if self.blur:
            strength = uniform(len(views), 0.0, self.blur, generator)[:, None, None, None]
            views = torch.lerp(views, _blurred(views), strength)
        if self.noise:
            deviation = uniform(len(views), 0.0, self.noise, generator)[:, None, None, None]
            grain = torch.randn((len(views), 1, self.size, self.size), generator=generator)
            views = views + deviation * grain
        return views.clamp(0.0, 1.0)

    def _warp(self, images: Tensor, generator: Generator) -> Tensor:
        """Crop, rotate and shear by one resampling, so that the image is blurred only once."""
        n = len(images)
        side = uniform(n, *self.area, generator).sqrt()
        angle = torch.deg2rad(uniform(n, -self.rotation, self.rotation, generator))
        shear = uniform(n, -self.shear, self.shear, generator)
        shift = torch.stack([uniform(n, -1.0, 1.0, generator) for _ in range(2)], dim=1)
        cos, sin = angle.cos(), angle.sin()
        rows = [
            torch.stack([cos, shear * cos - sin], dim=1),
            torch.stack([sin, shear * sin + cos], dim=1),
        ]
        linear = torch.stack(rows, dim=1) * side[:, None, None]
        # The crop's centre keeps the unrotated window inside the image.
        centre = shift * (1.0 - side)[:, None]
        theta = torch.cat([linear, centre[:, :, None]], dim=2)
        grid = functional.affine_grid(
            theta, [n, images.shape[1], self.size, self.size], align_corners=False
        )
        # Outside the image lies paper, whose value is 0.
        return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    def _jitter(self, views: Tensor, generator: Generator) -> Tensor:
        n = len(views)
        low, high = 1.0 - self.jitter, 1.0 + self.jitter
        brightness = uniform(n, low, high, generator)[:, None, None, None]
        contrast = uniform(n, low, high, generator)[:, None, None, None]
        mean = views.mean(dim=(1, 2, 3), keepdim=True)
        return ((views - mean) * contrast + mean) * brightness


def uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    """Draw ``n`` numbers uniformly from ``[low, high)``, shape ``(n,)``."""
    return torch.rand(n, generator=generator) * (high - low) + low


def _blurred(images: Tensor) -> Tensor:
    """Blur with the binomial kernel (1, 2, 1) / 4 along both axes."""
    taps = torch.tensor([0.25, 0.5, 0.25])
    channels = images.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    return functional.conv2d(images, kernel, padding=1, groups=channels)
