"""How calm a film is, and what of it was lost for that: the measures of `deflickering.py`, which says what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, zeros_like
from torch.nn.functional import avg_pool2d

from segue.evaluation.fidelity import psnr
from segue.evaluation.movement import movement
from segue.evaluation.sharpness import sharpness
from segue.evaluation.warp_error import change, warp_error
from segue.media.clip import TensorFrames
from segue.motion.finish import Finish
from segue.motion.flow_match import FlowMatcher
from segue.motion.match import Match
from segue.training.scene import Scene

INTERVALS = (1, 8)
"""Frames between those of which warp errors are taken."""
TILE = 24
"""Pixels of a tile whose brightness is watched."""
LEAST_KEPT, MOST_SHARPENED, BISECTIONS = 0.95, 10.0, 7
MEASURED = 5
"""Version of the measures."""
MEASURES = ("warp error", "warp error 8", "noise", "light", "sharpness", "shared", "at 95", "PSNR", "left")


@dataclass(frozen=True)
class Footage:
    """A clean clip (t, 3, h, w), and a matcher that knows how it moves."""

    clean: Tensor
    matcher: Known


@dataclass
class Known:
    """Matches between the frames of one clip, each found once.

    Args:
        clean: the clip.
        scene: if it was drawn, what it was drawn of, which has the exact ways.
    """

    clean: Tensor
    scene: Scene | None = None
    name: str = "known"
    _found: dict[tuple[int, int], Match] = field(default_factory=dict[tuple[int, int], Match])

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        """Between two frames of the clip."""
        i, j = (int((self.clean - picture).flatten(1).abs().amax(1).argmin()) for picture in (a, b))
        if (i, j) not in self._found:
            if self.scene is None:
                self._found[i, j], self._found[j, i] = FlowMatcher(alike=False)(a, b)
            else:
                self._found[i, j], self._found[j, i] = self._true(self.scene, i, j), self._true(self.scene, j, i)
        return self._found[i, j], self._found[j, i]

    def _true(self, scene: Scene, i: int, j: int) -> Match:
        way, seen = scene.flow(i, j), scene.visible(i, j, margin=2).float()
        return Match(way, zeros_like(seen), seen, whole=False)


def measured(frames: Tensor, spoiled: Tensor, footage: Footage, restyled: bool) -> dict[str, float]:
    """All measures of a film (t, 3, h, w) in [0, 1]."""
    clean = footage.clean
    film, source, aim = (TensorFrames.rounded(each) for each in (frames, clean, spoiled if restyled else clean))
    warped = warp_error(film, source, intervals=INTERVALS, to_first=False, matcher=footage.matcher)
    light = avg_pool2d((frames - clean).mean(1), TILE, ceil_mode=True)
    kept = sharpness(film, aim).kept
    values = [
        *(255 * (warped.at(interval).absolute or math.nan) for interval in INTERVALS),
        255 * float(movement(film).noise.nanmean()),
        255 * float((light[:-2] + light[2:] - 2 * light[1:-1]).square().mean().sqrt()) / 6**0.5,
        100 * ((kept and kept.gradients) or math.nan) ** 0.5,
        100 * ((kept and kept.shared) or math.nan),
        at_sharpness(film, aim, footage),
        math.nan if restyled else float(psnr(frames, clean).clamp(max=99).mean()),
        math.nan if restyled else 255 * left(frames, footage),
    ]
    return dict(zip(MEASURES, values, strict=True))


def left(frames: Tensor, footage: Footage) -> float:
    """The mean absolute change, from frame to frame, of what a film has otherwise than the clean clip."""
    clean = footage.clean
    apart = (frames - clean) / 2 + 0.5
    pairs = [(slice(t, t + 1), slice(t - 1, t)) for t in range(1, len(frames))]
    found = [
        change(apart[last], apart[now], footage.matcher(clean[now], clean[last])[0]).absolute for now, last in pairs
    ]
    known = [2 * value for value in found if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def at_sharpness(film: TensorFrames, aim: TensorFrames, footage: Footage) -> float:
    """The warp error between neighbours of a film, sharpened if it has not the least sharpness; nan if none helps."""
    clean = TensorFrames.rounded(footage.clean)

    def sharpened(by: float) -> TensorFrames:
        return TensorFrames.rounded(Finish(sharpness=by)(film[:])) if by > 1 else film

    least, most = 1.0, MOST_SHARPENED
    if rms_kept(film, aim) >= LEAST_KEPT:
        most = least
    elif not rms_kept(sharpened(most), aim) >= LEAST_KEPT:
        return math.nan
    for _ in range(BISECTIONS if most > least else 0):
        middle = (least + most) / 2
        least, most = (least, middle) if rms_kept(sharpened(middle), aim) >= LEAST_KEPT else (middle, most)
    warped = warp_error(sharpened(most), clean, intervals=(1,), to_first=False, matcher=footage.matcher)
    return 255 * (warped.at(1).absolute or math.nan)


def rms_kept(film: TensorFrames, aim: TensorFrames) -> float:
    """The root mean square gradient of a film over that of another; nan if that is plain."""
    kept = sharpness(film, aim).kept
    return ((kept and kept.gradients) or math.nan) ** 0.5
