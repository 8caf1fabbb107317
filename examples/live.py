"""A film that turns to what is said while it is shown, and the same once more from what was said."""

from __future__ import annotations

from itertools import islice

import torch

import segue
from segue.media import Clip, TensorFrames

model = segue.load()
task = segue.Live("a red apple", seed=8, between=8, sampling=segue.Sampling(steps=4))
stream = task.start(model)

pictures: list[torch.Tensor] = []
for number, picture in enumerate(islice(stream, 24)):
    pictures.append(picture)
    if number == 7:
        stream.say("a lemon")  # From any thread; the fourth picture from here is the first that is changed.

clip = Clip(TensorFrames.rounded(torch.stack(pictures)), task.fps)
print("wrote", clip.save("live.mp4"), f"of what was said: {stream.log}")

again = stream.replay.run(model)
print("the same pictures again:", torch.equal(again.frames[0 : len(again)], torch.stack(pictures)))
