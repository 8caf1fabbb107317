"""--profile, and a model of Stable Diffusion XL, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Run
from models.tiny_xl import write_xl


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xl(tmp_path_factory.mktemp("models") / "xl", vae="tiny")


def test_a_picture_of_xl_with_a_profile_is_repeated_byte_by_byte(run: Run, xl: Path, tmp_path: Path) -> None:
    assert run("image", "a cat", "--model", xl, "--steps", "3", "-o", "plain.png").code == 0
    answer = run("image", "a cat", "--model", xl, "--profile", "lightning", "-o", "x.png")
    assert answer.code == 0, answer.err
    made = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert made["model"]["profile"] == "lightning"
    assert made["fields"]["sampling"]["guidance_scale"] == [1.0]
    again = run("rerun", "x.json", "-o", "again.png")
    assert (again.code, "warning" in again.err) == (0, False)
    first, second, plain = ((tmp_path / f"{name}.png").read_bytes() for name in ("x", "again", "plain"))
    assert first == second != plain


def test_a_film_of_xl(run: Run, xl: Path, tmp_path: Path) -> None:
    words = [
        "transition",
        "a red apple",
        "a cat",
        "--model",
        xl,
        "--profile",
        "turbo",
        "--seconds",
        "0.3",
        "--fps",
        "10",
    ]
    assert run(*words, "-o", "x.mp4").code == 0
    assert (tmp_path / "x.mp4").stat().st_size > 0


def test_profiles_that_there_are_not_are_named(run: Run, xl: Path) -> None:
    answer = run("image", "a cat", "--model", xl, "--profile", "fast")
    assert answer.code == 1
    assert answer.err.strip().endswith("profile must be one of sd, sdxl, turbo, lcm, lightning, hyper; got 'fast'")
    other = run("image", "a cat", "--model", xl, "--profile", "sd")
    assert other.code == 1
    assert "expected one of sdxl, turbo, lcm, lightning, hyper" in other.err
