"""A picture changed by three methods, one of them inside a mask alone: what is kept, in numbers."""

from __future__ import annotations

import torch

import segue
from segue.evaluation.edited import edited
from segue.media import Clip, TensorFrames
from segue.tasks.edit import Change, EditArea

model = segue.load()
apple = segue.Image("a red apple", seed=8).run(model)
apple.save("apple.png")
white = torch.zeros(1, 3, *apple.size[::-1], dtype=torch.uint8)
white[..., 16:-16, 16:-16] = 255
area = Clip(TensorFrames(white), fps=1)
area.save("area.png")

tasks = {
    "noised": segue.Edit("apple.png", "a green apple", change=Change(strength=0.75)),
    "replayed": segue.Edit("apple.png", "a green apple", "cycle", change=Change(source_prompt="a red apple")),
    "inside": segue.Edit("apple.png", "a lemon", "inpaint", area=EditArea(("area.png",))),
}
for name, task in tasks.items():
    clip = task.run(model)
    kept = edited(clip.frames, segue.read("apple.png").frames, area.frames)
    print("wrote", clip.save(f"{name}.png"), f"SSIM {kept.ssim:.2f}, outside {kept.outside:.2f} levels of 255")
