"""What is installed is what is here: code, marker, configurations, recipes, vocabulary and weights."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MAX_WEIGHTS = 40 << 20


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    builder: Any = WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_package(contents: set[str]) -> None:
    here = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "segue").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(here) > 80
    assert here <= contents


def test_the_wheel_holds_what_is_not_code(contents: set[str]) -> None:
    for pattern in (
        r"segue/py\.typed",
        r"segue/training/recipes/\w+\.toml",
        r"segue/training/concepts\.toml",
        r"segue/models/configs/sd15/unet/config\.json",
        r"segue/models/configs/clip/merges\.txt\.gz",
        r".*dist-info/licenses/LICENSE",
        r".*dist-info/licenses/NOTICE",
    ):
        assert any(re.fullmatch(pattern, name) for name in contents), pattern


def test_the_wheel_holds_nothing_else(contents: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in contents} == {"segue"}


def test_weights_stay_light_and_are_safetensors() -> None:
    weights = SOURCE / "segue" / "zoo" / "weights"
    stored = [path for path in weights.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in stored) <= MAX_WEIGHTS
    for path in stored:
        assert path.suffix not in {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack"}, path
