# pyright: basic
"""Attention across frames in networks of every family: UNets with what is beside and within them, and transformers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_control import write_controlnet
from tiny_flow import CHANNELS, write_flux, write_sd3
from tiny_ip import SIDE, write_ip

from segue.diffusion.guidance import classifier_free
from segue.errors import TaskError
from segue.models.attended import attended_bytes, model_sites
from segue.models.attention import announced, attached, sites
from segue.models.bundle import LatentDiffusion
from segue.models.control import Control, controlled, unet_of
from segue.models.control_files import load_control
from segue.models.ip_adapter import referring, shown
from segue.models.ip_adapter_files import load_ip_adapter
from segue.models.loading import load_model
from segue.temporal.frame_attention import Pattern, frame_attention, most_held
from segue.temporal.passengers import Noised, Passenger, WithPassengers
from segue.types import Call, Guided, RowId

SIZE = (72, 48)
ROWS = tuple(RowId("clip", frame) for frame in range(5))
PATTERN = "first, previous, self"


@pytest.fixture(scope="module")
def nets(tmp_path_factory, folder) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("nets")
    return {
        "edges": write_controlnet(place / "edges", folder, seed=1),
        "shuffle": write_controlnet(place / "shuffle", folder, seed=3, global_pool_conditions=True),
    }


@pytest.fixture(scope="module")
def steered(model, nets) -> LatentDiffusion:
    """A UNet with a control network that tells where things are, and one that tells only what is there."""
    return controlled(model, [Control(name, load_control(place, model)) for name, place in nets.items()])


@pytest.fixture(scope="module")
def transformers(tmp_path_factory) -> dict[str, LatentDiffusion]:
    root: Path = tmp_path_factory.mktemp("joint")
    folders = {"sd3": write_sd3(root / "sd3", with_t5=False), "dev": write_flux(root / "dev")}
    return {name: load_model(folder, device="cpu") for name, folder in folders.items()}


def latents(model: LatentDiffusion, size: tuple[int, int], count: int = len(ROWS)) -> torch.Tensor:
    width, height = (side // model.codec.scale for side in size)
    generator = torch.Generator().manual_seed(4)
    return torch.randn(count, model.codec.channels, height, width, generator=generator)


def told(model: LatentDiffusion, pictures: tuple[str, ...] = (), count: int = len(ROWS)) -> Guided:
    text = model.text(["a red apple", ""])
    drawn = torch.rand(count, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(1))
    shown_all = dict.fromkeys(pictures, drawn)
    one, empty = (replace(text[[term] * count], residual_inputs=shown_all) for term in (0, 1))
    found = classifier_free(one, empty, 3.0)
    assert isinstance(found, Guided)
    return found


def around(model: LatentDiffusion, pattern: str = PATTERN, **how: Any) -> AbstractContextManager[Any]:
    return frame_attention(model.denoiser, model_sites(model), pattern, ROWS, **how)


def asked(model, cond, size=SIZE, pattern=PATTERN, step=2, **how) -> torch.Tensor:
    at, _ = model.schedule(4, size).step(torch.full((len(ROWS),), step), ROWS)
    with around(model, pattern, **how) as denoiser:
        return denoiser(latents(model, size), at, cond)


def plainly(model, cond, size=SIZE) -> torch.Tensor:
    return asked(model, cond, size, "self")


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def test_sites_of_control_networks_are_listed_by_names_of_their_own(steered):
    found = [site.name for site in model_sites(steered)]
    assert len(set(found)) == len(found)
    assert {name.split(".")[1] for name in found if name.startswith("control.")} == {"edges", "shuffle"}
    own = [site.name for site in sites(steered.backbone)]
    assert found[: len(own)] == own
    with pytest.raises(TaskError, match="has none"):
        model_sites(replace(steered, parts={}))


def test_calls_may_be_cut_anywhere_beside_control_networks(steered):
    """The pooled network is not run for calls of the negative term alone, and then leaves nothing to be seen."""
    cond = told(steered, ("edges", "shuffle"))
    whole = asked(steered.batched(64), cond)
    for most in (1, 3, 5):
        assert far(asked(steered.batched(most), cond), whole) < 2e-5
    assert far(whole, plainly(steered, cond)) > 1e-3


def test_frames_look_at_each_other_in_control_networks_too(steered):
    cond = told(steered, ("edges", "shuffle"))
    at, _ = steered.schedule(4, SIZE).step(torch.full((len(ROWS),), 2), ROWS)
    with frame_attention(steered.denoiser, sites(steered.backbone), PATTERN, ROWS) as denoiser:
        without = denoiser(latents(steered, SIZE), at, cond)
    assert far(asked(steered, cond), without) > 1e-4


@pytest.mark.parametrize("size", [SIZE, (64, 64), (88, 40)])
def test_what_waits_is_known_from_shapes_at_any_size(model, nets, size):
    """Also where a side is odd, and is halved to what is more than its half."""
    bound = controlled(model, [Control("edges", load_control(nets["edges"], model))]) if size == SIZE else model
    cond = told(bound, ("edges",) if size == SIZE else ())
    at, _ = bound.schedule(4, size).step(torch.full((len(ROWS),), 2), ROWS)
    with frame_attention(bound.batched(2).denoiser, model_sites(bound), PATTERN, ROWS) as denoiser:
        denoiser(latents(bound, size), at, cond)
    rows = most_held(Pattern.parse(PATTERN).watching(ROWS), ROWS, 2, terms=2)
    assert isinstance(denoiser, WithPassengers)
    assert denoiser.sharing.most_held == rows * attended_bytes(bound, size) > 0


@pytest.mark.parametrize("name", ["sd3", "dev"])
@pytest.mark.parametrize("pattern", [PATTERN, "first", "previous, self"])
def test_transformers_look_at_the_pictures_of_others(name, pattern, transformers):
    model, size = transformers[name], (32, 64)
    assert latents(model, size).shape[1] == CHANNELS
    cond = told(model)
    whole = asked(model.batched(64), cond, size, pattern)
    assert far(asked(model.batched(2), cond, size, pattern), whole) < 1e-5
    assert far(whole[1:], plainly(model, cond, size)[1:]) > 1e-3
    assert far(whole[0], plainly(model, cond, size)[0]) < 1e-5
    at, _ = model.schedule(4, size).step(torch.full((len(ROWS),), 2), ROWS)
    with frame_attention(model.batched(1).denoiser, model_sites(model), pattern, ROWS) as denoiser:
        denoiser(latents(model, size), at, cond.terms[-1])
    rows = most_held(Pattern.parse(pattern).watching(ROWS), ROWS, 1)
    assert isinstance(denoiser, WithPassengers)
    assert denoiser.sharing.most_held == rows * attended_bytes(model, size)


def test_the_model_is_the_same_afterwards_also_around_reference_pictures(model, tmp_path):
    """An IP-Adapter attaches for each call, within whatever has stepped in."""
    unet = unet_of(model).unet
    state = {key: value.clone() for key, value in unet.state_dict().items()}
    processors = [site.module.processor for site in sites(unet)]
    adapter = load_ip_adapter(write_ip(tmp_path / "ip", model, "plain", seed=1), model)
    seeing, cond = shown(model, adapter), told(model)
    pictured = referring(cond, adapter, torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    before, seen = plainly(model, cond), plainly(seeing, pictured)
    both = asked(seeing, pictured)
    assert far(asked(seeing.batched(3), pictured), both) < 1e-5
    assert min(far(both, other) for other in (seen, asked(model, cond), before)) > 1e-3
    with around(seeing), pytest.raises(RuntimeError, match="stop"):
        raise RuntimeError("stop")
    assert all(torch.equal(value, state[key]) for key, value in unet.state_dict().items())
    assert all(site.module.processor is was for site, was in zip(sites(unet), processors, strict=True))
    assert torch.equal(plainly(model, cond), before)
    assert torch.equal(plainly(seeing, pictured), seen)


def test_pictures_from_elsewhere_bring_their_own_control_pictures(model, nets):
    bound = controlled(model, [Control("edges", load_control(nets["edges"], model))])
    cond, schedule = told(bound, ("edges",)), bound.schedule(4, SIZE)
    x0, shared = latents(bound, SIZE)[0], latents(bound, SIZE)[1]

    def looked_at(row: Guided) -> torch.Tensor:
        return asked(bound, cond, pattern="reference, self", references=[Passenger(Noised(x0, shared, schedule), row)])

    own, other = looked_at(cond[[0]]), looked_at(cond[[3]])
    assert far(own, other) > 1e-4, "what a picture is told counts"
    assert far(own, plainly(bound, cond)) > 1e-3
    with pytest.raises(TaskError, match="was given no picture"):
        looked_at(told(bound, (), 1))


def test_a_picture_from_elsewhere_is_seen_as_a_frame_of_its_noise_would_be(model):
    """At the level of the frames, in the noise that it is given: as if it were the first frame."""
    cond, schedule = told(model), model.schedule(4, SIZE)
    x = latents(model, SIZE)
    at, _ = schedule.step(torch.full((len(ROWS),), 2), ROWS)
    x0, shared = x[3], x[4]
    with around(model, "reference, self", references=[Passenger(Noised(x0, shared, schedule), cond[[0]])]) as denoiser:
        looking = denoiser(x, at, cond)[1:]
    x[0] = at.noised(x0[None], shared[None])[0] if len(at) == 1 else at[[0]].noised(x0[None], shared[None])[0]
    with around(model, "first, self") as denoiser:
        assert far(denoiser(x, at, cond)[1:], looking) < 1e-5


def test_half_precision(folder):
    model = load_model(folder, device="cpu", dtype=torch.bfloat16)
    cond = told(model)
    whole = asked(model.batched(64), cond)
    assert whole.dtype == torch.float32
    away = far(asked(model.batched(3), cond), whole)
    assert away < 0.25 * far(whole, plainly(model, cond))
    exact = asked(load_model(folder, device="cpu"), cond)
    assert far(whole, exact) < 0.5
    assert attended_bytes(model, SIZE) * 2 == attended_bytes(load_model(folder, device="cpu"), SIZE)


def test_attention_with_a_mask_is_refused_where_it_would_not_fit(model):
    """A mask is as long as a row's own tokens."""
    place = next(one for one in sites(model.backbone) if one.kind == "self")
    module: Any = place.module
    inner: Any = module.processor

    def masking(attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        return inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)

    def whole(plain, hidden, context, call, site):
        return plain(hidden, context)

    def longer(plain, hidden, context, call, site):
        return plain(hidden, torch.cat([hidden, hidden], dim=1))

    hidden = torch.randn(2, 6, module.to_q.in_features)
    mask = torch.zeros(2, 1, 6)
    module.set_processor(masking)
    try:
        at, _ = model.schedule(4, SIZE).step(torch.tensor([2, 2]), ROWS[:2])
        with announced(Call(at, at.rows, (0, 0))):
            with attached([place], whole):
                module(hidden, attention_mask=mask)
            with attached([place], longer), pytest.raises(TaskError, match="is masked"):
                module(hidden, attention_mask=mask)
    finally:
        module.set_processor(inner)
