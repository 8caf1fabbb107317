"""A picture and a film that are quickly made larger."""

from __future__ import annotations

from pathlib import Path

import pytest

from flickers import saved
from footage import moving
from toy_upscaler import SIZE


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", moving(9, SIZE))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    return saved(tmp_path / "picture.png", moving(1, SIZE))
