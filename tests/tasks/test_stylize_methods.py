"""Films drawn after control pictures, by presets, and by other methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from segue.errors import ModelAccessError, TaskError
from segue.media import Clip, TensorFrames, read
from segue.media.clip import levels_of, to_uint8
from segue.models.annotate import find_annotator
from segue.models.bundle import LatentDiffusion
from segue.tasks import stylize_prepare
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_settings import PRESETS, Agreement, Beginning, References, Shape, preset_values
from segue.temporal.rivals.catalogue import RIVALS
from segue.types import Frames, Progress, silent
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


def task(film: str, **changes: Any) -> Stylize:
    usual = Stylize(film, "a cat", agreement=ALONE, shape=Shape(cuts="none"), sampling=Sampling(steps=4, size=SIZE))
    return replace(usual, **changes)


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


def shown(asked: Stylize, model: LatentDiffusion, place: int = 0) -> Tensor:
    """The pictures of a control, as bytes."""
    prepared = asked.prepared(model)
    return levels_of(prepared.pictures(prepared.controls[place], silent), slice(None))


def test_a_film_follows_its_control(film: str, model: LatentDiffusion) -> None:
    plain, steered, early = (
        task(film, control=control, beginning=Beginning(strength=1.0)).run(model)
        for control in ((), ("softedge",), ("softedge@0-0.5",))
    )
    assert not torch.equal(pixels(plain), pixels(steered)) and not torch.equal(pixels(early), pixels(steered))
    # From nothing but one noise, only the control tells frames apart.
    assert torch.equal(pixels(plain)[0], pixels(plain)[2]) and not torch.equal(pixels(steered)[0], pixels(steered)[2])
    none = task(film, control=("softedge=0",), beginning=Beginning(strength=1.0)).run(model)
    assert torch.equal(pixels(none), pixels(plain))


def test_control_pictures_come_from_where_they_are_said_to(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    frames = read(film).frames[:]
    edges = to_uint8(find_annotator("softedge")(frames))
    assert torch.equal(shown(task(film, control=("softedge",)), model), edges)
    maps = saved(tmp_path / "maps.apng", edges)
    assert torch.equal(shown(task(film, control=(f"softedge::{maps}",)), model), edges)
    other = saved(tmp_path / "other.apng", textured(3, SIZE, seed=7))
    of_other = to_uint8(find_annotator("softedge")(read(other).frames[:]))
    assert torch.equal(shown(task(film, control=(f"softedge:{other}",)), model), of_other)
    one = saved(tmp_path / "one.png", textured(1, (80, 64), seed=7))
    repeated = task(film, control=(f"softedge:{one}",))
    assert torch.equal(shown(repeated, model), shown(repeated, model)[:1].expand(3, -1, -1, -1))
    assert any("to all frames, of 80x64 pixels, made to fit" in note for note in repeated.prepared(model).notes)
    looks = task(film, control=("softedge", "palette"), references=References((one,)))
    assert torch.equal(*shown(looks, model, 1)[:2])
    assert not torch.equal(*shown(task(film, control=("palette",)), model)[:2])


def test_bars_beside_a_film_are_no_edges(model: LatentDiffusion, tmp_path: Path) -> None:
    """A grey film has no edges, however it is made to fit."""
    wide = saved(tmp_path / "wide.apng", torch.full((3, 3, 40, 64), 90, dtype=torch.uint8))
    with pytest.raises(TaskError, match="nothing was found"):
        task(wide, control=("softedge",), shape=Shape("pad", cuts="none")).run(model)


def test_a_control_that_never_acts_is_told(film: str, model: LatentDiffusion) -> None:
    late = Beginning(strength=0.25)
    notes = task(film, control=("softedge@0-0.5",), beginning=late).prepared(model).notes
    assert any("control softedge has no effect: of steps 0 to 3, 3 to 3 are run" in note for note in notes)
    assert not any(
        "no effect" in note for note in task(film, control=("softedge",), beginning=late).prepared(model).notes
    )


class Nobody:
    """An annotator that finds nothing."""

    kind = "pose"

    def __call__(self, pictures: Tensor) -> Tensor:
        return torch.zeros_like(pictures)

    def over(self, frames: Frames, *, progress: Progress = silent) -> Frames:
        return TensorFrames(torch.zeros(len(frames), 3, *frames.size[::-1], dtype=torch.uint8))


def test_what_is_not_there_is_told_or_left_out(
    film: str, model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(kind: str, **settings: Any) -> Any:
        if kind == "depth":
            raise ModelAccessError("no network for depth here")
        return Nobody() if kind == "pose" else find_annotator(kind)

    monkeypatch.setattr(stylize_prepare, "find_annotator", find)
    with pytest.raises(ModelAccessError, match="no network for depth"):
        task(film, control=("depth",)).prepared(model)
    left = task(film, control=("softedge", "depth?")).prepared(model)
    assert left.task.control == ("softedge",)
    assert "without the control depth: no network for depth here" in left.outlook(Execution())
    with pytest.raises(TaskError, match="nobody was found in any frame"):
        task(film, control=("pose",)).run(model, work=tmp_path)
    assert list(tmp_path.glob(".segue-*")) == []


def test_presets_run_on_a_fresh_machine(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    picture = saved(tmp_path / "p.png", textured(1, SIZE, seed=4))
    made: list[Tensor] = []
    for preset in PRESETS:
        pictures = References((picture,) if preset in ("image", "fashion") else ())
        asked = Stylize(film, "a cat", preset, references=pictures, sampling=Sampling(steps=2, size=SIZE))
        prepared = asked.prepared(model)
        assert prepared.controls
        clip = asked.run(model, prepared=prepared)
        fields = record(clip)["fields"]
        assert fields["preset"] is None and fields["control"] == tuple(one.wanted.spelled for one in prepared.controls)
        made.append(pixels(clip))
        clip.save(tmp_path / f"{preset}.apng")
        again = Rerun.read(tmp_path / f"{preset}.json").run(model)
        assert torch.equal(pixels(again), made[-1])
        assert record(again)["fields"] == fields and record(again)["notes"] == record(clip)["notes"]
    assert all(not torch.equal(a, b) for place, a in enumerate(made) for b in made[:place])


@pytest.mark.parametrize("method", RIVALS)
def test_other_methods_draw_the_same_film(method: str, film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    asked = task(film, agreement=Agreement(), method=method, beginning=Beginning(source_prompt="a dog", strength=0.6))
    clip = asked.run(model)
    plain = task(film, beginning=Beginning(strength=0.6)).run(model)
    assert clip.size == SIZE and len(clip) == 3
    assert method == "side-by-side" or not torch.equal(pixels(clip)[1:], pixels(plain)[1:])
    clip.save(tmp_path / "a.apng")
    assert torch.equal(pixels(Rerun.read(tmp_path / "a.json").run(model)), pixels(clip))


def test_a_method_with_a_preset_leaves_out_what_is_not_for_it(film: str) -> None:
    found = Stylize(film, "x", "restore", method="codec").filled_in()
    strength = preset_values("restore")["beginning"]["strength"]
    assert found.agreement == Agreement() and found.beginning == Beginning(strength, None, "shared", detail=0.0)
    begun = Stylize(film, "x", "restore", beginning=Beginning(start="noise")).filled_in()
    assert begun.beginning.strength == 1
    assert "reference" not in str(Stylize(film, "x", "fashion").filled_in().agreement.attention)
    with pytest.raises(TaskError, match="name one"):
        Stylize(film, "x", "image").filled_in()


def test_controls_are_spelled_as_they_are_read() -> None:
    from segue.tasks.stylize_controls import Wanted

    for text in ("softedge=1e-05", "depth?::maps.mp4=0.12345678@0.1-0.9", "pose:a=b.mp4", "tile@0.0-0.5"):
        assert Wanted.of(Wanted.of(text).spelled) == Wanted.of(text)
    assert Wanted.of("pose:a=b.mp4=0.5") == Wanted("pose", "a=b.mp4", scale=0.5)
