"""The kinds of control pictures, and who draws them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from segue.errors import TaskError
from segue.models.annotate.annotator import Annotator, ByFrame

if TYPE_CHECKING:
    import torch

    from segue.types import KeyPoints

KINDS = ("canny", "softedge", "lineart", "tile", "shuffle", "palette", "depth", "pose", "none")
"""All kinds."""

NETWORKED = ("depth", "pose")
"""Those that need a network, and so something that may not be on this machine."""

_MEDIAPIPE = "mediapipe"


def find_annotator(
    kind: str,
    *,
    source: str | None = None,
    device: str | torch.device | None = None,
    detector: str | None = None,
    steady: Callable[[KeyPoints], KeyPoints] | None = None,
) -> Annotator:
    """Who draws control pictures of a kind.

    Args:
        kind: one of KINDS.
        source: of its network: for depth and pose a folder or hub repository of transformers, for pose also
            "mediapipe" or "mediapipe:" and an interpreter that has it; "controlnet_aux" where that is installed. The
            usual one, if left out: for pose MediaPipe, where SEGUE_MEDIAPIPE names its interpreter and no detector is
            given, else ViTPose. Kinds without a network have none.
        device: where the network works; None takes the fastest.
        detector: for pose: a folder or hub repository of a network that detects persons; without one, each picture is
            taken to show one person.
        steady: for pose: what puts the key points of a clip in order, such as `segue.motion.keypoints.smoothed`.

    Raises:
        TaskError: there is no such kind, or it has no use for an argument.
        ModelError: the network cannot be had, is of another kind, or the device is not there.
        MissingExtraError: the package that is asked for is not here.
    """
    if kind not in KINDS:
        raise TaskError(f'there is no annotator "{kind}"; expected one of {", ".join(KINDS)}')
    if kind != "pose" and (detector is not None or steady is not None):
        raise TaskError(f'a detector and a way to put key points in order are for "pose", not for "{kind}"')
    name = (source or "").partition(":")[0]
    if name == "controlnet_aux":
        from segue.models.annotate.auxiliary import find_auxiliary

        return find_auxiliary(kind, source or name, device)
    if kind == "depth":
        from segue.models.annotate.depth import find_depth

        return find_depth(source, device)
    if kind == "pose":
        return _pose(source, device, detector, steady)
    if source is not None:
        raise TaskError(f'"{kind}" is drawn without a network; leave out the source "{source}"')
    return _drawn(kind)


def _drawn(kind: str) -> Annotator:
    from segue.models.annotate import colours, edges

    draws: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "canny": edges.canny,
        "softedge": edges.softedge,
        "lineart": edges.lineart,
        "tile": colours.tile,
        "palette": colours.palette,
        "shuffle": colours.shuffle,
        "none": np.copy,
    }
    return ByFrame(kind, draws[kind])


def _pose(
    source: str | None,
    device: str | torch.device | None,
    detector: str | None,
    steady: Callable[[KeyPoints], KeyPoints] | None,
) -> Annotator:
    from segue.models.annotate.mediapipe import VARIABLE, MediaPipe
    from segue.models.annotate.pose import Pose

    if source is None and detector is None and os.environ.get(VARIABLE):
        source = _MEDIAPIPE
    name, _, python = (source or "").partition(":")
    if name == _MEDIAPIPE:
        if detector is not None:
            raise TaskError("MediaPipe detects a person by itself; leave out the detector")
        return Pose(MediaPipe(python or None), steady)
    from segue.models.annotate.vitpose import find_vitpose

    return Pose(find_vitpose(source, detector, device), steady)
