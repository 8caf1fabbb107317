"""A picture painted over in broad strokes, and what SDEdit makes of them: by a model, and in its exploding form.

No model that Segue loads was trained on variance-exploding noise. Here the form has the best denoiser there can be of a
few pictures: it knows them by heart, so that an edit is the one of them that the strokes may have been painted after.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import segue
from segue.diffusion.exploding import exploding_schedule, reverse_sde
from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_latents
from segue.media import Clip, TensorFrames
from segue.media.strokes import strokes
from segue.tasks.edit import Change
from segue.types import Condition, Conditioning, Point, RowId, over_rows


@dataclass(frozen=True)
class KnownPictures:
    """The mean of the pictures that a noisy one may be of, by how likely each is."""

    pictures: Tensor
    group: int = 1

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        apart = (x[:, None] - over_rows(at.alpha, x)[:, None] * self.pictures).square().flatten(2).sum(2)
        likely = (-apart / (2 * at.sigma.to(apart)[:, None] ** 2)).softmax(1)
        return torch.einsum("bn,nchw->bchw", likely, self.pictures)


model = segue.load()
words = ("a red apple", "a green apple", "a lemon")
pictures = [segue.Image(word, seed=8).run(model).frames[0:1] for word in words]
Clip(TensorFrames.rounded(pictures[0]), fps=1).save("apple.png")
painted = strokes(pictures[0][0], colours=6)[None]
print("wrote", Clip(TensorFrames.rounded(painted), fps=1).save("strokes.png"))

# By the model: what the task paints over is what is written above.
edit = segue.Edit("apple.png", "a red apple", change=Change(strength=0.6, strokes=6))
print("wrote", edit.run(model).save("painted.png"))

# In the variance-exploding form, in pixels from -1 to 1.
schedule, row = exploding_schedule(100), [RowId("strokes")]
noise = torch.randn(painted.shape, generator=torch.Generator().manual_seed(1))
start = from_latents(2 * painted - 1, noise, schedule, 0.7, row)
told = Conditioning(torch.zeros(1, 1, 1))
known = KnownPictures(2 * torch.cat(pictures) - 1)
found = collect(denoise(known, start, schedule, told, solver=reverse_sde), schedule) / 2 + 0.5
print("wrote", Clip(TensorFrames.rounded(found), fps=1).save("recalled.png"))
nearest = int((torch.cat(pictures) - found).square().flatten(1).sum(1).argmin())
print("the strokes are of", words[nearest])
