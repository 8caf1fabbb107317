"""Films that follow control pictures: whose, how strongly, and in which steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from counted import Counts, counting
from flickers import saved, textured
from segue.errors import InterruptedRunError, ModelError, TaskError
from segue.media import Clip, read
from segue.media.clip import levels_of, to_uint8
from segue.models.annotate import find_annotator
from segue.models.bundle import LatentDiffusion
from segue.models.control_adapter import read_adapter, save_adapter
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_controls import Wanted, wanted
from segue.tasks.stylize_settings import Agreement, Beginning, References, Shape
from segue.tasks.stylize_told import Telling
from segue.zoo.controls import controls
from segue.zoo.load import load
from shown import record

SIZE = (64, 64)
ALONE = Agreement("self", deflicker=0, blend=0.0)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return load("emoji-fast")


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", textured(3, SIZE))


def task(film: str, *control: str, **changes: Any) -> Stylize:
    """Every frame by itself, in the size of the film, from one noise."""
    usual = Stylize(film, "a fox", control=control or ("off",), agreement=ALONE, shape=Shape(cuts="none"))
    return replace(usual, sampling=Sampling(size=SIZE), beginning=Beginning(start="noise"), **changes)


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


def scenes(*seeds: int) -> Tensor:
    """Frames that have nothing to do with each other."""
    return torch.cat([textured(1, SIZE, seed=seed) for seed in seeds])


def nearest(drawn: Tensor, shown: Tensor) -> list[int]:
    """Of each drawn frame, which of those that were shown has about its colours."""
    own, theirs = (avg_pool2d(frames.float(), 16).flatten(1) for frames in (drawn, shown))
    return torch.cdist(own, theirs).argmin(1).tolist()


def test_every_frame_follows_its_own_picture(model: LatentDiffusion, tmp_path: Path) -> None:
    shown, others = scenes(3, 4, 5), scenes(6, 3, 7)
    film, video = saved(tmp_path / "film.apng", shown), saved(tmp_path / "video.apng", others)
    both = torch.cat([shown, others])
    assert nearest(pixels(task(film, "tile").run(model)), shown) == [0, 1, 2]
    # The picture of seed 3 is the first of one film, and the second of the other.
    assert nearest(pixels(task(film, f"tile:{video}").run(model)), both[[3, 0, 1, 2, 5]]) == [0, 1, 4]
    # Nothing else tells frames of one noise apart.
    plain = pixels(task(film).run(model))
    assert torch.equal(plain[0], plain[1]) and torch.equal(plain[0], plain[2])


def test_pictures_may_be_found_elsewhere_or_given(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    """What the pictures are decides, and not where they come from."""
    frames = read(film).frames[:]
    own = pixels(task(film, "lineart").run(model))
    copy = saved(tmp_path / "copy.apng", to_uint8(frames))
    maps = saved(tmp_path / "maps.apng", to_uint8(find_annotator("lineart")(frames)))
    for control in (f"lineart:{copy}", f"lineart::{maps}"):
        assert torch.equal(pixels(task(film, control).run(model)), own)
    # Lines of lines are others, and the same lines told as soft edges are followed in another way.
    for control in (f"lineart:{maps}", f"softedge::{maps}"):
        assert not torch.equal(pixels(task(film, control).run(model)), own)


def test_one_picture_is_for_all_frames(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    one = saved(tmp_path / "one.png", textured(1, SIZE, seed=8))
    clip = task(film, f"softedge:{one}").run(model)
    drawn = pixels(clip)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn, pixels(task(film).run(model)))
    assert f"control softedge shows {one} to all frames" in record(clip)["notes"]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return counting(monkeypatch)


@pytest.mark.parametrize(
    ("control", "steps"),
    [("softedge", {0, 1, 2, 3}), ("softedge@0-0.5", {0, 1}), ("softedge@0.5-1", {2, 3}), ("softedge=0", set[int]())],
)
def test_it_is_run_in_the_steps_that_were_asked_for(
    control: str, steps: set[int], film: str, model: LatentDiffusion, counts: Counts
) -> None:
    """Of four."""
    clip = task(film, control).run(model)
    assert set(counts.get("softedge", [])) == steps
    plain = pixels(task(film).run(model))
    assert torch.equal(pixels(clip), plain) == (not steps)
    assert wanted(record(clip)["fields"]["control"]) == wanted((control if steps else "off",))


def test_scales_of_the_same_picture_add_up(film: str, model: LatentDiffusion, counts: Counts) -> None:
    once, half = (pixels(task(film, control).run(model)) for control in ("softedge", "softedge=0.5"))
    twice = pixels(task(film, "softedge=0.5", "softedge=0.5").run(model))
    assert int((twice.int() - once.int()).abs().max()) <= 1
    assert float((half.int() - once.int()).abs().float().mean()) > 1
    assert len(counts["softedge"]) == (1 + 1 + 2) * 4 * 3


def black(folder: Path) -> str:
    return saved(folder / "black.apng", torch.zeros(3, 3, 64, 64, dtype=torch.uint8))


def grey(folder: Path) -> str:
    return saved(folder / "grey.apng", torch.full((3, 3, 64, 64), 90, dtype=torch.uint8))


EMPTY: dict[str, tuple[str, Callable[[Path], str], str]] = {
    "nobody": ("pose::", black, "control pose: nobody was found in any frame of {}"),
    "no edges": ("softedge:", grey, "control softedge: nothing was found in any frame of {}"),
}


@pytest.mark.parametrize("case", EMPTY)
def test_pictures_that_show_nothing_are_told(case: str, film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    control, empty, expected = EMPTY[case]
    source = empty(tmp_path)
    with pytest.raises(TaskError, match=expected.format(source)):
        task(film, control + source).run(model, work=tmp_path)
    assert list(tmp_path.glob(".segue-*")) == []


def test_a_video_of_another_length_is_told(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    long = saved(tmp_path / "long.apng", textured(4, SIZE))
    for control in (f"softedge:{long}", f"depth::{long}"):
        with pytest.raises(TaskError, match=r"long.apng, which has 4 frames, and the film has 3: cut them"):
            task(film, control).prepared(model)


def test_a_rerun_follows_the_same_pictures_or_says_that_they_changed(
    film: str, model: LatentDiffusion, tmp_path: Path
) -> None:
    video = saved(tmp_path / "video.apng", textured(3, SIZE, seed=2))
    clip = task(film, f"softedge:{video}=0.7@0-0.5").run(model)
    clip.save(tmp_path / "a.apng")
    again = Rerun.read(tmp_path / "a.json")
    assert torch.equal(pixels(again.run(model)), pixels(clip))
    saved(Path(video), textured(3, SIZE, seed=9))
    with pytest.raises(TaskError, match=r"video.apng is not what this was made with: its contents have changed"):
        again.run(model)


def test_networks_of_your_own(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    """A copy of the network that comes along draws the same, from wherever; another is told apart, by a rerun too."""
    run = tmp_path / "run+1"
    run.mkdir()
    card = next(card for card in controls() if card.is_for(model))
    own = run / "adapter.safetensors"
    own.write_bytes(card.weights.read_bytes())
    due = pixels(task(film, "tile=0.8").run(model))
    for source in (own, run):
        clip = task(film, f"tile+{source}=0.8@0-1").run(model)
        assert torch.equal(pixels(clip), due)
    clip.save(tmp_path / "a.apng")
    assert list(record(clip)["fields"]["control"]) == [f"tile+{run}=0.8"]
    again = Rerun.read(tmp_path / "a.json")
    assert torch.equal(pixels(again.run(model)), due)
    other = read_adapter(own)
    with torch.no_grad():
        for tap in other.taps.parameters():
            tap *= -1
    save_adapter(own, other, ["tile"])
    assert not torch.equal(pixels(task(film, f"tile+{own}=0.8").run(model)), due)
    with pytest.raises(TaskError, match="networks of the controls are not those"):
        again.run(model)
    with pytest.raises(ModelError, match='has not learned "pose"'):
        task(film, f"pose+{own}::{film}").prepared(model)
    without = task(film, f"pose?+{own}::{film}").prepared(model)
    assert without.controls == () and "without the control pose" in without.left_out[0]


@pytest.mark.parametrize(
    "text",
    ["tile", "tile+a/b", "tile?+a.safetensors:b.mp4=0.5@0.1-0.5", "tile+owner/name@main=0.5", "depth+a=1/x::b=2.mp4"],
)
def test_spelled_as_it_was_typed(text: str) -> None:
    assert Wanted.of(text).spelled == text
    assert Wanted.of("tile+owner/name@main=0.5@0-1").network == "owner/name@main"


def test_references_have_control_pictures_of_their_own(
    film: str, model: LatentDiffusion, tmp_path: Path, counts: Counts
) -> None:
    """Also where those of the film are given; and where only a network could find them, the control is silent."""
    maps, one = saved(tmp_path / "maps.apng", scenes(3, 4, 5)), saved(tmp_path / "one.png", textured(1, SIZE, seed=8))
    asked = task(film, f"softedge::{maps}", f"depth::{maps}", references=References((one,)))
    asked = replace(asked, agreement=replace(ALONE, attention="reference, self"))
    prepared = asked.prepared(model)
    (told,) = Telling(prepared, prepared.steered, {}).references(prepared.references, prepared.controls)
    due = to_uint8(find_annotator("softedge")(torch.stack(prepared.references)))
    for term in told.terms:
        assert torch.equal(term.residual_inputs["softedge"], due) and int(due.max()) > 0
        assert {name: scale.tolist() for name, scale in term.extra.items()} == {"control_scale.depth": [0]}
    counts.clear()
    asked.run(model)
    # Four steps of three frames, and of the reference.
    assert (len(counts["softedge"]), len(counts["depth"])) == (16, 12)


def test_a_stop_while_pictures_are_found_is_gone_on_from(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    asked = task(film, "softedge", "tile=0.5")
    whole = pixels(asked.run(model))
    for stage in ("finding softedge", "finding tile", "drawing frames"):

        def stop(what: str, done: float, total: float, stage: str = stage) -> None:
            if what == stage:
                raise KeyboardInterrupt

        with pytest.raises(InterruptedRunError):
            asked.run(model, progress=stop, work=tmp_path)
    assert torch.equal(pixels(asked.run(model, work=tmp_path)), whole)
