"""Settings of an edit, in groups, and what each method takes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, get_args

from segue.errors import TaskError
from segue.tasks.masks import MAX_FEATHER
from segue.tasks.stylize_settings import Noise

Method = Literal["sdedit", "cycle", "ddib", "instruct", "inpaint"]
METHODS = get_args(Method)
MOST_PASSES = 100
MOST_GUIDANCE = 1000.0
MOST_COLOURS = 256
_NUMBERED = re.compile(r"(?:(?P<frame>\d+)=)?(?P<file>.+)", flags=re.ASCII)


@dataclass(frozen=True)
class Change:
    """How far a picture is changed, and by what it is held on to. Each method takes some of these.

    Args:
        strength: share of the run that is run on the picture; the rest is kept of it. sdedit takes 0 to 1, of which 0
            changes nothing, cycle, ddib and inpaint above 0 to 1. Left out: sdedit 0.6, cycle 0.8, ddib and inpaint 1.
        noise: of a film: shared, one for all frames; moved, it goes along with what the film shows; independent, each
            its own. Left out, shared. Not for ddib, which adds none.
        source_prompt: what the picture shows now, in words: for cycle and ddib. Left out, nothing is said of it.
        source_guidance: how strongly these words are followed on the way into noise: for cycle and ddib. Left out, 1.
        eta: how much noise the steps of cycle add, above 0 and at most 1: the less, the nearer it stays. Left out, 0.1.
        rounds: how often each step of ddib into noise is asked again where it landed. Left out, 1.
        exact: ddib goes by steps that have an inverse: told the same, it comes back to the picture, but for rounding.
        passes: how often sdedit noises a picture and runs it again. Left out, 1.
        strokes: sdedit begins at the picture painted over in broad strokes of so many colours, such as 6, from 2 to
            256. Left out, at the picture.
        faithful: sdedit finds the greatest strength that keeps the picture so near: psnr=25 (dB) or ssim=0.8; of a
            film its first, middle and last frame, each of them.
        picture_guidance: how strongly instruct holds on to the picture. Left out, what suits the model, mostly 1.5.
        candidates: how many seeds are tried, from the task's own on; the best is taken, of a film by its first,
            middle and last frame, each edited by itself. Not for ddib, which has none.
        ranked_by: who says which is best: a folder or a hub repository of CLIP (the direction from source_prompt to the
            prompt, or else how well the prompt fits), or a judge's file (how well the prompt's noun does).
        source_model: the model that ddib goes into noise by, if it is another one than that which comes out.
        latent: the noise that ddib comes out of, as a run with save_latent kept it, perhaps by another model elsewhere.
            Nothing goes into noise then; steps, size and strength are those of the file.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    strength: float | None = None
    noise: Noise | None = None
    source_prompt: str | None = None
    source_guidance: float | None = None
    eta: float | None = None
    rounds: int | None = None
    exact: bool = False
    passes: int | None = None
    strokes: int | None = None
    faithful: str | None = None
    picture_guidance: float | None = None
    candidates: int | None = None
    ranked_by: str | None = None
    source_model: str | None = None
    latent: str | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise TaskError(f"strength must be in [0, 1], got {self.strength}")
        if self.noise is not None and self.noise not in get_args(Noise):
            raise TaskError(f"noise must be {', '.join(get_args(Noise))}; got {self.noise!r}")
        for name in ("source_guidance", "picture_guidance"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MOST_GUIDANCE:
                raise TaskError(f"{name} must be in [0, {MOST_GUIDANCE:g}], got {value}")
        if self.eta is not None and not 0 < self.eta <= 1:
            raise TaskError(
                f"eta must be above 0 and at most 1, got {self.eta:g}: cycle keeps a picture in the noise of its "
                "steps, and with eta 0 there is none (ddib is the method without)"
            )
        for name, least in (("rounds", 0), ("passes", 1), ("candidates", 2)):
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST_PASSES:
                raise TaskError(f"{name} must be a whole number from {least} to {MOST_PASSES}, got {value}")
        if self.strokes is not None and not 2 <= self.strokes <= MOST_COLOURS:
            raise TaskError(f"strokes are of 2 to {MOST_COLOURS} colours, got {self.strokes}")
        if (self.candidates is None) != (self.ranked_by is None):
            raise TaskError(
                "candidates are ranked by somebody: give both candidates and ranked_by, a folder of CLIP or a judge's "
                "file, or neither"
            )
        if self.candidates is not None and self.faithful is not None:
            raise TaskError("faithful finds a strength for one seed, and candidates try several: leave out one")
        if self.faithful is not None:
            budget_of(self.faithful)
            if self.strength is not None:
                raise TaskError(
                    f"faithful {self.faithful} finds a strength, and strength {self.strength:g} says one: leave out one"
                )

    def settled(self, method: Method) -> Change:
        """With what was left out as it is usual for a method.

        Raises:
            TaskError: the method has no use for something that is said.
        """
        said = [
            item.name
            for item in fields(self)
            if getattr(self, item.name) is not None and getattr(self, item.name) is not False
        ]
        if over := [name for name in said if name not in TAKEN[method]]:
            others = [other for other in METHODS if over[0] in TAKEN[other]]
            raise TaskError(
                f"{method} has no use for {over[0]}, which is for {' and '.join(others)}: leave it out, or take "
                f"--method {others[0]}"
            )
        if self.latent is not None and (known := [name for name in said if name in INTO_NOISE]):
            raise TaskError(
                f"the noise of {self.latent} is found already, and the file says how: leave out {known[0]}, or latent"
            )
        if self.exact and self.rounds == 0:
            raise TaskError("exact asks again at least once where it begins: leave out rounds 0, or exact")
        if self.strength == 0 and method != "sdedit":
            raise TaskError(f"strength must be above 0 and at most 1 for {method}, got 0")
        usual = {name: value for name, value in USUAL[method].items() if getattr(self, name) is None}
        if self.faithful is not None:
            del usual["strength"]
        if self.latent is not None:
            usual = {name: value for name, value in usual.items() if name not in (*INTO_NOISE, "strength")}
        return replace(self, **usual)


USUAL: Mapping[Method, Mapping[str, Any]] = {
    "sdedit": {"strength": 0.6, "noise": "shared", "passes": 1},
    "cycle": {"strength": 0.8, "noise": "shared", "source_prompt": "", "source_guidance": 1.0, "eta": 0.1},
    "ddib": {"strength": 1.0, "source_prompt": "", "source_guidance": 1.0, "rounds": 1},
    "instruct": {"noise": "shared"},
    "inpaint": {"strength": 1.0, "noise": "shared"},
}
"""What each method goes by where nothing is said."""

TRIED = ("candidates", "ranked_by")

TAKEN: Mapping[Method, tuple[str, ...]] = {
    "sdedit": (*USUAL["sdedit"], "strokes", "faithful", *TRIED),
    "cycle": (*USUAL["cycle"], *TRIED),
    "ddib": (*USUAL["ddib"], "exact", "source_model", "latent"),
    "instruct": (*USUAL["instruct"], "picture_guidance", *TRIED),
    "inpaint": (*USUAL["inpaint"], *TRIED),
}
"""The fields of `Change` that each method has a use for."""

INTO_NOISE = ("source_prompt", "source_guidance", "rounds", "exact", "source_model")
"""Those that say how ddib goes into noise."""


def budget_of(faithful: str) -> tuple[str, float]:
    """The measure and the number of psnr=25 or ssim=0.8.

    Raises:
        TaskError: it is none, or a number that no picture can have.
    """
    name, _, number = faithful.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if name not in LARGEST or not 0 < value < LARGEST[name]:
        raise TaskError(f"faithful is psnr=DB or ssim=SHARE, such as psnr=25 or ssim=0.8; got {faithful!r}")
    return name, value


LARGEST = {"psnr": 100.0, "ssim": 1.0}
"""What the measures of `faithful` stay below."""


@dataclass(frozen=True)
class MaskFile:
    """A file that says where pictures change.

    Args:
        file: a picture, or a film of as many frames as the one that is edited.
        frame: the frame that it is for; None for all.
    """

    file: str
    frame: int | None = None

    @staticmethod
    def of(text: str) -> MaskFile:
        """From FILE or FRAME=FILE."""
        found = _NUMBERED.fullmatch(text.strip())
        if found is None:
            raise TaskError(f"a mask is FILE or FRAME=FILE, such as sky.png or 0=sky.png; got {text!r}")
        return MaskFile(found["file"], None if found["frame"] is None else int(found["frame"]))

    @property
    def spelled(self) -> str:
        """As it would be typed."""
        return self.file if self.frame is None else f"{self.frame}={self.file}"


@dataclass(frozen=True)
class EditArea:
    """Where a picture changes. Left alone, everywhere.

    Args:
        mask: a picture, white where it changes and black where it is kept, to the last pixel; of a film, a film of as
            many masks, or FRAME=PICTURE, of which it may be repeated: frames between follow what moves.
        feather: over how many pixels inside the mask's edges the change sets in. Left out, a 64th of the shorter
            side: 8 of 512.
        still: one mask stays where it is, and does not follow what moves.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    mask: tuple[str, ...] = ()
    feather: float | None = None
    still: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", (self.mask,) if isinstance(self.mask, str) else tuple(map(str, self.mask)))
        for name in ("feather", "still"):
            if getattr(self, name) not in (None, False) and not self.mask:
                raise TaskError(f"{name} says something of a mask, and there is none: give that too (--mask PICTURE)")
        if self.feather is not None and not 0 <= self.feather <= MAX_FEATHER:
            raise TaskError(f"feather must be from 0 to {MAX_FEATHER:g} pixels, got {self.feather}")
        frames = [one.frame for one in self.files]
        if len(frames) > 1 and None in frames:
            raise TaskError(
                f"of several masks each is for a frame, FRAME=PICTURE; {self.files[frames.index(None)].file} says none"
            )
        if self.still and frames != [None]:
            raise TaskError("a mask that stays where it is, is one picture for all frames: leave out still, or FRAME=")
        if twice := [frame for frame in frames if frames.count(frame) > 1]:
            raise TaskError(f"there are two masks for frame {twice[0]}: give one")

    @property
    def files(self) -> tuple[MaskFile, ...]:
        """What is given."""
        return tuple(MaskFile.of(text) for text in self.mask)
