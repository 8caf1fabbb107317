"""What holds for every rival: one frame is plain, twice is the same, the model is left as it was, needs are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_control import write_controlnet

from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.control import Control, controlled
from segue.models.control_files import load_control
from segue.models.loading import load_model
from segue.temporal.rivals.catalogue import RIVALS, find_rival
from segue.temporal.rivals.inputs import Outcome, RivalInputs
from segue.types import Guided
from temporal.rivals.clips import alone, back, clip, inputs, plain
from toy import RowwiseDenoiser

INVERTED = ("pix2video", "fatezero", "tokenflow")
ATTENDING = ("text2video-zero", *INVERTED)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


@pytest.mark.parametrize("name", [name for name in RIVALS if name not in ("fatezero", "side-by-side", "codec")])
def test_one_frame_is_plain(model: LatentDiffusion, name: str) -> None:
    """FateZero, a grid and a codec's frames have laws of their own."""
    given = alone(inputs(model, 3), 0)
    made = find_rival(name).run(given).latents
    assert torch.allclose(made, back(given) if name in INVERTED else plain(given), atol=1e-5)


@pytest.mark.parametrize("name", RIVALS)
def test_twice_is_the_same_and_the_model_is_left_as_it_was(model: LatentDiffusion, name: str) -> None:
    given = inputs(model, 3, by=8)
    before = plain(given)
    first, second = (find_rival(name).run(given) for _ in range(2))
    assert torch.equal(first.latents, second.latents)
    assert first.latents.shape == given.noise.shape
    assert bool(first.latents.isfinite().all())
    assert torch.equal(plain(given), before)
    assert float((first.latents - before).abs().max()) > 1e-3, "it does something"


@pytest.mark.parametrize("name", RIVALS)
def test_progress_arrives(model: LatentDiffusion, name: str) -> None:
    told: list[tuple[str, float, float]] = []

    def watch(what: str, done: float, total: float) -> None:
        told.append((what, done, total))

    find_rival(name).run(inputs(model, 3, by=8), watch)
    for what in {what for what, _, _ in told}:
        own = [(done, total) for name, done, total in told if name == what]
        assert own == sorted(own)
        assert own[-1][0] == own[-1][1]


@pytest.mark.parametrize("name", RIVALS)
def test_models_of_frames_are_refused(model: LatentDiffusion, name: str) -> None:
    given = replace(inputs(model, 2), denoiser=RowwiseDenoiser(group=2))
    with pytest.raises(TaskError, match="at once"):
        find_rival(name).run(given)


@pytest.mark.parametrize("name", ATTENDING)
def test_a_model_without_attention_is_refused_by_name(model: LatentDiffusion, name: str) -> None:
    given = inputs(model, 2, sites=())
    with pytest.raises(TaskError, match="self-attention"):
        find_rival(name).run(given)


@pytest.fixture(scope="module")
def guided(model: LatentDiffusion, written: Path, tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    """The model with a control network, whose places of attention are its own, in the first part of the run."""
    folder = write_controlnet(tmp_path_factory.mktemp("nets") / "edges", written, seed=1)
    return controlled(model, [Control("edges", load_control(folder, model), stop=0.7)])


@pytest.mark.parametrize("name", RIVALS)
def test_control_networks_are_heard(model: LatentDiffusion, guided: LatentDiffusion, name: str) -> None:
    """And their attention is stepped into, on the source's way, too."""
    given, pictures = inputs(guided, 3, by=8), {"edges": clip(3, by=8)[:]}
    assert isinstance(given.cond, Guided)
    terms = tuple(replace(term, residual_inputs=pictures) for term in given.cond.terms)
    told = replace(given.source.cond, residual_inputs=pictures)
    cond, source = replace(given.cond, terms=terms), replace(given.source, cond=told)
    made = find_rival(name).run(replace(given, cond=cond, source=source)).latents
    assert any(site.name.startswith("control.edges.") for site in given.sites)
    assert bool(made.isfinite().all())
    assert float((made - find_rival(name).run(inputs(model, 3, by=8)).latents).abs().max()) > (
        1e-5 if name == "codec" else 1e-2
    )


def test_there_is_no_other() -> None:
    with pytest.raises(TaskError, match="tokenflow"):
        find_rival("rerender")


def test_frames_and_what_they_are_told_go_together(model: LatentDiffusion) -> None:
    given = inputs(model, 3)
    with pytest.raises(ValueError, match="each with noise"):
        replace(given, noise=given.noise[:2])
    with pytest.raises(ValueError, match="one or more"):
        alone(given)


def test_pictures_count_where_a_rival_makes_them(model: LatentDiffusion) -> None:
    given: RivalInputs = inputs(model, 5, by=8)
    made = find_rival("codec").run(given)
    assert made.pictures is not None
    assert torch.equal(torch.cat(list(made.frames(model.codec, 2))), made.pictures[:])
    shown = torch.cat(list(Outcome(made.latents).frames(model.codec, 2)))
    assert torch.allclose(shown, model.codec.decode(made.latents), atol=1e-5)
