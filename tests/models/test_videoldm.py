# pyright: basic
"""What a Video LDM is told of a clip, and that it is put into every kind of UNet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_time_inserted import FRAMES, SMALL, noisy, taught
from tiny_control import write_controlnet
from tiny_upscaler import write_upscaler
from tiny_xl import write_xl

from segue.diffusion.guidance import classifier_free, in_context
from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.control import Control, controlled
from segue.models.control_files import load_control
from segue.models.families.videoldm import context_of, told
from segue.models.loading import load_model
from segue.models.time_files import save_time
from segue.models.time_inserted import CONTEXT, FPS, time_layers, with_motion, with_time
from segue.zoo import load


def known(seed: int = 8) -> torch.Tensor:
    return torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_context_holds_known_frames_where_they_are_known():
    context = context_of({0: known(), 3: known(9)}, FRAMES, (4, 8, 8))
    assert torch.equal(context[0, :4], known()) and torch.equal(context[3, :4], known(9))
    assert context[[0, 3], 4].eq(1).all() and not context[1:3].any()
    with pytest.raises(TaskError, match="frames 0 to 3; 4"):
        context_of({4: known()}, FRAMES, (4, 8, 8))
    with pytest.raises(TaskError, match="4x8x8; expected 4x8x9"):
        context_of({0: known()}, FRAMES, (4, 8, 9))


def test_context_guidance_is_that_of_the_paper(model: LatentDiffusion):
    x, at, cond = noisy(model)
    moving = taught(model).over(FRAMES).batched(FRAMES)
    empty = model.text([""] * FRAMES)
    context = context_of({0: known()}, FRAMES, (4, 8, 8))

    def answer(scale: float) -> torch.Tensor:
        return moving.denoiser(x, at, told(cond, empty, 3.0, SMALL.fps, context=context, context_scale=scale))

    speed = {FPS: torch.full((FRAMES,), SMALL.fps)}

    def plain(seen: torch.Tensor) -> torch.Tensor:
        wanted, unwanted = (replace(one, extra={**speed, CONTEXT: seen}) for one in (cond, empty))
        return moving.denoiser(x, at, classifier_free(wanted, unwanted, 3.0))

    seen, blind = plain(context), plain(torch.zeros_like(context))
    assert torch.allclose(answer(1.0), seen, atol=1e-4)
    assert torch.allclose(answer(2.5), blind + 2.5 * (seen - blind), atol=1e-3)
    without = moving.denoiser(x, at, told(cond, empty, 3.0, SMALL.fps))
    assert torch.allclose(without, blind, atol=1e-4)


def test_context_guidance_at_1_asks_the_network_no_more(model: LatentDiffusion):
    cond = model.text(["a cat"] * 2)
    guided = in_context(replace(cond), cond, 1.0)
    assert guided.weights.tolist() == [[0, 0], [1, 1]]
    assert in_context(cond, cond, [1.0, 2.0]).weights.tolist() == [[0, -1], [1, 2]]
    with pytest.raises(ValueError, match="same form"):
        in_context(classifier_free(cond, cond, 2, start=0.5), cond, 2)


@pytest.mark.parametrize("kind", ["xl", "upscaler"])
def test_time_is_put_into_other_unets(kind, tmp_path):
    image = load_model(write_xl(tmp_path / "m") if kind == "xl" else write_upscaler(tmp_path / "m"), device="cpu")
    moving = taught(image).over(FRAMES)
    cond = image.text(["a cat"] * FRAMES)
    if kind == "upscaler":
        shown = torch.zeros(FRAMES, 3, 8, 8)
        cond = replace(cond, concat=shown, label=torch.full((FRAMES,), 20))
    now, _ = image.schedule(10, image.defaults.size).step(torch.full((FRAMES,), 4))
    x = torch.randn(FRAMES, image.codec.channels, 8, 8, generator=torch.Generator().manual_seed(3))
    plain = image.denoiser(x, now, cond)
    assert torch.equal(with_time(image, SMALL).over(FRAMES).denoiser(x, now, cond), plain)
    assert torch.equal(
        moving.denoiser.network(x, now.time, cond, _call(now)), image.denoiser.network(x, now.time, cond, _call(now))
    )
    assert not torch.allclose(moving.denoiser(x, now, cond), plain, atol=1e-3)


def _call(at):
    from segue.types import Call

    return Call(at, at.rows, (0,) * len(at))


def test_a_file_of_layers_is_loaded_with_a_model(folder, model, tmp_path):
    file = tmp_path / "motion.safetensors"
    save_time(file, taught(model), whole=True)
    loaded = load(folder, device="cpu", motion=file)
    assert loaded.moving is not None and loaded.adapter == str(file)
    own, kept = time_layers(taught(model)).state_dict(), time_layers(loaded).state_dict()
    assert all(torch.equal(own[name], kept[name]) for name in own)
    assert not any(value.requires_grad for value in time_layers(loaded).parameters())


def test_controls_work_beside_layers_along_time(folder, model: LatentDiffusion, tmp_path):
    moving = taught(model).over(FRAMES)
    x, at, cond = noisy(model)
    edges = Control("edges", load_control(write_controlnet(tmp_path / "edges", folder, seed=1), model))
    picture = torch.rand(FRAMES, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    shown = replace(cond, residual_inputs={"edges": picture})
    held, image = controlled(moving, [edges]), controlled(model, [edges])
    made = held.denoiser(x, at, shown)
    assert not torch.allclose(made, moving.denoiser(x, at, cond), atol=1e-3)
    assert not torch.allclose(made, image.denoiser(x, at, shown), atol=1e-3)
    assert torch.equal(with_motion(held, 0).denoiser(x, at, shown), image.denoiser(x, at, shown))
