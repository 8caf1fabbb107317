"""Annotators of the package controlnet_aux, for those who have it: HED, PiDi, MiDaS, OpenPose and others."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import cv2
import numpy as np
import torch

from segue.errors import MissingExtraError, ModelAccessError, TaskError
from segue.models.annotate.annotator import ByFrame
from segue.models.devices import find_device

PREFIX = "controlnet_aux"
"""What a source begins with that means this package: "controlnet_aux", or "controlnet_aux:PidiNetDetector"."""

DETECTORS = {
    "softedge": "HEDdetector",
    "lineart": "LineartDetector",
    "depth": "MidasDetector",
    "pose": "OpenposeDetector",
}
"""Its usual class for a kind."""

_WEIGHTS = "lllyasviel/Annotators"
_STEP = 64  # pixels of which its detectors want multiples


def find_auxiliary(kind: str, source: str, device: str | torch.device | None) -> ByFrame:
    """An annotator of controlnet_aux; each frame by itself.

    Its weights come from the hub as PyTorch files, which that package reads by itself.

    Raises:
        TaskError: it has none for this kind.
        MissingExtraError: it is not installed, or lacks something.
        ModelAccessError: its weights cannot be had.
    """
    _, _, named = source.partition(":")
    name = named or DETECTORS.get(kind)
    if name is None:
        raise TaskError(f'controlnet_aux is used for {", ".join(DETECTORS)}; "{kind}" needs no network')
    place = find_device(device)
    try:
        package: Any = import_module(PREFIX)
    except ImportError as error:
        raise MissingExtraError(
            f"{source} needs the package controlnet_aux ({error}): pip install controlnet-aux, or leave the source "
            f'out: "{kind}" is drawn without it'
        ) from error
    if not hasattr(package, name):
        raise TaskError(f"controlnet_aux has no {name}; {kind} is usually {DETECTORS.get(kind, 'not in it')}")
    try:
        detector = getattr(package, name).from_pretrained(_WEIGHTS).to(place)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise ModelAccessError(f"controlnet_aux could not load {name} from {_WEIGHTS}: {why}") from error
    return ByFrame(kind, _Detected(detector))


class _Detected:
    """What a detector draws, at the size of the picture."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        short = max(_STEP, round(min(height, width) / _STEP) * _STEP)
        seen = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
        drawn = self.detector(seen, detect_resolution=short, image_resolution=short, output_type="np")
        drawn = np.asarray(drawn, np.float32) / 255
        if drawn.ndim == 2:
            drawn = np.repeat(drawn[..., None], 3, axis=2)
        if drawn.shape[:2] != (height, width):
            way = cv2.INTER_AREA if min(drawn.shape[:2]) > min(height, width) else cv2.INTER_LINEAR
            drawn = cv2.resize(drawn, (width, height), interpolation=way)
        return np.clip(drawn[..., :3], 0, 1)
