# pyright: basic
"""The embedded model of clips: things do what the words say, and stay what they are."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from segue.evaluation.motion_seen import motion_match
from segue.media.clip import Clip, TensorFrames
from segue.media.reader import read
from segue.models.bundle import LatentDiffusion
from segue.tasks.animate import Animate
from segue.tasks.animate_settings import Movement
from segue.tasks.image import Image
from segue.tasks.sampling import Sampling
from segue.zoo import load, models

QUICK = Sampling(steps=8)


@cache
def model(name: str = "emoji-motion") -> LatentDiffusion:
    return load(name, device="cpu")


@cache
def clip(caption: str) -> Tensor:
    return Animate(caption, seed=4, sampling=QUICK).run(model()).frames[:]


def test_its_card_says_what_it_is() -> None:
    (card,) = (card for card in models() if card.name == "emoji-motion")
    assert (card.base, card.time) == ("emoji", "motion.safetensors")
    moving = model().moving
    assert moving is not None and moving.from_still and "first" in moving.given
    assert set(model("emoji").words) < set(model().words)


@pytest.mark.parametrize(
    "caption",
    ["a blue car slides to the right", "a red apple falls", "a red mushroom grows", "an elephant stands still"],
)
def test_it_does_as_it_is_told(caption: str) -> None:
    assert motion_match(TensorFrames.rounded(clip(caption)), caption).matches


def test_it_begins_with_a_picture_of_the_image_model_and_stays_that() -> None:
    """What is drawn of the words without those of movement, and at the end still that, elsewhere."""
    frames = clip("a red apple falls")
    still, other = (
        Image("a red apple", seed=seed, sampling=QUICK).run(model("emoji")).frames[0:1][0] for seed in (4, 5)
    )
    assert float((frames[0] - still).abs().mean()) < 0.5 * float((other - still).abs().mean())
    colours = frames.flatten(2)
    assert float((colours.mean(2) - colours[0].mean(1)).abs().mean()) < 0.06


def test_a_picture_that_is_given_is_its_first_frame(tmp_path) -> None:
    still = Image("a yellow star on a blue background", seed=5, sampling=QUICK).run(model("emoji")).frames[:]
    Clip(TensorFrames.rounded(still), 1).save(path := tmp_path / "star.png")
    made = Animate("a star moves up", image=str(path), seed=1, sampling=QUICK).run(model()).frames[:]
    assert torch.equal(made[0], read(str(path)).frames[0:1][0]), "to the pixel"
    assert float((made[1] - made[0]).abs().mean()) < 2 * float((made[2] - made[1]).abs().mean()), "and none jumps"
    assert motion_match(TensorFrames.rounded(made), "a star moves up").matches


def _detail(frames: Tensor) -> float:
    return float((frames[..., 1:] - frames[..., :-1]).abs().mean())


def test_long_clips_are_as_good_at_their_end() -> None:
    """Parts that each went on from the one before became brighter and softer, and left the picture."""
    frames = Animate("a bouncing red apple", seed=4, seconds=6, sampling=QUICK).run(model()).frames[:]
    assert len(frames) == 48
    start, end = frames[:12], frames[-12:]
    assert float((end.mean((0, 2, 3)) - start.mean((0, 2, 3))).abs().max()) < 0.02
    assert 0.95 < _detail(end) / _detail(start) < 1.05


@pytest.mark.parametrize("caption", ["a red star spins clockwise", "a swinging yellow bell"])
def test_loops_close(caption: str) -> None:
    task = Animate(caption, seed=4, seconds=3, movement=Movement(loop=True), sampling=QUICK)
    frames = task.run(model()).frames[:]
    steps = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    assert float((frames[0] - frames[-1]).abs().mean()) < 1.2 * float(steps.max())
    assert float(steps.mean()) > 0.002, "it moves"


def test_one_picture_and_a_dial_at_0_are_those_of_the_image_model() -> None:
    now, _ = model().schedule(4, (64, 64)).step(torch.tensor([1]))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    base, moving = model("emoji"), model()
    one, other = (each.denoiser(x, now, each.text(["a cat"])) for each in (base, moving))
    assert torch.equal(one, other)
