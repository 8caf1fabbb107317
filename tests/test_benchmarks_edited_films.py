"""The table of edited films: every method in three ways, kept, measured and told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarked import benchmark, run
from footage import moving
from models.tiny import write_model
from segue.evaluation.colour import object_pixels
from segue.media import Clip, TensorFrames

TABLE = """
[first]
source = "cat"
prompts = ["a red apple"]
instruction = "turn it into an apple"
ellipse = [0.5, 0.5, 0.3, 0.4]
"""


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    write_model(tmp_path / "model", vae="tiny", length=24)
    (tmp_path / "clips").mkdir()
    Clip(TensorFrames(moving(8, (80, 64))), 8).save(tmp_path / "clips" / "first.mp4", crf=10)
    (tmp_path / "films.toml").write_text(TABLE)
    places = [tmp_path / "clips", tmp_path / "films.toml", "-o", tmp_path / "out", "--model", tmp_path / "model"]
    return [*map(str, places), "--frames", "4", "--steps", "3", "--methods", "sdedit", "inpaint"]


def test_films_are_kept_and_told(given: list[str], tmp_path: Path) -> None:
    said = run("edited_films", *given, "--sheets")
    assert said.count(" s a frame") == 6
    rows = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("| ") and "," in line]
    ways = ("frame by frame", "shared noise", "segue edit")
    assert rows == [f"{method}, {way}" for method in ("sdedit", "inpaint") for way in ways]
    cells = {line.split("|")[1].strip(): line.split("|") for line in said.splitlines() if line.startswith("|")}
    assert cells["sdedit, frame by frame"][5].strip() == "100"
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "sheet-first-sdedit.png",
        "sheet-first-inpaint.png",
    }
    assert " s a frame" not in run("edited_films", *given)
    again = run("edited_films", *given, "--seed", "1")
    assert again.count(" s a frame") == 6


def test_an_ellipse_lies_where_it_is_said() -> None:
    with benchmark("edited_films") as bench:
        mask = bench.ellipse((80, 40), (0.25, 0.5, 0.125, 0.25))[0] > 0
    assert torch.equal(mask.any(0).nonzero()[:, 0], torch.arange(10, 30))
    assert torch.equal(mask.any(1).nonzero()[:, 0], torch.arange(10, 30))


def test_things_move_by_parts_of_pixels() -> None:
    """And the ground stays: what is rendered of two things differs where these are."""

    class Disc:
        """A red disc, as an emoji would be."""

        concept = None

        @property
        def styles(self) -> dict[str, None]:
            return {"3d": None}

    with benchmark("edited_films") as bench, pytest.MonkeyPatch.context() as patch:

        def drawn(picture: object, concept: object, look: object, side: int) -> object:
            y, x = torch.meshgrid(*(torch.arange(side) / side - 0.5,) * 2, indexing="ij")
            place = look.placement  # pyright: ignore
            disc = ((x - place.dx) ** 2 + (y - place.dy) ** 2 < (place.scale / 2) ** 2).float()
            return torch.stack([0.5 + 0.5 * disc, 0.5 - 0.4 * disc, 0.5 - 0.4 * disc], 2).numpy()

        patch.setattr(bench, "draw", drawn)
        film = bench.moving(Disc(), "red", "gray", 4)
    areas = object_pixels(film).flatten(1).sum(1).tolist()
    assert film.shape == (4, 3, 128, 128) and areas == sorted(set(areas))
