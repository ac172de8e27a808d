"""What the jobs of ``video`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.needs import CORE_FLOPS, minutes
from vitfeat.analyses.video.settings import VideoSettings

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for the context of a layer a thread and a video's masks, and minutes to follow."""
    shape, tokens, threads = study.shape, frame_tokens(study), study.threads
    context = study.settings(VideoSettings).context
    frames = 4 * (context + 2) * tokens * shape.width / 2**20
    work = 2 * (context + 1) * tokens**2 * shape.width / CORE_FLOPS
    # Beside the products, a second for a frame's masks and their scores.
    seconds = study.n_images * shape.depth * (work + 1) / threads
    # A hundred masks of 854 x 480 pixels; of products there are at most 96 MiB at once.
    return Needs(900 + int(threads * (frames + 96 + 100)), minutes(seconds))


def frame_tokens(study: Study) -> int:
    """Return about how many tokens a frame has: frames are as wide as DAVIS's, 16 to 9."""
    shape, view = study.shape, study.config.view(study.dataset)
    if view.kind != "dense":
        return shape.tokens
    side, pixels = view.side
    short = pixels if side == "short" else pixels * 9 // 16
    rows = max(1, short // shape.patch)
    return rows * max(1, short * 16 // 9 // shape.patch)
