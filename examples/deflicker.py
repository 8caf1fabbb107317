"""A film that flickers, made steady: no model is needed for that."""

from __future__ import annotations

import torch

import segue
from segue.media import TensorFrames

# A camera that moves over a picture, and cannot decide how bright it is.
still = segue.Image("a red apple").run(segue.load()).frames[0:1]
side = still.shape[-1] - 24
draw = torch.Generator().manual_seed(1)
frames = torch.cat([still[..., 12 : 12 + side, 2 * t : 2 * t + side] for t in range(12)])
gains = 1 + 0.1 * torch.randn(12, 1, 1, 1, generator=draw)
film = segue.Clip(TensorFrames.rounded((frames * gains).clamp(0, 1)), fps=12)
print("wrote", film.save("flicker.mp4"))

clip = segue.Deflicker("flicker.mp4").run()
print("wrote", clip.save("steady.mp4"))
if clip.provenance is not None:
    scores = clip.provenance.record["scores"]
    print("change from frame to frame: {change_before:.3f}, then {change:.3f}".format(**scores))
