"""The small decoder of emoji's latents: near to its own, quick, small, and only of its own latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segue.errors import ModelError
from segue.media.clip import levels_of
from segue.models.preview import QuickCodec
from segue.tasks.image import Image
from segue.tasks.transition import Transition
from segue.training.losses import psnr
from segue.zoo import load
from segue.zoo.cards import embedded

FILM = Transition(("a lion", "a tiger"), seconds=0.5, fps=16, seeds=(1, 2))


def test_it_comes_with_emoji_and_what_is_made_of_it() -> None:
    own = load("emoji-fast", "cpu")
    model = load("emoji-fast", "cpu", preview="auto")
    assert own.preview is None
    assert model.preview is not None and model.preview.source == "auto"
    assert model.fingerprint == own.fingerprint
    assert isinstance(load("emoji", "cpu", preview="auto", preview_for="frames").codec, QuickCodec)
    folder = embedded("emoji-fast").small_decoder
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 0.8 * 2**20


def test_others_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="knows nothing of the latents of emoji, which are its own: take auto"):
        load("emoji", "cpu", preview="madebyollin/taesd")
    with pytest.raises(ModelError, match="no small decoder for the latents of emoji-x4"):
        load("emoji-x4", "cpu", preview="auto")


@torch.no_grad()
def test_what_it_shows_is_what_the_film_will_show() -> None:
    """Of pictures that the model drew, all but small detail: some 25 dB; another frame of the same film has less."""
    model = load("emoji-fast", "cpu", preview="auto")
    assert model.preview is not None
    clip = FILM.run(model)
    full = levels_of(clip.frames, slice(0, len(clip))).float() / 255
    quick = replace(model, codec=QuickCodec(model.codec, model.preview.codec))
    assert clip.provenance is not None
    plan = FILM.plan_type(**clip.provenance.record["plan"])
    sketch = FILM.run(quick, plan=plan)
    shown = levels_of(sketch.frames, slice(0, len(sketch))).float() / 255
    assert psnr(shown, full) > 23
    assert psnr(full.roll(len(full) // 2, 0), full) < 18


def test_a_picture_by_it_is_nearly_the_picture() -> None:
    one, other = (
        Image("a castle", seed=3).run(model).frames[0:1]
        for model in (load("emoji-fast", "cpu"), load("emoji-fast", "cpu", preview="auto", preview_for="frames"))
    )
    assert not torch.equal(one, other)
    assert psnr(other, one) > 22
