"""`segue animate`, as a user calls it: what arrives, what is written, what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from cli.conftest import Run
from footage import moving
from segue.cli.fields import flags, verb
from segue.media import Clip, TensorFrames, read
from segue.tasks.animate import Animate

TYPED: dict[str, tuple[str, Any]] = {
    "image": ("--image photo.png", "photo.png"),
    "last_image": ("--last-image photo.png", "photo.png"),
    "negative": ("--negative grey", "grey"),
    "seed": ("--seed 7", 7),
    "seconds": ("--seconds 2.5", 2.5),
    "fps": ("--fps 12", 12.0),
    "control": ("--control canny:dance.mp4=0.5", ("canny:dance.mp4=0.5",)),
    "movement.engine": ("--engine zero-shot", "zero-shot"),
    "movement.motion": ("--motion 0s:0,2s:0.5", "0s:0, 2s:0.5"),
    "movement.loop": ("--loop", True),
    "movement.context_guidance": ("--context-guidance 2", 2.0),
    "movement.window": ("--window 12", 12),
    "movement.way": ("--way spin-left", "spin-left"),
    "movement.begun": ("--begun latents", "latents"),
    "movement.strength": ("--strength 0.3", 0.3),
    "movement.attention": ("--attention first,self", "first,self"),
    "long.long": ("--long parts", "parts"),
    "long.levels": ("--levels 2,3", (2, 3)),
    "long.fill": ("--fill branches,flow", ("branches", "flow")),
    "long.pin": ("--pin 0.5", 0.5),
}
QUICK = ["--steps", "3", "--seconds", "0.5", "--fps", "6", "--size", "64x48"]


def at(values: Any, place: str) -> Any:
    for part in place.split("."):
        values = values[part]
    return values


def test_every_field_has_an_example_and_is_explained() -> None:
    every = flags(Animate, ())
    optional = {".".join(flag.place) for flag in every if not flag.is_positional and flag.place[0] != "sampling"}
    assert optional == TYPED.keys()
    assert [flag.name for flag in every if flag.is_positional] == ["prompt"]


@pytest.mark.parametrize("place", TYPED)
def test_flag_arrives(place: str) -> None:
    seen: list[Animate] = []

    def capture(task: Animate) -> int:
        seen.append(task)
        return 0

    app = App(exit_on_error=False, print_error=False, result_action="return_value")
    app.default(verb(capture))
    typed, expected = TYPED[place]
    app(["a cat"])
    app(["a cat", *typed.split()])
    plain, given = (asdict(task) for task in seen)
    assert at(given, place) == expected != at(plain, place)


def test_a_clip_is_made_of_words_and_made_again(run: Run, checkpoint: Path) -> None:
    answer = run("animate", "a spinning red ball", "--model", checkpoint, *QUICK, "-o", "ball.mp4", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["frames"] == 3
    assert "of a picture that moves (spin; zero-shot): about" in answer.err
    assert len(read("ball.mp4")) == 3 and not list(Path().glob(".segue-*"))
    before = Path("ball.mp4").read_bytes()
    assert run("rerun", "ball.json", "-o", "again.mp4").code == 0
    assert Path("again.mp4").read_bytes() == before


def test_a_picture_begins_to_move(run: Run, checkpoint: Path) -> None:
    photo = Clip(TensorFrames(moving(1, (96, 72))), fps=1).save(Path("photo.png"))
    words = ["animate", "a cat", "--image", photo, "--model", checkpoint, "--steps", "3", "--seconds", "0.5"]
    answer = run(*words, "--fps", "6", "-o", "cat.apng")
    assert answer.code == 0, answer.err
    clip = read("cat.apng")
    assert clip.size[0] / clip.size[1] == pytest.approx(96 / 72, rel=0.1)
    assert "scaled and cut" in answer.err
    refused = run(*words, "-o", "photo.png")
    assert refused.code != 0 and "photo.png" in refused.err


def test_without_words_and_pictures_there_is_nothing_to_move(run: Run) -> None:
    answer = run("animate")
    assert answer.code == 2 and "say what is to move" in answer.err
