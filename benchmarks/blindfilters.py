"""Two ways to calm a film that know no patches: neighbours warped and averaged, and a filter in the gradient domain.

Both follow the optical flow of the guide (the source, or where there is none, the film itself), frame by frame.
Pictures are (t, 3, h, w) in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from segue.motion.flow import flow
from segue.motion.occlusion import followed
from segue.motion.warp import warp

VERSION = 1
"""Of what comes out: results that were kept by another are made anew."""


@dataclass
class FlowBlend:
    """Each frame's neighbours, warped to it by optical flow and averaged, as DiffSynth's flow smoother does.

    Args:
        window: frames on each side.
        fade: the weight of a frame for each frame of distance.
        occlusion: leave out what the flow cannot be followed back from; the original does not.
        fields: how many were searched so far.
    """

    window: int = 15
    fade: float = 0.8
    occlusion: bool = False
    fields: int = 0

    def __call__(self, guide: Tensor, style: Tensor) -> Tensor:
        """The style, blended along the movement of the guide."""
        return torch.cat([self._blended(t, guide, style) for t in range(len(style))]).clamp(0, 1)

    def _blended(self, t: int, guide: Tensor, style: Tensor) -> Tensor:
        total, weight = style[t : t + 1].clone(), torch.ones(1, 1, *style.shape[2:])
        for other in range(max(0, t - self.window), min(len(style), t + self.window + 1)):
            if other == t:
                continue
            here, there = guide[t : t + 1], guide[other : other + 1]
            way, share = flow(here, there), torch.full_like(weight, self.fade ** abs(other - t))
            self.fields += 1
            if self.occlusion:
                share = share * followed(way, flow(there, here))[:, None]
                self.fields += 1
            total += warp(style[other : other + 1], way) * share
            weight += share
        return total / weight


@dataclass
class GradientFilter:
    """Blind video temporal consistency (Bonneel et al. 2015): frame by frame, the V_t of the least

        min |grad V_t - grad P_t|^2 + w |V_t - warp(V_{t-1})|^2,   w = strength exp(-alpha |I_t - warp(I_{t-1})|^2),

    P being the film and I its guide. Solved by conjugate gradients, preconditioned by the same with the mean of w
    everywhere, which the cosine transform solves at once.

    Args:
        strength: of what was before, against the gradients of the film.
        alpha: how soon it is given up where the guide's pictures differ, squared and summed over colours in [0, 1].
        tolerance: of the residual, relative to the right side.
        fields: how many were searched so far.
    """

    strength: float = 1.0
    alpha: float = 30.0
    tolerance: float = 1e-4
    fields: int = 0

    def __call__(self, guide: Tensor, style: Tensor) -> Tensor:
        """The style, calmed along the movement of the guide."""
        done = [style[0].double().numpy()]
        for t in range(1, len(style)):
            here, before = guide[t : t + 1], guide[t - 1 : t]
            way = flow(here, before)
            self.fields += 1
            differ = (here - warp(before, way)).square().sum(1)
            weight = (self.strength * torch.exp(-self.alpha * differ[0])).double().numpy()
            last = warp(torch.from_numpy(done[-1]).float()[None], way)[0].double().numpy()
            picture = style[t].double().numpy()
            solved = [
                solve(weight, laplacian(p) + weight * v, p, self.tolerance) for p, v in zip(picture, last, strict=True)
            ]
            done.append(np.stack(solved))
        return torch.from_numpy(np.stack(done)).float().clamp(0, 1)


def laplacian(picture: np.ndarray) -> np.ndarray:
    """The negative Laplacian (h, w) with nothing flowing over the border: what |grad V|^2 has for its half gradient."""
    result = np.zeros_like(picture)
    down, across = np.diff(picture, axis=0), np.diff(picture, axis=1)
    result[:-1] -= down
    result[1:] += down
    result[:, :-1] -= across
    result[:, 1:] += across
    return result


def solve(weight: np.ndarray, right: np.ndarray, start: np.ndarray, tolerance: float) -> np.ndarray:
    """V with laplacian(V) + weight V = right."""
    (down, of_rows), (across, of_columns) = (cosines(side) for side in weight.shape)
    eigenvalues = of_rows[:, None] + of_columns + max(float(weight.mean()), 1e-6)

    def conditioned(residual: np.ndarray) -> np.ndarray:
        return down.T @ ((down @ residual @ across.T) / eigenvalues) @ across

    found = start.copy()
    residual = right - laplacian(found) - weight * found
    enough = tolerance * float(np.linalg.norm(right))
    step = conditioned(residual)
    energy = float((residual * step).sum())
    for _ in range(200):
        if float(np.linalg.norm(residual)) <= enough:
            break
        moved = laplacian(step) + weight * step
        length = energy / float((step * moved).sum())
        found += length * step
        residual -= length * moved
        onward = conditioned(residual)
        before, energy = energy, float((residual * onward).sum())
        step = onward + energy / before * step
    return found


def cosines(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The cosine transform of a row of pixels, orthonormal, and what the negative Laplacian makes of each wave."""
    waves = np.arange(side)
    transform = np.cos(np.pi / side * waves[:, None] * (np.arange(side) + 0.5)) * np.sqrt(2 / side)
    transform[0] /= np.sqrt(2)
    return transform, 2 - 2 * np.cos(np.pi * waves / side)


def enhanced(pictures: Tensor, contrast: float = 1.0, sharpness: float = 1.0) -> Tensor:
    """Contrast and sharpness raised as DiffSynth does against the fog (after text-guided films: 1.5 and 3)."""
    results: list[np.ndarray] = []
    for picture in (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy():
        image = ImageEnhance.Contrast(Image.fromarray(picture)).enhance(contrast)
        results.append(np.asarray(ImageEnhance.Sharpness(image).enhance(sharpness)))
    return torch.from_numpy(np.stack(results)).float().permute(0, 3, 1, 2) / 255
