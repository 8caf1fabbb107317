"""Key points by MediaPipe's Holistic, which lives in an environment of its own.

MediaPipe 0.10.14 is the last release whose package holds its weights. It needs numpy below 2, protobuf below 5 and an
OpenCV that overwrites ours, and cannot be installed beside Segue. So it is given an environment of its own, once:

    python -m venv ~/mediapipe && ~/mediapipe/bin/pip install "mediapipe==0.10.14" "numpy<2"
    export SEGUE_MEDIAPIPE=~/mediapipe/bin/python

and is spoken to through pipes. It finds one person.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from segue.errors import MissingExtraError, ModelError
from segue.models.annotate import mediapipe_worker
from segue.models.annotate.annotator import check_pictures
from segue.types import KeyPoints
from segue.types.keypoints import POINTS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

VARIABLE = "SEGUE_MEDIAPIPE"
"""The environment variable that names the interpreter."""

_HOW = (
    "it needs an environment of its own: python -m venv ~/mediapipe && ~/mediapipe/bin/pip install "
    f'"mediapipe==0.10.14" "numpy<2", then set {VARIABLE}=~/mediapipe/bin/python'
)


class MediaPipe:
    """Finds one person's body, hands and face. Its interpreter is started by the first picture, and ends with it.

    Args:
        python: an interpreter that has mediapipe; that which SEGUE_MEDIAPIPE names, if left out.
        least: the confidence below which a point is absent.

    Raises:
        MissingExtraError: there is none.
    """

    def __init__(self, python: str | Path | None = None, *, least: float = 0.3) -> None:
        said = python or os.environ.get(VARIABLE)
        if not said:
            raise MissingExtraError(f"MediaPipe is not here: {_HOW}")
        self.python = Path(said).expanduser()
        if not (self.python.is_file() and os.access(self.python, os.X_OK)):
            raise MissingExtraError(f"{self.python} is no interpreter that can be run. MediaPipe: {_HOW}")
        self.least = least
        self._process: subprocess.Popen[bytes] | None = None
        self._said: Path | None = None

    def __call__(self, pictures: Float[Tensor, "t 3 h w"]) -> KeyPoints:
        """The key points of each picture by itself.

        Raises:
            MissingExtraError: the interpreter has no mediapipe.
            ModelError: it ended by itself.
        """
        check_pictures(pictures)
        height, width = pictures.shape[2:]
        found = [self._answer(np.ascontiguousarray(picture), (width, height)) for picture in _bytes(pictures)]
        every = torch.from_numpy(np.stack(found)) if found else torch.empty(0, POINTS, 3)
        sure = every[..., 2].clamp(0, 1)
        sure = torch.where((sure >= self.least) & every[..., 0].isfinite(), sure, torch.zeros(()))
        places = torch.where(sure[..., None] > 0, every[..., :2], torch.nan)
        return KeyPoints(places[:, None], sure[:, None], (width, height))

    def _answer(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        process = self._process or self._started()
        if process.stdin is None or process.stdout is None:
            raise ModelError("MediaPipe was started without pipes")
        wanted = POINTS * 3 * 4
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(size).encode() + b"\n" + picture.tobytes())
            process.stdin.flush()
        answer = process.stdout.read(wanted)
        if len(answer) != wanted:
            raise ModelError(f"MediaPipe ended in the middle: {self._last_words()}")
        return np.frombuffer(answer, np.float32).reshape(POINTS, 3).copy()

    def _started(self) -> subprocess.Popen[bytes]:
        folder = tempfile.TemporaryDirectory(prefix="segue-mediapipe-")
        self._said = Path(folder.name) / "said"
        with self._said.open("wb") as said:
            try:
                process = subprocess.Popen(
                    [self.python, "-I", mediapipe_worker.__file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                )
            except OSError as error:
                folder.cleanup()
                raise MissingExtraError(f"{self.python} is no interpreter that can be run ({error}): {_HOW}") from error
        weakref.finalize(self, _end, process, folder)
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            process.wait()
            raise MissingExtraError(f"{self.python} cannot run MediaPipe ({self._last_words()}): {_HOW}")
        self._process = process
        return process

    def _last_words(self) -> str:
        lines = self._said.read_text(errors="replace").strip().splitlines() if self._said else []
        return lines[-1][:300] if lines else "it said nothing"


def _bytes(pictures: Tensor) -> np.ndarray:
    return pictures.float().cpu().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()


def _end(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    folder.cleanup()
