"""The embedded control adapter: found by kind, refused where it does not belong, and what is drawn follows it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segue.errors import CheckpointError, ModelError, ModelNotFoundError
from segue.models.annotate import draw_skeleton, find_annotator
from segue.models.bundle import LatentDiffusion
from segue.models.control import Control, controlled
from segue.models.control_adapter import AdapterControl
from segue.tasks.image import Image
from segue.tasks.sampling import Sampling
from segue.training.figure import figure_clip
from segue.training.sampling import decoded, sample
from segue.zoo import load
from segue.zoo.controls import controls, embedded_control
from segue.zoo.load import load_control

CARD = """
name = "dots-control"
summary = "Dots that follow"
licence = "MIT"
base = "dots"
weights = "adapter.safetensors"
kinds = ["softedge"]
"""


@cache
def model(name: str = "emoji") -> LatentDiffusion:
    return load(name, device="cpu")


@cache
def source(prompt: str) -> Tensor:
    return Image(prompt, seed=3, sampling=Sampling(steps=12)).run(model()).frames[0:1]


@cache
def freely(prompt: str, name: str) -> Tensor:
    """What others are compared with: the same two pictures, with nothing to follow."""
    plain = model(name)
    return decoded(plain, sample(plain, [prompt] * 2, [11, 12], steps=None if name == "emoji-fast" else 12))


def drawn(kind: str | None, picture: Tensor, prompt: str, name: str = "emoji", scale: float = 1.0) -> Tensor:
    """Two pictures of a prompt, from other noise, with the control picture of one that was drawn before."""
    plain, steps = model(name), None if name == "emoji-fast" else 12
    if kind is None:
        return freely(prompt, name)
    hint = find_annotator(kind)(picture).repeat(2, 1, 1, 1)
    steered = controlled(plain, [Control(kind, load_control(kind, plain), scale)])
    return decoded(plain, sample(steered, [prompt] * 2, [11, 12], steps=steps, residual_inputs={kind: hint}))


def agreement(one: Tensor, other: Tensor) -> float:
    """The correlation of two drawings, the mean over pairs."""
    flat = [(part - part.mean((1, 2, 3), keepdim=True)).flatten(1) for part in (one.expand_as(other), other)]
    return float(torch.cosine_similarity(flat[0], flat[1]).mean())


def test_its_card_says_what_it_is_and_it_is_light() -> None:
    card = next(card for card in controls() if card.name == "emoji-control")
    assert card.base == "emoji" and {"softedge", "tile", "depth", "pose"} <= set(card.kinds)
    assert card.weights.stat().st_size < 1.5e6 and (card.weights.parent / "card.md").is_file()


@pytest.mark.parametrize("name", ["emoji", "emoji-fast"])
@pytest.mark.parametrize("kind", ["softedge", "canny"])
def test_edges_are_followed_by_another_prompt(name: str, kind: str) -> None:
    picture = source("a red apple")
    find = find_annotator("softedge")
    found = [agreement(find(picture), find(drawn(how, picture, "a green pear", name))) for how in (kind, None)]
    assert found[0] > 0.45 and found[0] > found[1] + 0.2


def test_colours_are_followed() -> None:
    picture = source("a blue car")
    small = torch.nn.AdaptiveAvgPool2d(16)
    for kind, bound in (("tile", 0.08), ("palette", 0.12)):
        off = [float((small(drawn(how, picture, "a car")) - small(picture)).abs().mean()) for how in (kind, None)]
        assert off[0] < bound and off[0] < 0.6 * off[1], kind


def test_depth_is_followed() -> None:
    """A near ball before a far ground: what is drawn differs from the ground where the ball is."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    ball = (1 - (x + 0.3).square() / 0.16 - (y - 0.2).square() / 0.16).clamp(min=0).sqrt()
    near = (ball * 0.6 + 0.4 * (ball > 0) + (ball == 0) * 0.2 * (y + 1) / 2).expand(1, 3, -1, -1)
    assert _covered(near, ball > 0, "an orange", "depth") > _covered(near, ball > 0, "an orange", None) + 0.15


def test_poses_are_followed() -> None:
    clip, find = figure_clip(2, "stretch", size=(128, 128), frames=1, phase=0.25), find_annotator("softedge")
    plain, sticks = model(), draw_skeleton(clip.key_points)
    steered = controlled(plain, [Control("pose", load_control("pose", plain))])
    told = {"pose": sticks.repeat(2, 1, 1, 1)}
    prompts, seeds = [clip.subject.words] * 2, [11, 12]
    with_pose = decoded(plain, sample(steered, prompts, seeds, steps=12, residual_inputs=told))
    without = decoded(plain, sample(plain, prompts, seeds, steps=12))
    edges = find(clip.frames[0:1])
    assert agreement(edges, find(with_pose)) > agreement(edges, find(without)) + 0.15


def _covered(hint: Tensor, inside: Tensor, prompt: str, kind: str | None) -> float:
    """How well what differs from the ground of a drawing covers what it should: intersection over union, mean of 2."""
    plain = model()
    steered = plain if kind is None else controlled(plain, [Control(kind, load_control(kind, plain))])
    told = {} if kind is None else {kind: hint.repeat(2, 1, 1, 1)}
    pictures = decoded(plain, sample(steered, [prompt] * 2, [11, 12], steps=12, residual_inputs=told))
    ground = pictures[:, :, :4, :4].mean((2, 3), keepdim=True)
    thing = (pictures - ground).abs().amax(1) > 0.12
    return float(((thing & inside).sum((1, 2)) / (thing | inside).sum((1, 2))).mean())


def test_scale_0_draws_what_the_model_does() -> None:
    picture = source("a red apple")
    assert drawn("softedge", picture, "a green pear", scale=0.0).equal(drawn(None, picture, "a green pear"))


def test_kinds_of_one_adapter_are_not_one_model() -> None:
    kinds = [
        controlled(model(), [Control("one", load_control("softedge", model())), Control("two", network)])
        for network in (load_control("tile", model()), load_control("palette", model()))
    ]
    assert kinds[0].fingerprint != kinds[1].fingerprint


def test_a_kind_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ModelError, match=r'knows no "hed".*softedge.*pose'):
        load_control("hed", model())


def test_it_is_found_for_the_model_and_what_is_made_of_it() -> None:
    for name in ("emoji", "emoji-fast"):
        found = embedded_control("depth", model(name))
        assert isinstance(found, AdapterControl) and found.kind == "depth"
    assert embedded_control("owner/repository", model()) is None, "no kind: something to be looked for elsewhere"


def test_other_models_have_none(embedded: Path) -> None:
    other = load("dots", device="cpu")
    assert embedded_control("softedge", other) is None
    with pytest.raises(ModelNotFoundError, match="palette"):
        load_control("palette", other)


def test_an_upscaler_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="emoji-x4 is an upscaler"):
        load_control("softedge", model("emoji-x4"))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('name = "dots-control"', "name = 3", "words in quotes"),
        ('licence = "MIT"', "", "licence is missing"),
        ('licence = "MIT"', 'license = "MIT"', "licen.e is"),
        ('kinds = ["softedge"]', 'kinds = "softedge"', "list of words"),
        ('base = "dots"', 'base = "dots', "no card"),
    ],
)
def test_a_broken_card_is_named(embedded: Path, old: str, new: str, why: str) -> None:
    folder = embedded.with_name("dots-control")
    folder.mkdir()
    (folder / "control.toml").write_text(CARD.replace(old, new))
    with pytest.raises(CheckpointError, match=why):
        controls()


def test_a_kind_that_it_has_not_learned_is_refused(embedded: Path) -> None:
    folder = embedded.with_name("dots-control")
    folder.mkdir()
    (folder / "control.toml").write_text(CARD)
    other = load("dots", device="cpu")
    with pytest.raises(ModelError, match='knows no "pose"; expected one of softedge'):
        embedded_control("pose", other)
    with pytest.raises(ModelError, match="there is no file"):
        embedded_control("softedge", replace(other, name="dots"))
