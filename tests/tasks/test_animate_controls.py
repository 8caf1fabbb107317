"""Clips that are drawn after a video: each frame after its own, as long as that, and from one noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flickers import saved
from segue.errors import TaskError
from segue.media.clip import to_uint8
from segue.tasks.animate import Animate
from segue.tasks.animate_settings import Movement
from segue.tasks.sampling import Sampling
from segue.zoo.load import load
from shown import pixels, record
from tasks.test_stylize_controls import SIZE, nearest, scenes


def test_every_frame_follows_its_own_picture_of_the_video(tmp_path: Path) -> None:
    video = saved(tmp_path / "video.apng", scenes(3, 4, 5), fps=5)
    task = Animate(
        "a fox", control=(f"tile:{video}",), movement=Movement(attention="self"), sampling=Sampling(size=SIZE)
    )
    model = load("emoji-fast")
    clip = task.run(model)
    assert (len(clip), clip.fps) == (3, 5)
    assert nearest(to_uint8(pixels(clip)), scenes(3, 4, 5)) == [0, 1, 2]
    assert record(clip)["fields"]["control"] == (f"tile:{video}",) and record(clip)["plan"]["networks"]
    looking = Animate("a fox", control=(f"tile:{video}",), sampling=Sampling(size=SIZE)).run(model)
    assert torch.equal(pixels(looking)[0], pixels(clip)[0])  # the first looks at nobody
    assert not torch.equal(pixels(looking)[1], pixels(clip)[1])
    with pytest.raises(TaskError, match="has 3 frames, and so has the clip"):
        Animate("a fox", seconds=4, control=(f"tile:{video}",)).run(model)
