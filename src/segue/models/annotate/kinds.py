"""The kinds of control pictures, and who draws them."""

from __future__ import annotations

import numpy as np

from segue.errors import TaskError
from segue.models.annotate.annotator import Annotator, ByFrame

KINDS = ("canny", "softedge", "lineart", "tile", "shuffle", "palette", "depth", "pose", "none")
"""All kinds."""


def find_annotator(kind: str) -> Annotator:
    """Who draws control pictures of a kind.

    Args:
        kind: one of KINDS.

    Raises:
        TaskError: there is no such kind.
    """
    if kind not in KINDS:
        raise TaskError(f'there is no annotator "{kind}"; expected one of {", ".join(KINDS)}')
    from segue.models.annotate import colours, edges

    draws = {
        "canny": edges.canny,
        "softedge": edges.softedge,
        "lineart": edges.lineart,
        "tile": colours.tile,
        "palette": colours.palette,
        "shuffle": colours.shuffle,
        "none": _as_it_is,
    }
    if kind not in draws:
        raise TaskError(f'"{kind}" needs a network, which is not here yet')
    return ByFrame(kind, draws[kind])


def _as_it_is(picture: np.ndarray) -> np.ndarray:
    return picture.copy()
