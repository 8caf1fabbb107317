"""Films that change in one place only, or here before there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segue.errors import TaskError
from segue.media.clip import Clip, TensorFrames, levels_of
from segue.media.reader import read
from segue.tasks.branching import Branching
from segue.tasks.likeness import Likeness
from segue.tasks.masks import Area
from segue.tasks.pace import Pace
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from segue.types import Call, Conditioning
from segue.zoo import load
from shown import pixels, record
from toy import ToyNetwork, toy_model

SMALL = Transition(("one", "two", "three"), seconds=1.0, fps=12, seeds=(1, 2, 3))
KEPT = slice(0, 8)


def grey(path: Path, row: torch.Tensor) -> str:
    return str(Clip(TensorFrames((row * 255).round().byte().expand(1, 3, 16, 16)), 1).save(path))


@pytest.fixture
def half(tmp_path: Path) -> str:
    return grey(tmp_path / "half.png", (torch.arange(16) >= 8).float())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampling": Sampling(solver="dpmpp_2m_sde")},
        {"tree": Branching(crossfeed=(0.4, 0.6, 0.9), first_crossfeed=(0.4, 0.6, 0.9))},
        {"tree": Branching(preset="low")},
        {"fill": "blend", "tree": Branching(max_branches=2)},
        {"pace": Pace(loop="loop")},
        {"likeness": Likeness(shared_noise=0.5, shared_statistics=0.5, mix="linear")},
    ],
)
@pytest.mark.parametrize("given", [(), ("first",), ("last",)])
def test_the_kept_area_is_bit_equal_in_every_frame(
    changes: dict[str, Any], given: tuple[str, ...], half: str, tmp_path: Path
) -> None:
    photo = Clip(TensorFrames(torch.randint(0, 256, (1, 3, 16, 16)).byte()), 1).save(tmp_path / "photo.png")
    key_image = tuple(f"{key}={photo}" for key in given)
    task = replace(SMALL, area=Area(mask=half, feather=2), key_image=key_image, **changes)
    clip = task.run(toy_model())
    shown = pixels(clip)
    assert all(torch.equal(frame[..., KEPT], shown[0][..., KEPT]) for frame in shown)
    assert not torch.equal(shown[0], shown[6])
    levels = levels_of(read(clip.save(tmp_path / "film")).frames, slice(0, 12))
    assert all(torch.equal(one[..., KEPT], levels[0][..., KEPT]) for one in levels)
    if given == ("first",):
        assert torch.equal(levels[0], levels_of(read(photo).frames, slice(0, 1))[0])


def test_a_white_mask_is_no_mask_and_a_black_one_is_one_picture(tmp_path: Path) -> None:
    white, black = (grey(tmp_path / f"{value}.png", torch.full((16,), value)) for value in (1.0, 0.0))
    plain = pixels(SMALL.run(toy_model()))
    assert torch.equal(pixels(replace(SMALL, area=Area(mask=white)).run(toy_model())), plain)
    still = pixels(replace(SMALL, area=Area(mask=black)).run(toy_model()))
    assert all(torch.equal(frame, plain[0]) for frame in still)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tree": Branching(preset="low")},
        {"tree": Branching(crossfeed=(0.4, 0.6, 0.9))},
        {"tree": Branching(smoothness=0.05)},
        {"tree": Branching(ghosting=0.3)},
        {"pace": Pace(loop="loop")},
    ],
)
def test_what_is_dark_changes_first(changes: dict[str, Any], tmp_path: Path) -> None:
    """In every film the first and the last frame are the keys, and the left half is ahead between them."""
    ramp = grey(tmp_path / "ramp.png", torch.arange(16) / 15)
    task = replace(SMALL, prompts=("one", "two"), seeds=(1, 2), **changes)
    timed = pixels(replace(task, area=Area(timing=ramp, spread=0.6)).run(toy_model()))
    plain = pixels(task.run(toy_model()))
    assert torch.equal(timed[0], plain[0])
    if "pace" not in changes:
        assert torch.equal(timed[-1], plain[-1])

    def lead(film: torch.Tensor, end: torch.Tensor) -> float:
        away, left = ((film - one).abs().mean((1, 2)) for one in (film[0], end))
        share = away / (away + left).clamp(min=1e-6)
        return float((share[:, :8].mean(1) - share[:, 8:].mean(1))[1:-1].mean())

    if "pace" not in changes:
        assert lead(timed, plain[-1]) > 0.15 > abs(lead(plain, plain[-1]))


def test_films_with_areas_repeat_until_a_file_changes(half: str) -> None:
    task = replace(SMALL, area=Area(mask=half, timing=half))
    clip = task.run(toy_model(), Execution(max_batch=2))
    plan = TransitionPlan(**record(clip)["plan"])
    assert torch.equal(pixels(task.run(toy_model(), Execution(max_batch=2), plan=plan)), pixels(clip))
    assert torch.equal(pixels(task.run(toy_model(), plan=plan)), pixels(clip))
    grey(Path(half), torch.ones(16))
    with pytest.raises(TaskError, match="contents have changed"):
        task.run(toy_model(), plan=plan)


def test_every_field_of_an_area_changes_the_film(half: str, tmp_path: Path) -> None:
    ramp = grey(tmp_path / "ramp.png", torch.arange(16) / 15)
    area = Area(mask=half, timing=ramp)
    films = [
        pixels(replace(SMALL, area=changed).run(toy_model()))
        for changed in (
            Area(),
            area,
            replace(area, mask=ramp),
            replace(area, feather=1.0),
            replace(area, timing=half),
            replace(area, spread=0.9),
        )
    ]
    assert all(not torch.equal(a, b) for n, a in enumerate(films) for b in films[:n])


def test_regions_and_other_mixes_exclude_each_other() -> None:
    with pytest.raises(TaskError, match="timing mixes regions by the angle of whole latents, and mix is channels"):
        replace(SMALL, area=Area(timing="t.png"), likeness=Likeness(mix="channels"))


def test_a_mask_of_another_size_is_said(tmp_path: Path) -> None:
    mask = Clip(TensorFrames(torch.zeros(1, 3, 20, 40).byte()), 1).save(tmp_path / "m.png")
    notes = record(replace(SMALL, area=Area(mask=str(mask))).run(toy_model()))["notes"]
    assert any("scaled and cut to 16x16" in note for note in notes)


def test_an_inpainting_model_needs_a_mask_and_a_picture(half: str) -> None:
    model = replace(toy_model(), inpaints=True)
    with pytest.raises(TaskError, match="it needs a mask"):
        SMALL.run(model)
    with pytest.raises(TaskError, match="needs a picture to start from"):
        replace(SMALL, area=Area(mask=half)).run(model)


def test_an_inpainting_model_makes_a_film(half: str, tmp_path: Path) -> None:
    """Inside, it follows what it is shown of the outside: without the mask in its concat, nothing would be the same."""
    told: list[torch.Tensor | None] = []

    class Watching(ToyNetwork):
        def __call__(self, x: torch.Tensor, time: torch.Tensor, cond: Conditioning, call: Call) -> torch.Tensor:
            told.append(cond.concat)
            return super().__call__(x, time, cond, call)

    photo = Clip(TensorFrames(torch.randint(0, 256, (1, 3, 16, 16)).byte()), 1).save(tmp_path / "photo.png")
    task = replace(SMALL, area=Area(mask=half), key_image=(f"first={photo}",))
    shown = pixels(task.run(replace(toy_model(network=Watching()), inpaints=True)))
    picture = pixels(read(photo))[0]
    assert all(torch.equal(frame[..., KEPT], picture[..., KEPT]) for frame in shown)
    assert torch.equal(shown[0], picture)
    assert all(one is not None and one.shape[1:] == (13, 8, 8) for one in told)


def real(prompts: tuple[str, str], area: Area) -> torch.Tensor:
    task = Transition(prompts, seconds=0.5, fps=10, seeds=(8, 8), sampling=Sampling(steps=8), area=area)
    return pixels(task.run(load("emoji", device="cpu")))


def drawn(path: Path, levels: torch.Tensor) -> str:
    return str(Clip(TensorFrames((levels * 255).round().byte().expand(1, 3, 128, 128)), 1).save(path))


def test_a_real_apple_turns_green_from_the_left(tmp_path: Path) -> None:
    def lead(film: torch.Tensor) -> float:
        """How much further the left half is on its way than the right one, in the mean over the film."""
        away, left = ((film - end).abs()[1:-1].unflatten(3, (2, 64)).mean((1, 2, 4)) for end in (film[0], film[-1]))
        share = away / (away + left)
        return float((share[:, 0] - share[:, 1]).mean())

    apples = ("a red apple", "a green apple")
    ramp = drawn(tmp_path / "ramp.png", torch.arange(128) / 127)
    assert lead(real(apples, Area(timing=ramp, spread=0.8))) > 0.1 > 2 * abs(lead(real(apples, Area())))


def test_no_seam_can_be_seen_in_a_real_film(tmp_path: Path) -> None:
    """The step across the mask's edge is that of the source, but for half a grey level; a bare edge shows."""
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    disk = ((x - 64) ** 2 + (y - 70) ** 2 < 40**2).float()
    mask, inner = drawn(tmp_path / "disk.png", disk), disk[1:-1, 1:-1]
    edge = (inner == 1) & (torch.nn.functional.max_pool2d(1 - disk[None], 3, 1)[0] == 1)

    def across(film: torch.Tensor) -> torch.Tensor:
        """Of each frame: how far the mask's outermost pixels are from their neighbours."""
        smooth = torch.nn.functional.avg_pool2d(film, 3, 1)
        return (film[..., 1:-1, 1:-1] - smooth).abs().mean(1)[:, edge].mean(1)

    soft, bare = (across(real(("a cat face", "a tiger face"), Area(mask=mask, feather=f))) for f in (8.0, 0.0))
    assert float(soft.max()) < float(soft[0]) + 0.5 / 255
    assert float(bare.max()) > float(bare[0]) + 5 / 255
