"""A film drawn anew: another colour and style, the same movement, no flicker."""

from __future__ import annotations

import torch

import segue
from segue.media import TensorFrames
from segue.tasks.stylize import Agreement, Beginning

# A thing that moves over its ground.
model = segue.load()
still = segue.Image("a teddy bear", seed=1).run(model).frames[0:1]
wide = torch.nn.functional.pad(still, (8, 8, 0, 0), mode="replicate")
frames = torch.cat([wide[..., 2 * t : 2 * t + still.shape[-1]] for t in range(8)])
print("wrote", segue.Clip(TensorFrames.rounded(frames), fps=8).save("bear.mp4"))

# What is left out is as it is usual; every frame by itself shows what that is good for.
alone = Agreement(attention="self", deflicker=0, blend=0)
for name, agreement in (("alone", alone), ("blue", Agreement())):
    task = segue.Stylize("bear.mp4", "a blue teddy bear", beginning=Beginning(strength=0.6), agreement=agreement)
    clip = task.run(model)
    print("wrote", clip.save(f"{name}.mp4"))
    assert clip.provenance is not None
    print("evaluations of the network:", clip.provenance.record["scores"]["evaluations"])
