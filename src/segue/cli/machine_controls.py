"""What a film can be drawn after on this machine: control networks, and annotators that make their pictures."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from segue.cli.machine import Finding
from segue.errors import SegueError


def control_findings() -> Iterator[Finding]:
    """Control networks that come along, those of each family that people usually take, and annotators."""
    yield from _embedded()
    yield from _usual()
    yield from _annotators()


def _embedded() -> Iterator[Finding]:
    from segue.zoo.controls import controls

    try:
        found = controls()
    except SegueError as error:
        yield Finding("embedded controls", "missing", str(error), "reinstall segue")
        return
    for card in found:
        yield Finding(f"controls of {card.base}", "fine", f"{', '.join(card.kinds)} ({card.name})")


def _usual() -> Iterator[Finding]:
    from segue.models.control_files import USUAL
    from segue.models.installed import has_network

    for family, repositories in USUAL.items():
        here = [kind for kind, repository in repositories.items() if has_network(repository)]
        away = [kind for kind in repositories if kind not in here]
        said = f"on this machine: {_listed(here)}" + (f"; not here: {_listed(away)}" if away else "")
        advice = f"--control {away[0]} fetches it from the hub; or give your own, --control {away[0]}+FOLDER"
        yield Finding(f"controls of {family}", "optional" if away else "fine", said, advice if away else "")


def _annotators() -> Iterator[Finding]:
    from segue.models.annotate.kinds import KINDS, NETWORKED

    drawn = [kind for kind in KINDS if kind not in (*NETWORKED, "none")]
    yield Finding("annotators", "fine", f"{', '.join(drawn)}, without a network")
    yield _depth()
    yield _pose()
    if importlib.util.find_spec("controlnet_aux") is not None:
        yield Finding("controlnet_aux", "fine", 'installed: find_annotator(kind, source="controlnet_aux")')


def _depth() -> Finding:
    from segue.models.annotate.depth import USUAL
    from segue.models.installed import has_network

    if has_network(USUAL):
        return Finding("annotator depth", "fine", USUAL)
    advice = "--control depth fetches it from the hub; depth::VIDEO takes pictures of depth that you have"
    return Finding("annotator depth", "optional", f"{USUAL} is not on this machine", advice)


def _pose() -> Finding:
    from segue.models.annotate.mediapipe import VARIABLE
    from segue.models.annotate.vitpose import USUAL
    from segue.models.installed import has_network

    named = os.environ.get(VARIABLE)
    if named:
        python = Path(named).expanduser()
        if python.is_file() and os.access(python, os.X_OK):
            return Finding("annotator pose", "fine", f"MediaPipe, by {python} ({VARIABLE})")
        advice = f"point {VARIABLE} to an interpreter that has mediapipe (docs/annotators.md), or unset it"
        return Finding("annotator pose", "missing", f"{VARIABLE}={named} is no interpreter that can be run", advice)
    if has_network(USUAL):
        return Finding("annotator pose", "fine", USUAL)
    advice = (
        f"--control pose fetches it from the hub; or set up MediaPipe (docs/annotators.md) and {VARIABLE}; "
        "pose::VIDEO takes pictures of poses that you have"
    )
    return Finding("annotator pose", "optional", f"{USUAL} is not on this machine", advice)


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(kinds) or "none"
