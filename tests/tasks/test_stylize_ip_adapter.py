"""Reference pictures by an IP-Adapter through the whole task: told to every frame, and gone from the model again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import write_model
from tiny_ip import TOKENS, write_ip
from torch import Tensor

from flickers import saved, textured
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import start_noise
from segue.errors import CheckpointError, ModelNotFoundError
from segue.media import Clip
from segue.media.clip import levels_of, to_uint8
from segue.models.attention import sites
from segue.models.bundle import LatentDiffusion
from segue.models.control import unet_of
from segue.models.ip_adapter import IMAGE_TOKENS, referring, shown
from segue.models.ip_adapter_files import load_ip_adapter
from segue.models.loading import load_model
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_settings import Agreement, Beginning, References, Shape
from segue.tasks.stylize_told import Telling
from segue.types import RowId, State

SIZE = (64, 64)
ALONE = Agreement("self", deflicker=0, blend=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "model", vae="tiny"), device="cpu")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, model: LatentDiffusion) -> Path:
    return write_ip(tmp_path_factory.mktemp("ip") / "plain", model)


@pytest.fixture
def task(tmp_path: Path, adapter: Path) -> Callable[..., Stylize]:
    """A film that sees so many pictures; from one noise, every frame by itself."""
    film = saved(tmp_path / "film.apng", textured(3, SIZE))
    names = [saved(tmp_path / f"{seed}.png", textured(1, SIZE, seed=seed)) for seed in (6, 7, 8)]

    def made(*pictures: int, scale: float | None = None, attention: str = "self") -> Stylize:
        references = References(tuple(names[one] for one in pictures), str(adapter) if pictures else None, scale)
        return Stylize(
            film,
            "a cat",
            references=references,
            beginning=Beginning(start="noise"),
            agreement=replace(ALONE, attention=attention),
            shape=Shape(cuts="none"),
            sampling=Sampling(steps=3, size=SIZE, guidance_scale=(4.0,), solver="ddim"),
        )

    return made


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_frame_is_told_the_tokens_of_all_pictures(
    count: int, task: Callable[..., Stylize], model: LatentDiffusion, adapter: Path
) -> None:
    """And the term of what is not wanted as many that stand for none."""
    prepared = task(*range(count)).prepared(model)
    told = Telling(prepared, prepared.steered, {}).frames(range(3))
    loaded = load_ip_adapter(adapter, model)
    unwanted, wanted = (term.extra[IMAGE_TOKENS] for term in told.terms)
    assert unwanted.shape == wanted.shape and wanted.shape[:2] == (3, count * TOKENS)
    assert torch.equal(wanted, loaded.tokens(torch.stack(prepared.references)).expand(3, -1, -1))
    assert torch.equal(unwanted, loaded.blank(count).expand(3, -1, -1))


@pytest.mark.parametrize("scale", [None, 0.4])
def test_a_film_is_what_the_loop_makes_of_the_same(
    scale: float | None, task: Callable[..., Stylize], model: LatentDiffusion, adapter: Path
) -> None:
    """The adapter and its scale, left out 1, reach the network as they were asked for."""
    prepared = task(0, 1, scale=scale).prepared(model)
    loaded = load_ip_adapter(adapter, model)
    seeing = shown(model, loaded, scale or 1.0)
    texts = model.text(["a cat", ""])
    rows = [RowId("clip", frame) for frame in range(3)]
    told = Telling(task().prepared(model), model, {}).frames(range(3))
    assert torch.equal(told.terms[-1].text, texts[[0] * 3].text)
    cond = referring(told, loaded, torch.stack(prepared.references))
    schedule = model.schedule(3, SIZE, solver="ddim")
    noise = start_noise(0, (model.codec.channels, 8, 8)).expand(3, -1, -1, -1) * schedule.start_scale
    state = State(noise.float(), torch.zeros(3, dtype=torch.int64), tuple(rows))
    with torch.no_grad():
        latents = collect(denoise(seeing.denoiser, state, schedule, cond), schedule)
        due = to_uint8(model.codec.decode(latents).float())
    found = pixels(task(0, 1, scale=scale).run(model))
    assert int((found.int() - due.int()).abs().max()) <= 1


def test_pictures_and_scales_are_seen(task: Callable[..., Stylize], model: LatentDiffusion, tmp_path: Path) -> None:
    films = [task(), task(0), task(1), task(0, 1), task(0, scale=0.4)]
    clips = [asked.run(model) for asked in films]
    found = [pixels(clip) for clip in clips]
    assert not any(torch.equal(one, other) for place, one in enumerate(found) for other in found[:place])
    clips[3].save(tmp_path / "a.apng")
    assert torch.equal(pixels(Rerun.read(tmp_path / "a.json").run(model)), found[3])


@pytest.mark.parametrize("attention", ["self", "first, reference, self"])
def test_the_model_is_the_same_afterwards_to_the_bit(
    attention: str, task: Callable[..., Stylize], model: LatentDiffusion
) -> None:
    """Also where frames look at each other and at the picture beside the adapter."""
    unet = unet_of(model).unet
    weights = {name: value.clone() for name, value in unet.state_dict().items()}
    processors = {site.name: site.module.processor for site in sites(unet)}
    before = pixels(task().run(model))
    nested = pixels(task(0, attention=attention).run(model))
    assert not torch.equal(nested, before)
    if attention != "self":
        assert not torch.equal(nested, pixels(task(0).run(model)))
    assert torch.equal(pixels(task().run(model)), before)
    assert {name: site.module.processor for name, site in zip(processors, sites(unet), strict=True)} == processors
    assert unet.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())


def test_what_is_no_adapter_of_the_model_is_told_before_the_run(
    task: Callable[..., Stylize], model: LatentDiffusion, tmp_path: Path
) -> None:
    asked = task(0)
    nowhere = replace(asked, references=replace(asked.references, ip_adapter=str(tmp_path / "no.safetensors")))
    with pytest.raises(ModelNotFoundError, match=r"no\.safetensors"):
        nowhere.prepared(model)
    wide = write_ip(tmp_path / "wide", model, wide=48)
    with pytest.raises(CheckpointError, match="wide"):
        replace(asked, references=replace(asked.references, ip_adapter=str(wide))).prepared(model)
