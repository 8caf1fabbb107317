"""Settings of a film that is drawn anew, in groups, and the presets that fill in what was left open."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from segue.errors import TaskError
from segue.tasks.shots import spelled_cuts

Preset = Literal["text", "fashion", "image", "restore", "render3d"]
Start = Literal["noise", "noised", "inverted"]
Noise = Literal["shared", "moved", "independent"]
Fit = Literal["stretch", "crop", "pad"]
PRESETS = get_args(Preset)
FOLDER = Path(__file__).parent / "presets"
MOST_AROUND = 1000
STRENGTH = 0.6
BANK_POWER = 1.0
"""What a bank does usually: attention alone brings no colours where a network attends to small pictures alone."""
PLAIN = "self"
"""The attention of the model as it is."""


@dataclass(frozen=True)
class Beginning:
    """Where frames begin.

    Args:
        strength: share of the run, in (0, 1], that is run on each frame; the rest is kept of the film. Left out, 1
            where a control says what the film shows, else 0.6.
        start: noise, nothing of the film; noised, the film as far into noise as strength says; inverted, where the run
            backwards leads from the film. Left out, noise with a strength of 1, else noised.
        noise: shared, one for all frames; moved, it goes along with what the film shows; independent, each its own.
            Left out, shared.
        source_prompt: what the film shows, in words: for start inverted, and for methods that go by it.
        detail: of what the model's codec cannot hold of the film, how much is put back, from 0, nothing, to 1: then a
            film that is not changed is not blurred either. Left out, 0.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    strength: float | None = None
    start: Start | None = None
    noise: Noise | None = None
    source_prompt: str | None = None
    detail: float | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 < self.strength <= 1:
            raise TaskError(f"strength must be in (0, 1], got {self.strength}")
        for name, kinds in (("start", get_args(Start)), ("noise", get_args(Noise))):
            _check_kind(name, getattr(self, name), kinds)
        if self.start == "noise" and self.strength not in (None, 1):
            raise TaskError(
                f"what begins in nothing but noise is run wholly: leave out strength {self.strength:g}, or take start "
                "noised"
            )
        if self.detail is not None and not 0 <= self.detail <= 1:
            raise TaskError(f"detail must be in [0, 1], got {self.detail}")
        if self.start == "inverted" and self.noise not in (None, "shared"):
            raise TaskError(f"an inverted film begins in its own noise: leave out noise {self.noise}")

    def settled(self, controlled: bool, ours: bool = True) -> Beginning:
        """With nothing left open, but for the start of a method that has its own.

        Args:
            controlled: whether a control says what the film shows.
            ours: whether the method has none.

        Raises:
            TaskError: detail of a film is to be put back of which nothing is left.
        """
        whole = self.start == "noise" or controlled
        strength = (1.0 if whole else STRENGTH) if self.strength is None else float(self.strength)
        start = self.start or (("noise" if strength == 1 else "noised") if ours else None)
        if self.detail and start == "noise":
            raise TaskError(
                f"nothing of the film is left where frames begin in nothing but noise: leave out detail "
                f"{self.detail:g}, or take a strength below 1"
            )
        return Beginning(strength, start, self.noise or "shared", self.source_prompt, self.detail or 0.0)


@dataclass(frozen=True)
class References:
    """Pictures that show what the film should look like.

    Args:
        reference: a picture; may be repeated. Frames attend to it as to another frame (attention reference), controls
            of the kinds palette and shuffle are taken of the first, and an IP-Adapter is shown all.
        ip_adapter: an IP-Adapter for the model: a folder, a file or a hub repository.
        image_scale: how strongly it acts. Left out, 1.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    reference: tuple[str, ...] = ()
    ip_adapter: str | None = None
    image_scale: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", tuple(str(name) for name in self.reference))
        for name in ("ip_adapter", "image_scale"):
            if getattr(self, name) is not None and not self.reference:
                raise TaskError(f"{name} is about reference pictures, and there are none: add --reference PICTURE")
        if self.image_scale is not None:
            if self.ip_adapter is None:
                raise TaskError("image_scale says how strongly an IP-Adapter acts: name one, or leave it out")
            if not 0 < self.image_scale <= 2:
                raise TaskError(f"image_scale must be in (0, 2], got {self.image_scale}")


@dataclass(frozen=True)
class Agreement:
    """How frames are made to agree.

    Args:
        attention: what frames attend to, such as "first, previous, self": also next, every K, anchors, reference K,
            bank; "self" alone is the model as it is. Left out, "anchors, self".
        bank: a file of frames of another film, written by --save-bank, that this one is to look like: frames attend to
            these, too.
        bank_power: how far colours and contrast go towards those of the bank at every step, from 0, not at all, to 1.
            Left out, 1 where there is a bank.
        deflicker: at how many steps of the run they are blended along the movement of the film, evenly spread and none
            near its end; 0 at none. Left out, 1; and 0 with a model so small that it costs more than drawing anew.
        around: frames on each side that a frame is blended with, in the run and after it. Left out, 7.
        blend: how far the drawn frames are blended once more after the run, from 0, not at all, to 1. Left out, 1.
        grain: how much there is of the detail that blended frames do not share, from 0 to 1. Left out, 1.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    attention: str | None = None
    bank: str | None = None
    bank_power: float | None = None
    deflicker: int | None = None
    around: int | None = None
    blend: float | None = None
    grain: float | None = None

    def __post_init__(self) -> None:
        if self.deflicker is not None and self.deflicker < 0:
            raise TaskError(f"deflicker must be a number of steps from 0, got {self.deflicker}")
        if self.around is not None and not 1 <= self.around <= MOST_AROUND:
            raise TaskError(f"around must be a number of frames from 1 to {MOST_AROUND}, got {self.around}")
        for name in ("bank_power", "blend", "grain"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise TaskError(f"{name} must be in [0, 1], got {value}")
        if self.bank_power is not None and self.bank is None:
            raise TaskError("bank_power says how strongly a bank acts: name one (--bank FILE), or leave it out")

    def settled(self, attention: str) -> Agreement:
        """With nothing left open: frames attend as is said here, and a bank acts as usual, if there is one."""
        usual = replace(USUAL_AGREEMENT, bank=self.bank, bank_power=None if self.bank is None else BANK_POWER)
        return filled(replace(self, attention=attention), usual)


@dataclass(frozen=True)
class Shape:
    """The size in which frames are drawn, and how long a part of the film is drawn at once.

    Args:
        fit: how pictures of the film fill the size that they are drawn in: stretch changes their proportions as little
            as the model's grid demands, crop cuts, pad draws black bars that are cut off again. Left out, stretch.
        own_size: draw frames as large as they are in the film, and not about as large as the model's pictures; up to
            the model's grid there are black bars that are cut off again, unless fit says otherwise.
        model_size: leave the result in the size that it was drawn in, and do not enlarge it to that of the film.
        window: frames that are drawn at once. Left out, 64.
        overlap: frames that such a part has in common with the one before, at least, which are cross-faded. Left
            out, 8.
        cuts: where shots begin: auto finds them, none is one shot, or the numbers of frames, such as 48,120. Left
            out, auto.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    fit: Fit | None = None
    own_size: bool = False
    model_size: bool = False
    window: int | None = None
    overlap: int | None = None
    cuts: str | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_kind("fit", self.fit, get_args(Fit))
        if self.window is not None and self.window < 1:
            raise TaskError(f"window must be a number of frames from 1, got {self.window}")
        if self.overlap is not None and self.overlap < 0:
            raise TaskError(f"overlap must be a number of frames from 0, got {self.overlap}")
        if self.window is not None and self.overlap is not None and 3 * self.overlap > self.window:
            raise TaskError(
                f"overlap must be at most a third of window, {self.window} frames; got {self.overlap}: a frame is "
                "drawn twice at most"
            )
        if self.cuts is not None:
            object.__setattr__(self, "cuts", spelled_cuts(self.cuts))


def filled(asked: Any, other: Any) -> Any:
    """A dataclass, with what it leaves open taken from another of its kind; its parts likewise.

    Open is what is None, False or an empty list.
    """
    values: dict[str, Any] = {}
    for item in fields(asked):
        own, theirs = getattr(asked, item.name), getattr(other, item.name)
        if is_dataclass(own):
            values[item.name] = filled(own, theirs)
        elif own is None or own is False or own == ():
            values[item.name] = theirs
    return replace(asked, **values)


@cache
def preset_values(name: Preset) -> dict[str, Any]:
    """What a preset says: plain fields of the task, as they stand in its file."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))


def _check_kind(name: str, value: str | None, kinds: tuple[str, ...]) -> None:
    if value is not None and value not in kinds:
        raise TaskError(f"{name} must be {', '.join(kinds[:-1])} or {kinds[-1]}, got {value!r}")


USUAL_AGREEMENT = Agreement("anchors, self", deflicker=1, around=7, blend=1.0, grain=1.0)
USUAL_SHAPE = Shape("stretch", False, False, 64, 8, "auto")
