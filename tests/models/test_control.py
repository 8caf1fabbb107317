# pyright: basic
"""Control networks add to a UNet what diffusers' pipelines let them add, and only where they act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.adapter import T2IAdapter
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.pipelines.controlnet.pipeline_controlnet import StableDiffusionControlNetPipeline
from diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl import StableDiffusionXLControlNetPipeline
from diffusers.pipelines.t2i_adapter.pipeline_stable_diffusion_adapter import StableDiffusionAdapterPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from tiny_control import write_adapter, write_controlnet
from tiny_xl import write_xl

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_seeds
from segue.diffusion.tiles import TiledDenoiser
from segue.errors import ModelError, TaskError
from segue.models.attention import attached, sites
from segue.models.bundle import LatentDiffusion
from segue.models.control import CONTROL_SCALE, PART, Control, Residuals, controlled
from segue.models.control_files import load_control
from segue.models.loading import load_model
from segue.models.placement import Placement
from segue.models.weights import quiet
from segue.types import Conditioning, Guided, Point, RowId
from segue.zoo import load

PROMPT, NEGATIVE = "a red apple", "cat"
SIZE = (72, 48)
EXACT = 1e-4


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl") / "xl")


@pytest.fixture(scope="module")
def xl(xl_folder) -> LatentDiffusion:
    return load_model(xl_folder, device="cpu")


@pytest.fixture(scope="module")
def nets(tmp_path_factory, folder, xl_folder) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("nets")
    return {
        "edges": write_controlnet(place / "edges", folder, seed=1),
        "depth": write_controlnet(place / "depth", folder, seed=2),
        "shuffle": write_controlnet(place / "shuffle", folder, seed=3, global_pool_conditions=True),
        "xl": write_controlnet(place / "xl", xl_folder, seed=4),
        "t2i": write_adapter(place / "t2i", (32, 64), seed=5),
    }


def picture(seed: int, size: tuple[int, int] = SIZE, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, size[1], size[0], generator=torch.Generator().manual_seed(seed))


def told(model: LatentDiffusion, pictures: dict[str, torch.Tensor], scale: float = 5.0) -> Guided:
    rows = len(next(iter(pictures.values()), picture(0)))
    text = model.text([NEGATIVE, PROMPT])
    negative, positive = (replace(text[[term] * rows], residual_inputs=pictures) for term in (0, 1))
    return classifier_free(positive, negative, scale)


def run(model: LatentDiffusion, cond: Guided | Conditioning, steps: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Clean latents."""
    schedule = model.schedule(steps, size, solver="ddim")
    shape = (4, size[1] // 8, size[0] // 8)
    state = from_seeds([11] * len(cond), [RowId("a", i) for i in range(len(cond))], schedule, shape, model.device)
    return collect(denoise(model.denoiser, state, schedule, cond), schedule)


def pipeline(kind: Any, folder: Path, **parts: Any) -> Any:
    with quiet():
        made = kind.from_pretrained(folder, local_files_only=True, **parts)
    made.scheduler = DDIMScheduler.from_config({**made.scheduler.config, "clip_sample": False})
    made.set_progress_bar_config(disable=True)
    return made


def theirs(made: Any, image: Any, steps: int, scale: float = 5.0, size=SIZE, **more: Any) -> torch.Tensor:
    return made(
        PROMPT,
        image=image,
        negative_prompt=NEGATIVE,
        num_inference_steps=steps,
        guidance_scale=scale,
        width=size[0],
        height=size[1],
        generator=torch.Generator().manual_seed(11),
        output_type="latent",
        **more,
    ).images


def read(folder: Path) -> Any:
    with quiet():
        return ControlNetModel.from_pretrained(folder, local_files_only=True)


@dataclass
class Counted:
    """A ControlNetwork around another, which counts the rows of its calls."""

    network: Any
    calls: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, x, time, cond, picture, call) -> Residuals:
        self.calls.append(len(x))
        return self.network(x, time, cond, picture, call)


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def test_one_net_equals_diffusers(folder, model, nets):
    hint = picture(0)
    expected = theirs(
        pipeline(StableDiffusionControlNetPipeline, folder, controlnet=read(nets["edges"])),
        hint,
        6,
        controlnet_conditioning_scale=0.7,
        control_guidance_start=0.2,
        control_guidance_end=0.8,
    )
    net = load_control(nets["edges"], model)
    got = run(controlled(model, [Control("edges", net, 0.7, 0.2, 0.8)]), told(model, {"edges": hint}), 6)
    assert far(got, run(model, told(model, {}), 6)) > 1
    assert far(got, run(controlled(model, [Control("edges", net, 0.7)]), told(model, {"edges": hint}), 6)) > 1
    assert far(got, expected) <= EXACT


def test_bytes_are_the_same_pictures(model, nets):
    net = load_control(nets["edges"], model)
    hint = (picture(0) * 255).round()
    bound = controlled(model, [Control("edges", net)])
    as_bytes, as_numbers = ({"edges": hint.to(torch.uint8)}, {"edges": hint / 255})
    assert torch.equal(run(bound, told(model, as_bytes), 2), run(bound, told(model, as_numbers), 2))


def test_several_nets_equal_diffusers(folder, model, nets):
    hints = {"edges": picture(0), "depth": picture(1)}
    expected = theirs(
        pipeline(StableDiffusionControlNetPipeline, folder, controlnet=[read(nets[name]) for name in hints]),
        list(hints.values()),
        5,
        controlnet_conditioning_scale=[0.5, 1.2],
        control_guidance_start=[0.0, 0.4],
        control_guidance_end=[0.6, 1.0],
    )
    first, second = (load_control(nets[name], model) for name in hints)
    controls = [Control("edges", first, 0.5, 0.0, 0.6), Control("depth", second, 1.2, 0.4, 1.0)]
    at_once = run(controlled(model, controls), told(model, hints), 5)
    assert far(at_once, expected) <= EXACT
    one_by_one = controlled(controlled(model, controls[:1]), controls[1:])
    assert torch.equal(run(one_by_one, told(model, hints), 5), at_once)


def test_a_guess_equals_diffusers(folder, model, nets):
    made = pipeline(StableDiffusionControlNetPipeline, folder, controlnet=read(nets["edges"]))
    expected = theirs(made, picture(0), 5, controlnet_conditioning_scale=0.8, guess_mode=True)
    net = load_control(nets["edges"], model)
    hint = {"edges": picture(0)}
    got = run(controlled(model, [Control("edges", net, 0.8, guess=True)]), told(model, hint), 5)
    assert far(got, expected) <= EXACT
    assert far(got, run(controlled(model, [Control("edges", net, 0.8)]), told(model, hint), 5)) > 1


def test_a_pooled_net_equals_diffusers_and_is_silent_on_the_negative_term(folder, model, nets):
    made = pipeline(StableDiffusionControlNetPipeline, folder, controlnet=read(nets["shuffle"]))
    expected = theirs(made, picture(0), 5, controlnet_conditioning_scale=0.8)
    net: Any = Counted(load_control(nets["shuffle"], model))
    assert net.pooled
    bound = controlled(model, [Control("shuffle", net, 0.8)])
    cond = told(model, {"shuffle": picture(0)})
    assert far(run(bound, cond, 5), expected) <= EXACT
    net.calls.clear()
    one = run(bound.batched(1), cond, 5)
    assert net.calls == [1] * 5
    assert far(one, expected) <= EXACT
    # Alone, the first term is the last.
    assert far(run(bound, cond.terms[1], 5), run(model, replace(cond.terms[1], residual_inputs={}), 5)) > 1


def test_xl_equals_diffusers(xl_folder, xl, nets):
    made = pipeline(StableDiffusionXLControlNetPipeline, xl_folder, controlnet=read(nets["xl"]), add_watermarker=False)
    expected = theirs(made, picture(0), 5, controlnet_conditioning_scale=0.6, control_guidance_end=0.8)
    net = load_control(nets["xl"], xl)
    cond = told(xl, {"edges": picture(0)})
    got = run(controlled(xl, [Control("edges", net, 0.6, 0.0, 0.8)]), cond, 5)
    assert far(got, run(xl, told(xl, {}), 5)) > 0.1
    assert far(got, expected) <= EXACT


def test_an_adapter_equals_diffusers(folder, model, nets):
    with quiet():
        adapter = T2IAdapter.from_pretrained(nets["t2i"], local_files_only=True)
    made = pipeline(StableDiffusionAdapterPipeline, folder, adapter=adapter)
    expected = theirs(made, picture(0, (64, 48)), 5, size=(64, 48), adapter_conditioning_scale=0.6)
    net = load_control(nets["t2i"], model)
    cond = told(model, {"edges": picture(0, (64, 48))})
    got = run(controlled(model, [Control("edges", net, 0.6)]), cond, 5, (64, 48))
    assert far(got, run(model, told(model, {}), 5, (64, 48))) > 0.1
    assert far(got, expected) <= EXACT
    both = [Control("edges", net, 0.6), Control("depth", load_control(nets["depth"], model))]
    hints = {"edges": picture(0, (64, 48)), "depth": picture(1, (64, 48))}
    assert far(run(controlled(model, both), told(model, hints), 5, (64, 48)), got) > 0.1


def test_what_nobody_hears_is_not_run(model, nets):
    counted: list[Any] = [Counted(load_control(nets[name], model)) for name in ("edges", "depth")]
    silent, late = counted
    controls = [Control("edges", silent, 0.0), Control("depth", late, 1.0, 0.5, 0.75)]
    hints = {"edges": picture(0), "depth": picture(1)}
    run(controlled(model, controls), told(model, hints), 8)
    assert silent.calls == []
    assert late.calls == [2, 2]
    plain = run(model, told(model, {}), 8)
    assert torch.equal(run(controlled(model, controls[:1]), told(model, {}), 8), plain)


def points(model: LatentDiffusion, steps: Sequence[int]) -> Point:
    rows = tuple(RowId("a", i) for i in range(len(steps)))
    return model.schedule(10, SIZE, solver="ddim").step(torch.tensor(steps), rows)[0]


def test_rows_outside_of_the_interval_hear_nothing(model, nets):
    bound = controlled(model, [Control("edges", load_control(nets["edges"], model), 1.0, 0.3, 0.6)])
    at, cond = points(model, [0, 3, 5, 9]), told(model, {"edges": picture(0, count=4)})
    x = torch.randn(4, 4, SIZE[1] // 8, SIZE[0] // 8, generator=torch.Generator().manual_seed(0))
    mixed, plain = bound.denoiser(x, at, cond), model.denoiser(x, at, without_pictures(cond))
    for row, heard in enumerate((False, True, True, False)):
        pick = [row]
        assert far(mixed[pick], bound.denoiser(x[pick], at[pick], cond[pick])) < EXACT
        assert (far(mixed[pick], plain[pick]) > 0.05) is heard


def test_rows_have_scales_of_their_own(model, nets):
    """Beside that of the control; rows of scale 0 are as without it, and where all are, it is not run."""
    counted: Any = Counted(load_control(nets["edges"], model))
    bound, at = controlled(model, [Control("edges", counted, 0.8)]), points(model, [3, 3, 3])
    cond = told(model, {"edges": picture(0, count=3)})
    x = torch.randn(3, 4, SIZE[1] // 8, SIZE[0] // 8, generator=torch.Generator().manual_seed(0))

    def scaled(*scales: float) -> Guided:
        own = {CONTROL_SCALE + "edges": torch.tensor(scales)}
        return replace(cond, terms=tuple(replace(term, extra={**term.extra, **own}) for term in cond.terms))

    mixed, plain = bound.denoiser(x, at, scaled(0, 0.5, 1)), model.denoiser(x, at, without_pictures(cond))
    half = controlled(model, [Control("edges", counted, 0.4)]).denoiser(x, at, cond)
    assert far(mixed[:1], plain[:1]) < EXACT
    assert far(mixed[1:2], half[1:2]) < EXACT
    assert far(mixed[2:], bound.denoiser(x, at, cond)[2:]) < EXACT
    counted.calls.clear()
    assert far(bound.denoiser(x, at, scaled(0, 0, 0)), plain) < EXACT and counted.calls == []


def without_pictures(cond: Guided) -> Guided:
    return replace(cond, terms=tuple(replace(term, residual_inputs={}) for term in cond.terms))


def test_each_row_hears_its_own_picture(model, nets):
    bound = controlled(model, [Control("edges", load_control(nets["edges"], model))])
    hints = picture(0, count=3)
    together = run(bound, told(model, {"edges": hints}), 3)
    for row in range(3):
        alone = run(bound, told(model, {"edges": hints[[row]]}), 3)
        assert far(together[[row]], alone) < EXACT
    assert far(together[:1], together[1:2]) > 1


def test_windows_hear_their_part_of_the_picture(model, nets):
    """A network that sees a window is told what a network is told whose whole picture is that window."""
    bound = controlled(model, [Control("edges", load_control(nets["edges"], model))])
    hint, at = picture(0, (128, 64)), points(model, [4])
    x = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    tiled = TiledDenoiser(bound.denoiser, 8, 0)(x, at, told(model, {"edges": hint}))
    for left in (0, 8):
        part = told(model, {"edges": hint[..., 8 * left : 8 * left + 64]})
        assert far(tiled[..., left : left + 8], bound.denoiser(x[..., left : left + 8], at, part)) < EXACT


def test_pictures_must_be_there_and_fit(model, nets):
    bound = controlled(model, [Control("edges", load_control(nets["edges"], model))])
    with pytest.raises(TaskError, match="control edges was given no picture: give one of 72x48"):
        run(bound, told(model, {}), 2)
    with pytest.raises(TaskError, match=r"control edges must be 72x48 .* got 64x48x3"):
        run(bound, told(model, {"edges": picture(0, (64, 48))}), 2)
    with pytest.raises(TaskError, match="got 72x48x1"):
        run(bound, told(model, {"edges": picture(0)[:, :1]}), 2)
    with pytest.raises(ValueError, match="a picture for control pose, and this model has no such control"):
        run(bound, told(model, {"edges": picture(0), "pose": picture(0)}), 2)


def test_controls_are_refused_that_cannot_be(model, nets):
    net = load_control(nets["edges"], model)
    with pytest.raises(TaskError, match="the scale of control edges must be a number, got nan"):
        Control("edges", net, float("nan"))
    for start, stop in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(TaskError, match="0 <= start < stop <= 1"):
            Control("edges", net, 1.0, start, stop)
    with pytest.raises(TaskError, match="two controls are called edges"):
        controlled(controlled(model, [Control("edges", net)]), [Control("edges", net)])


@dataclass(frozen=True)
class Short:
    """A ControlNetwork for another UNet."""

    module: Any
    pooled: bool = False
    weights: tuple[Path, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x, time, cond, picture, call) -> Residuals:
        return Residuals((torch.zeros(1, 32, 6, 9),) * 2, torch.zeros(1, 64, 3, 5))


def test_a_net_of_another_unet_is_refused_at_the_latest_when_it_runs(model):
    bound = controlled(model, [Control("odd", Short(torch.nn.Identity()))])
    with pytest.raises(ModelError, match=r"control odd adds to 2 skip connections .* the UNet has 4"):
        run(bound, told(model, {"odd": picture(0)}), 2)


def test_the_model_knows_its_controls(model, nets):
    net, other = load_control(nets["edges"], model), load_control(nets["depth"], model)
    bound = controlled(model, [Control("a", net), Control("b", net), Control("c", other)])
    assert [name for name in bound.parts if name.startswith(PART)] == ["control.a", "control.c"]
    prints = {
        controlled(model, controls).fingerprint
        for controls in ([], [Control("a", net)], [Control("a", other)], [Control("a", net), Control("b", other)])
    }
    assert len(prints) == 4
    assert controlled(model, []).fingerprint == model.fingerprint
    assert all(name in model.parts for name in ("unet", "vae")) and "control.a" not in model.parts


def test_attention_can_step_into_a_net(model, nets):
    net = load_control(nets["edges"], model)
    bound, cond = controlled(model, [Control("edges", net)]), told(model, {"edges": picture(0)})
    seen: list[tuple[str, tuple[int, ...], int]] = []

    def adapter(plain, hidden, context, call, site):
        seen.append((site.name, call.term, call.terms))
        return plain(hidden, context)

    before = run(bound, cond, 2)
    with attached(sites(net.module), adapter):
        assert torch.equal(run(bound, cond, 2), before)
    assert {(term, terms) for _, term, terms in seen} == {((0, 1), 2)}
    assert len({name for name, _, _ in seen}) == len(sites(net.module)) > 0


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_a_net_stays_beside_a_unet_that_comes_and_goes(offload, folder, nets, model, monkeypatch):
    cond = told(model, {"edges": picture(0), "depth": picture(1)})

    def made(placed: LatentDiffusion) -> torch.Tensor:
        controls = [Control(name, load_control(nets[name], placed)) for name in ("edges", "depth")]
        return run(controlled(placed, controls), cond, 2)

    whole = made(model)
    monkeypatch.setattr("segue.models.placement.SHARED", ())
    assert torch.equal(made(load(folder, "cpu", placement=Placement(offload=offload))), whole)
