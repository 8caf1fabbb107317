"""Films that are made of key pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flickers import flickering, keyed, made, painted, saved, stopping, textured
from segue.errors import InterruptedRunError, TaskError
from segue.media.clip import levels_of
from segue.tasks.deflicker import Deflicker
from segue.tasks.rerun import Rerun


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", flickering(textured()))


def test_keys_are_shown_as_they_are_and_followed_between(tmp_path: Path) -> None:
    """Inverted colours are a style that is easy to check: the truth between two keys is known."""
    shown = textured()
    film, wanted = saved(tmp_path / "film.apng", shown), 255 - shown
    folder = painted(tmp_path / "painted", wanted, (0, 4, 8), "frame_{:03}.png")
    clip = keyed(film, folder).run()
    frames = levels_of(clip.frames, slice(None))
    for key in (0, 4, 8):
        assert torch.equal(frames[key], wanted[key])
    errors = (frames.float() - wanted.float()).abs()[..., 8:-8].mean((1, 2, 3))
    held = (wanted[4].float() - wanted[6].float()).abs()[..., 8:-8].mean()
    assert errors.max() < 0.25 * held
    clip.save(tmp_path / "out.apng")
    again = Rerun.read(tmp_path / "out.json").run()
    assert torch.equal(levels_of(again.frames, slice(None)), frames)
    saved(tmp_path / "painted" / "frame_004.png", shown[4:5])
    with pytest.raises(TaskError, match="painted is not what this was made with"):
        Rerun.read(tmp_path / "out.json").run()


@pytest.mark.parametrize(
    "changes", [{"matching": "patchmatch"}, {"contrast": 1.3}, {"sharpness": 1.5}, {"coarse": 2}, {"keys": "other"}]
)
def test_every_field_of_keys_changes_the_film(changes: dict[str, Any], tmp_path: Path) -> None:
    film = saved(tmp_path / "film.apng", textured())
    folder = painted(tmp_path / "painted", flickering(textured()), (0, 8))
    if "keys" in changes:
        changes = {"keys": painted(tmp_path / "other", 255 - textured(), (3,))}
    before, after = made(keyed(film, folder)), made(keyed(film, folder, **changes))
    assert not torch.equal(before, after)


def test_keys_go_on_where_they_were(tmp_path: Path) -> None:
    film = saved(tmp_path / "film.apng", textured())
    folder = painted(tmp_path / "painted", 255 - textured(), (2, 6))
    whole = made(keyed(film, folder))
    with pytest.raises(InterruptedRunError, match="of 9 frames are finished"):
        keyed(film, folder).run(progress=stopping(11), work=tmp_path)
    assert torch.equal(made(keyed(film, folder), work=tmp_path), whole)


KEYS: dict[str, tuple[Callable[[Path, str], Deflicker], str]] = {
    "no number": (lambda here, film: keyed(film, painted(here / "k", textured(), (0,), "key.png")), "named by"),
    "twice": (lambda here, film: keyed(film, twice(here / "k")), "frame 3 has two key pictures"),
    "behind": (lambda here, film: keyed(film, painted(here / "k", textured(12), (11,))), "has the frames 0 to 8"),
    "two numbers": (
        lambda here, film: keyed(film, painted(here / "k", textured(), (3,), "000{}_64x5.png")),
        "has 0003 and 64 and 5",
    ),
    "no folder": (lambda here, film: keyed(film, film), "keys is a folder of pictures"),
    "proportions": (
        lambda here, film: keyed(film, painted(here / "k", textured(9, (48, 48)), (1,))),
        "expected the proportions of the film",
    ),
    "a shot without": (
        lambda here, film: keyed(film, painted(here / "k", textured(), (1,)), cuts="5"),
        "the shot of the frames 5 to 8 has no key picture",
    ),
}


def twice(folder: Path) -> str:
    painted(folder, textured(), (3,))
    saved(folder / "0003.png", textured(1))
    return str(folder)


@pytest.mark.parametrize("case", KEYS)
def test_keys_that_do_not_fit_are_refused_by_name(case: str, film: str, tmp_path: Path) -> None:
    task, expected = KEYS[case]
    with pytest.raises(TaskError, match=expected):
        task(tmp_path, film).run()


def test_a_planned_shot_without_a_key_is_refused(film: str, tmp_path: Path) -> None:
    made_of = keyed(film, painted(tmp_path / "k", textured(), (1,)), cuts="auto")
    with pytest.raises(TaskError, match="the shot of the frames 5 to 8 has no key picture"):
        made_of.run(plan=replace(made_of.contents("cpu"), shots=[0, 5]))
