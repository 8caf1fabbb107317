"""The embedded model: real pictures, and the laws of the house on a real network, within their stated tolerance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.solvers import dpmpp_2m
from segue.diffusion.starts import from_seeds
from segue.media.clip import Clip
from segue.models.bundle import LatentDiffusion
from segue.tasks.branching import Branching
from segue.tasks.image import Image
from segue.tasks.likeness import Likeness
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.types import RowId, State
from segue.zoo import load, models

FAST = Sampling(steps=12)
QUICK = Sampling(steps=6)
"""For laws that hold of any picture."""
CAT_TO_CASTLE: dict[str, Any] = {"prompts": ("a cat face", "a castle"), "seconds": 0.25, "sampling": QUICK}
SHORT: dict[str, Any] = {"seconds": 0.25, "sampling": QUICK}


@cache
def model() -> LatentDiffusion:
    return load("emoji", device="cpu")


@cache
def picture(prompt: str, seed: int = 0) -> Tensor:
    return Image(prompt, seed=seed, sampling=FAST).run(model()).frames[0:1][0]


def film(execution: Execution, **changes: Any) -> Clip:
    task = Transition(("a red apple", "a green apple"), seconds=0.5, fps=20, seeds=(1, 2), sampling=FAST)
    return replace(task, **changes).run(model(), execution)


@cache
def between_a_cat_and_a_castle() -> Tensor:
    """Five frames that others are compared with."""
    return film(Execution(), **CAT_TO_CASTLE).frames[0:5]


@cache
def by_one_thread() -> Clip:
    """What other ways to run it are compared with."""
    return film(Execution(max_batch=64, threads=1), **SHORT)


def subject_colour(frame: Tensor) -> Tensor:
    """Mean colour of what is not background, weighted by saturation."""
    saturation = frame.amax(0) - frame.amin(0)
    return (frame * saturation).sum((1, 2)) / saturation.sum()


def ghosting(frame: Tensor, first: Tensor, last: Tensor) -> float:
    """How far a frame is from every pixel mix of two others, in units of their distance: 0 is a double exposure."""
    span = (last - first).flatten()
    share = float((frame - first).flatten() @ span / (span @ span))
    return float((frame - first - share * (last - first)).norm() / span.norm())


@torch.no_grad()
def test_it_is_the_standard_layout_and_equals_the_parts_of_diffusers() -> None:
    """Drawn by stock parts alone; the stock pipeline has no flow matching for this layout."""
    folder = models()[0].folder
    unet: Any = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    text: Any = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
    vae: Any = AutoencoderTiny.from_pretrained(folder, subfolder="vae")
    unet, text, vae = unet.float(), text.float(), vae.float()

    ids: Any = tokenizer(["a red apple", ""], padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    told = text(ids).last_hidden_state
    scheduler.set_timesteps(12, sigmas=[1 - step / 12 for step in range(12)])
    x = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(7))
    for step, time in enumerate(scheduler.timesteps):
        wanted, not_wanted = unet(x.repeat(2, 1, 1, 1), time, told).sample.chunk(2)
        scale = 4.0 if step >= 3 else 1.0
        x = scheduler.step(not_wanted + scale * (wanted - not_wanted), time, x).prev_sample
    theirs = vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5

    task = Image("a red apple", seed=7, sampling=Sampling(12, (4.0,), guidance_start=0.25, solver="ddim"))
    ours = task.run(model()).frames[0:1]
    assert float((ours - theirs.clamp(0, 1)).abs().max()) <= 1 / 255


def test_colours_are_what_the_prompt_says() -> None:
    for seed in range(2):
        red, green = (subject_colour(picture(f"a {word} apple", seed)) for word in ("red", "green"))
        assert float(red[0] - red[1]) > 0.2, f"seed {seed}: a red apple of mean colour {red.tolist()}"
        assert float(green[1] - green[0]) > 0.05, f"seed {seed}: a green apple of mean colour {green.tolist()}"


def test_prompts_make_different_pictures_on_a_quiet_ground() -> None:
    prompts = ["a red apple", "a castle", "a cat face", "a sailboat"]
    shown = [picture(prompt) for prompt in prompts]
    for i, a in enumerate(shown):
        corners = torch.stack([a[:, :6, :6], a[:, :6, -6:]])
        assert float(corners.std()) < 0.1, prompts[i]
        assert all(float((a - b).abs().mean()) > 0.04 for b in shown[i + 1 :])


def test_batches_agree_within_the_stated_tolerance() -> None:
    """Across batch sizes: the same plan, and pixels within 1/255 on all but a thousandth."""
    one, many = film(Execution(max_batch=2, threads=1), **SHORT), by_one_thread()
    assert one.provenance is not None
    assert many.provenance is not None
    assert one.provenance.record["plan"] == many.provenance.record["plan"]
    apart = (one.frames[0:5] - many.frames[0:5]).abs()
    assert float((apart > 1 / 255).float().mean()) < 1e-3


def test_calls_of_one_shape_are_bit_identical() -> None:
    """`deterministic_batch`: whatever shares a call, a picture's bits stay."""
    how = Execution(max_batch=8, deterministic_batch=True)
    whole = film(how, tree=Branching(max_branches=3), **SHORT)
    alone = Image("a red apple", seed=1, sampling=QUICK).run(model(), how)
    assert torch.equal(whole.frames[0:5][0], alone.frames[0:1][0])


def test_threads_agree_within_the_stated_tolerance() -> None:
    one, two = by_one_thread(), film(Execution(max_batch=64, threads=2), **SHORT)
    assert one.provenance is not None
    assert two.provenance is not None
    assert one.provenance.record["plan"] == two.provenance.record["plan"]
    apart = (one.frames[0:5] - two.frames[0:5]).abs()
    assert float((apart > 1 / 255).float().mean()) < 1e-3


def test_the_laws_of_the_loop_on_a_real_network() -> None:
    """A fork resumes, rows at different steps share a batch, and a batch is one by one: latents within 1e-4."""
    with torch.no_grad():
        schedule = model().schedule(8, (128, 128), solver="dpmpp_2m")
        texts = model().text(["a red apple", "a castle", "", ""])
        cond = classifier_free(texts[[0, 1]], texts[[2, 3]], 4.0)
        start = from_seeds([1, 2], [RowId("a"), RowId("b")], schedule, (4, 16, 16), model().device)

        def run(state: State, rows: list[int]) -> list[State]:
            return list(denoise(model().denoiser, state, schedule, cond[rows], solver=dpmpp_2m))

        together = run(start, [0, 1])
        end = together[-1].x
        alone = torch.cat([run(start.fork([row]), [row])[-1].x for row in (0, 1)])
        resumed = run(together[5].fork([1]), [1])[-1].x
        mixed = State.cat([together[3].fork([0]), together[6].fork([1])])
        apart = collect(denoise(model().denoiser, mixed, schedule, cond, solver=dpmpp_2m), schedule)
    assert torch.allclose(alone, end, atol=1e-4)
    assert torch.allclose(resumed, end[1:], atol=1e-4)
    assert torch.allclose(apart, end, atol=1e-4)


def test_crossfeed_on_a_real_network() -> None:
    """Power 0 is the identity; the stronger the pull, the nearer a branch stays to the mix of its parents."""

    shown = CAT_TO_CASTLE | {"seconds": 0.15}

    def middle(power: float) -> Tensor:
        tree = Branching(branches=(2, 3), at=(0, 2), crossfeed=(power, 1.0, 1.0))
        return film(Execution(), tree=tree, **shown).frames[0:3][1]

    plain = film(Execution(), tree=Branching(branches=(2, 3), at=(0, 2)), **shown)
    apart, onto = middle(0.0), middle(1.0)
    assert torch.equal(apart, plain.frames[0:3][1])
    assert float((middle(0.8) - onto).norm()) < float((apart - onto).norm())


def test_a_transition_is_native_even_and_no_double_exposure() -> None:
    clip = film(Execution(), prompts=("a cat face", "a castle"), seconds=0.8)
    assert clip.provenance is not None
    scores = clip.provenance.record["scores"]
    frames = clip.frames[0 : len(clip)]
    assert scores["native_share"] == 1.0
    assert scores["unevenness"] < 3
    middle = len(frames) // 2
    assert ghosting(frames[middle], frames[0], frames[-1]) > 0.2
    blended = film(Execution(), prompts=("a cat face", "a castle"), tree=Branching(max_branches=0), fill="blend")
    mixed = blended.frames[0 : len(blended)]
    assert ghosting(mixed[5], mixed[0], mixed[-1]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [("a lion", "a tiger", 0.85), ("a cat face", "a castle", 0.6)],  # what lies between unlike things has fewer parts
)
def test_the_middle_of_a_transition_is_as_sharp_as_its_ends(first: str, second: str, kept: float) -> None:
    frames = film(Execution(), prompts=(first, second), seconds=0.8).frames[0:16]
    edges = (frames.diff(dim=-1).abs().mean((1, 2, 3)) + frames.diff(dim=-2).abs().mean((1, 2, 3))).tolist()
    assert min(edges[4:-4]) > kept * min(edges[0], edges[-1])


@pytest.mark.parametrize(
    "likeness",
    [
        Likeness(structure=0.8),
        Likeness(shared_attention=0.8),
        Likeness(interpolation=1.0),
        Likeness(fusion="inner", interpolation=0.8),
    ],
)
def test_what_is_alike_changes_the_film_and_leaves_the_first_key_and_the_model(likeness: Likeness) -> None:
    """Everything is aligned to the first key, which stays as it is; afterwards the model is what it was."""
    before = between_a_cat_and_a_castle()
    after = film(Execution(), likeness=likeness, **CAT_TO_CASTLE)
    assert float((after.frames[0:5] - before).abs().max()) > 0.05
    assert torch.allclose(after.frames[0:1], before[:1], atol=1 / 255)
    assert torch.equal(film(Execution(), **CAT_TO_CASTLE).frames[0:5], before)
