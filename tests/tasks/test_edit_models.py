"""Edits by networks: each method takes negative prompts, LoRAs, control networks and FreeU; frames of films agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from attending import Blocks, attending_model
from flickers import saved, textured
from models.perceptual.tiny_clip import write_clip
from models.test_inpainting import write_inpainting
from models.test_instruction import write_instruction
from models.tiny import write_model
from models.tiny_control import write_controlnet
from segue.errors import TaskError
from segue.evaluation.edited import Words, directions
from segue.media import Clip, read
from segue.media.clip import levels_of, to_uint8
from segue.models.denoiser import Tally
from segue.models.loading import load_model
from segue.models.perceptual import ClipNetwork
from segue.tasks.edit import Edit
from segue.tasks.edit_settings import METHODS, Change, EditArea, Method
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.stylize_settings import Agreement, Shape
from shown import record
from toy import toy_model

SIZE = (64, 64)
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


@dataclass(frozen=True)
class Bench:
    """Tiny checkpoints, and what is added to them."""

    models: dict[str, Path]
    control: Path
    lora: Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    home = tmp_path_factory.mktemp("edits")
    plain = write_model(home / "plain", vae="tiny", length=24, seed=3)
    models = dict[str, Path].fromkeys(METHODS, plain)
    models["painter"] = write_inpainting(home / "painter", vae="tiny", length=24, seed=4)
    models["instruct"] = write_instruction(home / "editor", "sd", length=24, seed=5)
    draw = torch.Generator().manual_seed(1)
    shapes = {"lora_A": (4, 32), "lora_B": (32, 4)}
    save_file(
        {f"{LAYER}.{name}.weight": torch.randn(shape, generator=draw) for name, shape in shapes.items()},
        home / "lora.safetensors",
    )
    return Bench(models, write_controlnet(home / "control", plain), home / "lora.safetensors")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    return saved(tmp_path / "picture.png", textured(1, SIZE))


@pytest.fixture
def mask(tmp_path: Path) -> tuple[str, ...]:
    white = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    white[..., 16:48, 16:56] = 255
    return (saved(tmp_path / "mask.png", white),)


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


def quick(picture: str, method: Method, mask: tuple[str, ...], **changes: Any) -> Edit:
    said = Change(source_prompt="a cat") if method in ("cycle", "ddib") else Change()
    sampling = Sampling(3, (4.0,), solver="ddim", size=SIZE)
    return Edit(picture, "a red apple", method, change=said, area=EditArea(mask), sampling=sampling, **changes)


@pytest.mark.parametrize("kind", [*METHODS, "painter"])
def test_a_method_takes_what_models_take(kind: str, bench: Bench, picture: str, mask: tuple[str, ...]) -> None:
    method = cast("Method", "inpaint" if kind == "painter" else kind)
    model = load_model(bench.models[kind], device="cpu")
    before = {name: value.clone() for name, value in model.parts["unet"].state_dict().items()}
    task = quick(picture, method, mask)
    plain = pixels(task.run(model))
    changed = {
        "negative": replace(task, negative="red"),
        "control": replace(task, control=(f"softedge+{bench.control}",)),
        "freeu": replace(task, freeu=(1.5, 1.6, 0.9, 0.2)),
    }
    for name, other in changed.items():
        assert not torch.equal(pixels(other.run(model)), plain), name
    with_lora = load_model(bench.models[kind], device="cpu", loras={bench.lora: 1.0})
    assert not torch.equal(pixels(task.run(with_lora)), plain)
    after = model.parts["unet"].state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(pixels(task.run(model)), plain)


def test_freeu_of_ones_changes_nothing_and_is_of_unets(bench: Bench, picture: str, mask: tuple[str, ...]) -> None:
    """The low frequencies of what is handed over go through a transform and back: to rounding."""
    model, task = load_model(bench.models["sdedit"], device="cpu"), quick(picture, "sdedit", mask)
    ones = pixels(replace(task, freeu=(1.0, 1.0, 1.0, 1.0)).run(model)).int()
    assert int((ones - pixels(task.run(model)).int()).abs().max()) <= 1
    with pytest.raises(TaskError, match="between the layers of a UNet, and toy has none"):
        replace(task, freeu=(1.0, 1.0, 1.0, 1.0)).run(toy_model())


@pytest.mark.parametrize("method", ["sdedit", "cycle"])
def test_the_best_candidate_is_taken(method: Method, bench: Bench, picture: str, tmp_path: Path) -> None:
    """By hand: every seed's own edit, and what CLIP says of each."""
    clip = write_clip(tmp_path / "clip", 3)
    network = ClipNetwork.load(str(clip))
    model = load_model(bench.models[method], device="cpu")
    task = quick(picture, method, ())
    made = [replace(task, seed=seed).run(model).frames[:] for seed in (5, 6, 7)]
    found = torch.cat([network(one) for one in made])
    scores = found @ network.texts(["a red apple"])[0]
    if method == "cycle":
        before = network(read(picture).frames[:]).expand(3, -1)
        scores = directions(before, found, Words("a red apple", "a cat", network))
    best = int(scores.argmax())
    change = replace(task.change, candidates=3, ranked_by=str(clip))
    tally = Tally(timed=False)
    watched = replace(model, denoiser=tally.watching(model.denoiser))
    chosen = replace(task, seed=5, change=change).run(watched)
    assert record(chosen)["plan"]["seed"] == 5 + best
    assert record(chosen)["scores"]["evaluations"] == tally.rows
    assert torch.equal(pixels(chosen), to_uint8(made[best]))
    chosen.save(tmp_path / "best.png")
    again = Rerun.read(tmp_path / "best.json").run(model)
    assert torch.equal(pixels(again), pixels(chosen)) and record(again) == record(chosen)


def test_candidates_of_a_film_are_judged_by_several_frames(bench: Bench, tmp_path: Path) -> None:
    """The first, the middle and the last, each by itself; all that is tried is counted."""
    clip, film = write_clip(tmp_path / "clip", 3), saved(tmp_path / "film.apng", textured(5, SIZE))
    network, tally = ClipNetwork.load(str(clip)), Tally(timed=False)
    model = load_model(bench.models["sdedit"], device="cpu")
    task = replace(quick(film, "sdedit", ()), agreement=Agreement("self", deflicker=0, blend=0.0))
    each = [network(replace(task, seed=seed).run(model).frames[:][[0, 2, 4]]) for seed in (5, 6, 7)]
    scores = [float((found @ network.texts(["a red apple"])[0]).mean()) for found in each]
    change = replace(task.change, candidates=3, ranked_by=str(clip))
    watched = replace(model, denoiser=tally.watching(model.denoiser))
    chosen = record(replace(task, seed=5, change=change).run(watched))
    assert chosen["plan"]["seed"] == 5 + scores.index(max(scores))
    assert chosen["scores"]["evaluations"] == tally.rows == chosen["plan"]["tried"] * (5 + 9) / 9


def test_the_tries_of_a_strength_are_counted(bench: Bench, picture: str) -> None:
    model, tally = load_model(bench.models["sdedit"], device="cpu"), Tally(timed=False)
    task = replace(quick(picture, "sdedit", ()), change=Change(faithful="psnr=1", passes=2))
    clip = record(task.run(replace(model, denoiser=tally.watching(model.denoiser))))
    assert clip["scores"]["evaluations"] == tally.rows > clip["plan"]["tried"] > 0


def blocks(count: int) -> Tensor:
    """A film that the blocks of `attending_model` show as it is."""
    return textured(count, (8, 8), seed=4).repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_cycle_returns_a_film_whose_frames_look_at_each_other(tmp_path: Path) -> None:
    """Also in parts, of which later ones look at frames of the first."""
    film = saved(tmp_path / "film.apng", blocks(5))
    model = attending_model(tmp_path / "model")
    task = Edit(
        film, "a cat", "cycle", change=Change(source_prompt="a cat", eta=0.5),
        agreement=Agreement("first, previous, self", deflicker=0, blend=0.0),
        shape=Shape(cuts="none", window=3, overlap=1), sampling=Sampling(4, (1.0,), size=SIZE),
    )  # fmt: skip
    before = pixels(read(film)).int()
    assert int((pixels(task.run(model)).int() - before).abs().max()) <= 1
    other = replace(task, prompt="a red apple")
    seen = pixels(other.run(model)).int()
    assert int((seen - before).abs().max()) > 3
    alone = pixels(replace(other, agreement=Agreement("self", deflicker=0, blend=0.0)).run(model)).int()
    assert torch.equal(seen[0], alone[0]) and not torch.equal(seen[1:], alone[1:])


def test_ddib_goes_into_noise_by_another_model(bench: Bench, picture: str, tmp_path: Path) -> None:
    """Told the same, two models are a bridge, and one is none; only latents of one kind cross it."""
    other = write_model(tmp_path / "other", vae="tiny", length=24, seed=9)
    model = load_model(bench.models["ddib"], device="cpu")
    sampling = Sampling(4, (1.0,), size=SIZE)
    tasks = [
        Edit(picture, "a cat", "ddib", change=Change(source_prompt="a cat", source_model=name), sampling=sampling)
        for name in (None, str(bench.models["ddib"]), str(other))
    ]
    none, same, bridged = (pixels(task.run(model)) for task in tasks)
    assert torch.equal(none, same) and not torch.equal(none, bridged)
    with pytest.raises(TaskError, match="what one goes into noise by, the other cannot come out of"):
        tasks[2].run(replace(model, codec=Blocks(4)))
