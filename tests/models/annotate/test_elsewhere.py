"""Annotators that live outside: MediaPipe behind pipes, controlnet_aux; each by a stand-in, and missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from segue.errors import MissingExtraError, ModelAccessError, ModelError, TaskError
from segue.models.annotate import find_annotator
from segue.models.annotate import mediapipe_worker as worker
from segue.models.annotate.mediapipe import VARIABLE, MediaPipe
from segue.types.keypoints import BODY, FACE, LEFT_HAND, RIGHT_HAND

STAND_IN = """
import sys
from types import SimpleNamespace as Bag

def landmarks(count, start):
    sure = [0.2 if i == 16 else 0.9 for i in range(count)]
    return Bag(landmark=[Bag(x=(start + i) / 1000, y=i / 1000, visibility=sure[i]) for i in range(count)])

class Holistic:
    def __init__(self, **options):
        assert options["static_image_mode"]
    def __enter__(self):
        print("a library that talks")
        return self
    def __exit__(self, *error):
        pass
    def process(self, picture):
        if picture.mean() > 250:
            raise SystemExit("the picture is too white")
        left = landmarks(21, 300) if picture.mean() > 100 else None
        return Bag(pose_landmarks=landmarks(33, 0), right_hand_landmarks=landmarks(21, 200),
                   left_hand_landmarks=left, face_landmarks=landmarks(468, 400))

solutions = Bag(holistic=Bag(Holistic=Holistic))
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """What has a mediapipe: ours, told of a stand-in before it runs the worker."""
    (tmp_path / "mediapipe.py").write_text(STAND_IN)
    script = tmp_path / "python"
    start = (
        f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    script.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -c "{start}" "$@"\n')
    script.chmod(0o755)
    return script


def test_mediapipe_answers_through_pipes_in_our_order(interpreter: Path) -> None:
    find = MediaPipe(interpreter)
    pictures = torch.stack([torch.full((3, 40, 100), grey) for grey in (0.3, 0.6)])
    points = find(pictures)
    assert points.size == (100, 40) and points.persons == 1 and len(points) == 2
    places = points.places[:, 0]
    # MediaPipe's 11 and 12 are the left and right shoulder, 0 the nose; x is a share of the width.
    torch.testing.assert_close(places[0, 0], torch.tensor([-0.5, -0.5]))
    torch.testing.assert_close(places[0, 2], torch.tensor([1.2 - 0.5, 0.48 - 0.5]))
    torch.testing.assert_close(places[0, 1], torch.tensor([1.15 - 0.5, 0.46 - 0.5]))
    assert bool(places[0, 4].isnan().all()), "a wrist that is hardly seen is absent"
    assert int(points.present[0, 0, BODY].sum()) == 17
    assert bool(points.present[:, 0, RIGHT_HAND].all()) and bool(points.present[:, 0, FACE].all())
    assert points.present[:, 0, LEFT_HAND].any(1).tolist() == [False, True]
    torch.testing.assert_close(places[1, LEFT_HAND][3], torch.tensor([30.3 - 0.5, 0.12 - 0.5]))
    assert torch.equal(find(pictures[1:]).places.nan_to_num(-9), points.places[1:].nan_to_num(-9))
    assert find(pictures[:0]).size == (100, 40)
    with pytest.raises(ModelError, match="in the middle: the picture is too white"):
        find(torch.ones(1, 3, 40, 100))


def test_an_interpreter_that_is_named_is_taken(interpreter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(interpreter))
    drawn = find_annotator("pose")(torch.full((1, 3, 64, 64), 0.6))
    assert float(drawn.max()) > 0.5, "somebody is drawn"


def test_the_tables_of_the_worker_are_whole() -> None:
    face = [*worker.JAW, *worker.BROWS, *worker.NOSE, *worker.EYES, *worker.LIPS]
    assert len(face) == 68 and max(face) < 468
    assert len(worker.BODY) == 18 and sorted(worker.BODY)[1:] == sorted(set(worker.BODY) - {-1})


def test_mediapipe_that_is_not_there_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(MissingExtraError, match=f"pip install.*{VARIABLE}"):
        find_annotator("pose", source="mediapipe")
    with pytest.raises(MissingExtraError, match="no interpreter"):
        find_annotator("pose", source=f"mediapipe:{tmp_path / 'none'}")
    with pytest.raises(MissingExtraError, match="no interpreter"):
        find_annotator("pose", source=f"mediapipe:{tmp_path}")
    scrap = tmp_path / "scrap"
    scrap.write_bytes(b"no program")
    scrap.chmod(0o755)
    with pytest.raises(MissingExtraError, match="no interpreter"):
        find_annotator("pose", source=f"mediapipe:{scrap}")(torch.zeros(1, 3, 8, 8))
    monkeypatch.setenv(VARIABLE, sys.executable)
    annotate = find_annotator("pose", source="mediapipe")
    with pytest.raises(MissingExtraError, match="No module named 'mediapipe'"):
        annotate(torch.zeros(1, 3, 8, 8))


class Detector:
    """As those of controlnet_aux: bytes in, bytes out, at multiples of 64."""

    fails: bool = False

    @classmethod
    def from_pretrained(cls, source: str) -> Detector:
        if cls.fails:
            raise OSError(f"{source} cannot be had")
        return cls()

    def to(self, device: torch.device) -> Detector:
        return self

    def __call__(self, picture: np.ndarray, **options: Any) -> np.ndarray:
        assert picture.dtype == np.uint8 and options["output_type"] == "np"
        assert options["detect_resolution"] % 64 == 0
        return np.full((64, 128), 255 - int(picture.mean()), np.uint8)


def test_controlnet_aux_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("controlnet_aux")
    vars(package).update(HEDdetector=Detector, PidiNetDetector=Detector)
    monkeypatch.setitem(sys.modules, "controlnet_aux", package)
    pictures = torch.full((2, 3, 50, 90), 0.2)
    for source in ("controlnet_aux", "controlnet_aux:PidiNetDetector"):
        annotate = find_annotator("softedge", source=source, device="cpu")
        drawn = annotate(pictures)
        assert drawn.shape == pictures.shape
        torch.testing.assert_close(drawn, torch.full_like(pictures, 0.8))
    with pytest.raises(TaskError, match="no NoDetector"):
        find_annotator("softedge", source="controlnet_aux:NoDetector", device="cpu")
    with pytest.raises(TaskError, match='"canny" needs no network'):
        find_annotator("canny", source="controlnet_aux")
    monkeypatch.setattr(Detector, "fails", True)
    with pytest.raises(ModelAccessError, match="could not load HEDdetector"):
        find_annotator("softedge", source="controlnet_aux", device="cpu")


def test_controlnet_aux_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    with pytest.raises(MissingExtraError, match='pip install controlnet-aux, or leave the source out: "softedge"'):
        find_annotator("softedge", source="controlnet_aux", device="cpu")
