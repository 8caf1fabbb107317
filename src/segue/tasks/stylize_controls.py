"""What a film is drawn after besides words, as it is spelled: a kind of picture, where it comes from, how strongly."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segue.errors import TaskError

KINDS = ("softedge", "lineart", "canny", "depth", "pose", "tile", "shuffle", "palette")
OFF = "off"
"""In place of a control, where a preset has some and none is wanted."""
OF_LOOKS = ("shuffle", "palette")
"""Kinds that say what a film looks like, and are taken of the first reference, if there is one."""
_NUMBER = r"\d*\.?\d+(?:e-?\d+)?"
_SPELLING = re.compile(
    r"(?P<kind>[a-z]+)(?P<optional>\?)?(?:\+(?P<network>[^:]+?))?(?:(?P<ready>::)(?P<map>.+?)|:(?P<video>.+?))?"
    rf"(?:=(?P<scale>{_NUMBER}))?(?:@(?P<start>{_NUMBER})-(?P<stop>{_NUMBER}))?",
    flags=re.ASCII,
)


@dataclass(frozen=True)
class Wanted:
    """A control, as a user asks for it.

    Args:
        kind: of picture.
        source: a video, a folder or a picture that it is made of; None for the film, or the reference.
        ready: whether that holds pictures of this kind already.
        optional: whether it is left out where this machine, or this model, has no means for it.
        scale: how strongly it acts; 0 leaves it out.
        start, stop: the share of the run in which it does.
        network: that acts, by folder, file or hub repository; None for the one that is usual with the model.
    """

    kind: str
    source: str | None = None
    ready: bool = False
    optional: bool = False
    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    network: str | None = None

    @staticmethod
    def of(text: str) -> Wanted:
        """From KIND[?][+NETWORK][:VIDEO][=SCALE][@START-STOP]; ::VIDEO holds pictures of the kind already.

        Raises:
            TaskError: it is none, or a number is out of range.
        """
        found = _SPELLING.fullmatch(text.strip())
        if found is None or found["kind"] not in KINDS:
            raise TaskError(
                "a control is KIND[+NETWORK][:VIDEO][=SCALE][@START-STOP], such as softedge=0.7@0-0.8, and its kind "
                f"one of {', '.join(KINDS)}; got {text!r}"
            )
        scale, start, stop = (float(found[name] or usual) for name, usual in (("scale", 1), ("start", 0), ("stop", 1)))
        if not 0 <= start < stop <= 1:
            raise TaskError(f"a control acts over a part of the run, as @0-0.8: got {start:g} to {stop:g} in {text!r}")
        if scale > MOST:
            raise TaskError(f"the scale of a control must be in [0, {MOST:g}], got {scale:g} in {text!r}")
        ready = found["ready"] is not None
        return Wanted(
            found["kind"],
            found["map"] or found["video"],
            ready,
            found["optional"] is not None,
            scale,
            start,
            stop,
            found["network"],
        )

    @property
    def spelled(self) -> str:
        """As it would be typed."""
        network = "" if self.network is None else f"+{self.network}"
        source = "" if self.source is None else f"{'::' if self.ready else ':'}{self.source}"
        scale = "" if self.scale == 1 else f"={self.scale!r}"
        span = "" if (self.start, self.stop) == (0, 1) else f"@{self.start!r}-{self.stop!r}"
        return f"{self.kind}{'?' * self.optional}{network}{source}{scale}{span}"


MOST = 10.0
"""Of the scale of a control."""


def wanted(texts: tuple[str, ...]) -> tuple[Wanted, ...]:
    """Of all that are asked for; none, if the only one is "off".

    Raises:
        TaskError: see `Wanted.of`; or one stands beside "off".
    """
    if OFF in texts:
        if len(texts) > 1:
            raise TaskError(f"control {OFF} leaves out all: got {', '.join(texts)}")
        return ()
    return tuple(Wanted.of(text) for text in texts)
