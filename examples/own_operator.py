"""An operator of one's own on the loop: pictures that are symmetrical, because they were while they were vague."""

from __future__ import annotations

import torch
from torch import Tensor

import segue
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_seeds
from segue.media import Clip, TensorFrames
from segue.temporal.operator import Identity
from segue.types import Point, RowId, over_rows

STEPS, UNTIL = 16, 0.6


class Mirror(Identity):
    """Makes x0 equal to its mirror image for the first part of the run; the rest may differ in detail."""

    def on_denoised(self, x0: Tensor, at: Point) -> Tensor:
        early = over_rows((at.progress < UNTIL).double(), x0)
        return x0 + early * (x0.flip(-1) - x0) / 2


model = segue.load()
width, height = model.defaults.size
shape = (model.codec.channels, height // model.codec.scale, width // model.codec.scale)
schedule = model.schedule(STEPS, model.defaults.size, solver="ddim")

with torch.no_grad():
    texts = model.text(["an owl", ""])
    scale, began = model.defaults.guidance_scale, model.defaults.guidance_start
    cond = classifier_free(texts[[0]], texts[[1]], scale, start=began)
    start = from_seeds([1], [RowId("owl")], schedule, shape, model.device)
    states = denoise(model.denoiser, start, schedule, cond, operators=[Mirror()])
    picture = model.codec.decode(collect(states, schedule))

print("wrote", Clip(TensorFrames.rounded(picture), fps=1).save("owl.png"))
