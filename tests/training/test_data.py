"""A corpus that is damaged is refused with a sentence, and the file it grows in appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.errors import TrainingError
from segue.training import corpus as building
from segue.training import stack
from segue.training.corpus import build
from segue.training.data import Corpus
from segue.training.stack import Stack

from .conftest import SMALL, Sources


@pytest.fixture
def own(corpus: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


def cut(folder: Path) -> None:
    pictures = folder / "pictures.npy"
    pictures.write_bytes(pictures.read_bytes()[:-5])


def torn(folder: Path) -> None:
    manifest = folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text("utf-8")[:-20], "utf-8")


def fewer(folder: Path) -> None:
    lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "manifest.jsonl").write_text("".join(lines[:-1]), "utf-8")


def other(folder: Path) -> None:
    pictures = np.load(folder / "pictures.npy")
    pictures[0, 0, 0] ^= 1
    np.save(folder / "pictures.npy", pictures)


def kept(folder: Path, pictures: np.ndarray[Any, Any]) -> None:
    """Other pictures, and the hash that goes with them."""
    np.save(folder / "pictures.npy", pictures)
    digest = hashlib.sha256((folder / "pictures.npy").read_bytes()).hexdigest()
    (folder / "sources.json").write_text(json.dumps({"pictures_sha256": digest}), "utf-8")


def floats(folder: Path) -> None:
    kept(folder, np.load(folder / "pictures.npy").astype(np.float32))


def objects(folder: Path) -> None:
    kept(folder, np.array([{"a": "pickle"}], dtype=object))


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def sources_of(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "sources.json").write_text(text, "utf-8")


def edited(field: str, value: Any) -> Callable[[Path], None]:
    """A change of one field of the first line; None takes it out."""

    def change(folder: Path) -> None:
        first, *rest = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
        line = {**json.loads(first), field: value}
        if value is None:
            del line[field]
        (folder / "manifest.jsonl").write_text("\n".join([json.dumps(line), *rest]), "utf-8")

    return change


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut, id="pictures cut short"),
        pytest.param(other, id="pictures of another build"),
        pytest.param(floats, id="pictures that are no bytes"),
        pytest.param(objects, id="a pickle"),
        pytest.param(torn, id="a torn line"),
        pytest.param(fewer, id="a line too few"),
        pytest.param(without("manifest.jsonl"), id="no manifest"),
        pytest.param(without("pictures.npy"), id="no pictures"),
        pytest.param(sources_of("{"), id="sources are no JSON"),
        pytest.param(sources_of("[]"), id="sources of nothing"),
        pytest.param(edited("captions", None), id="no captions field"),
        pytest.param(edited("captions", []), id="no captions"),
        pytest.param(edited("captions", [1]), id="captions that are no text"),
        pytest.param(edited("weight", -1.0), id="a negative weight"),
        pytest.param(edited("weight", float("nan")), id="a weight that is no number"),
        pytest.param(edited("weight", "heavy"), id="a weight in words"),
    ],
)
def test_a_damaged_corpus_is_refused(own: Path, damage: Callable[[Path], object]) -> None:
    assert len(Corpus.load(own)) > 0
    damage(own)
    with pytest.raises(TrainingError, match=r"is damaged .*; rebuild it"):
        Corpus.load(own)


def test_a_build_that_was_cut_over_an_older_corpus_leaves_none(
    own: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "sources_of", _killed)  # the pictures are written, the manifest is still the old one
    with pytest.raises(KeyboardInterrupt):
        build(own, sources.folder, SMALL, sources.concepts, sources.packages)
    with pytest.raises(TrainingError, match="no corpus"):
        Corpus.load(own)


def _killed(*_: object) -> dict[str, Any]:
    raise KeyboardInterrupt


def test_a_stack_is_the_file_that_numpy_would_write(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (11, 3, 4, 3), np.uint8)
    with Stack(tmp_path / "grown.npy", (3, 4, 3)) as grown:
        for one in arrays:
            grown.append(one)
        assert not (tmp_path / "grown.npy").exists()
    np.testing.assert_array_equal(np.load(tmp_path / "grown.npy"), arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["grown.npy"]


def test_a_stack_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="uint8 arrays"), Stack(tmp_path / "grown.npy", (2,)) as grown:
        grown.append(np.zeros(2, np.uint8))
        grown.append(np.zeros(3, np.uint8))
    wrong: Any = np.zeros(2, np.float32)
    with pytest.raises(TrainingError, match="float32"), Stack(tmp_path / "grown.npy", (2,)) as grown:
        grown.append(wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_stack_whose_header_has_no_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack.np.lib.format, "write_array_header_1_0", _unpadded)
    monkeypatch.setattr(stack, "ROOM", 1)
    with pytest.raises(TrainingError, match="10 arrays"), Stack(tmp_path / "grown.npy", (2,)) as grown:
        for _ in range(10):
            grown.append(np.zeros(2, np.uint8))
    assert list(tmp_path.iterdir()) == []


def _unpadded(file: Any, facts: dict[str, Any]) -> None:
    file.write(repr(facts).encode())
