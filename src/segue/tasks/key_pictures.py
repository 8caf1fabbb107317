"""Keys that are pictures or trajectories: which, from where, and how they fit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import TaskError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.diffusion.schedule import Schedule
    from segue.models.recorded import Origin, Recorded

_FORM = re.compile(r"(?P<key>\d+|first|last)=(?P<path>.+?)(?:@(?P<seconds>\d+(?:\.\d+)?)s?)?", re.ASCII)


TRAJECTORY = ".safetensors"
"""What the name of a file ends in that is no picture, but a run of a model."""


@dataclass(frozen=True)
class KeyFile:
    """A file that a key is given by.

    Args:
        key: its number, from 0.
        path: of the file.
    """

    key: int
    path: Path

    @staticmethod
    def parse(text: str, keys: int) -> KeyPicture | KeyTrajectory:
        """From KEY=FILE or KEY=FILE@SECONDS, where KEY is 1 and up, first or last.

        Raises:
            TaskError: it has another form, or there is no such key.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise TaskError(
                f"a key picture is KEY=FILE, or KEY=VIDEO@SECONDS, such as first=photo.jpg or 2=clip.mp4@1.5; "
                f"got {text!r}"
            )
        number = {"first": 1, "last": keys}.get(found["key"]) or int(found["key"])
        if not 1 <= number <= keys:
            raise TaskError(f"key picture {text!r} is for key {number}, and the keys are 1 to {keys}")
        path = Path(found["path"]).expanduser()
        if path.suffix.lower() != TRAJECTORY:
            return KeyPicture(number - 1, path, float(found["seconds"] or 0))
        if found["seconds"] is not None:
            raise TaskError(f"{path} is a trajectory, of which all is taken: leave out @{found['seconds']}")
        return KeyTrajectory(number - 1, path)

    def sha256(self) -> str:
        """Of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class KeyPicture(KeyFile):
    """A picture, or a moment of a video.

    Args:
        key: its number, from 0.
        path: a picture or a video.
        seconds: which moment of the video.
    """

    seconds: float = 0.0

    def load(self, size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
        """The picture, scaled and cut to (width, height) in pixels.

        Raises:
            MediaError: it cannot be read.
            TaskError: the video ends before that moment.
        """
        from segue.media.reader import read
        from segue.media.resize import fit

        clip = read(self.path)
        frame = int(self.seconds * float(clip.fps))
        if frame >= len(clip):
            raise TaskError(
                f"{self.path} has {float(clip.seconds):.3g} seconds; there is no picture at {self.seconds:g}"
            )
        return fit(clip.frames, size, "crop")[frame : frame + 1][0]

    def note(self, size: tuple[int, int]) -> str | None:
        """What is said about a picture that does not have this size."""
        from segue.media.reader import read

        own = read(self.path).size
        if own == size:
            return None
        return f"{self.path} has {own[0]}x{own[1]} pixels; it is scaled and cut to {size[0]}x{size[1]}"


@dataclass(frozen=True)
class KeyTrajectory(KeyFile):
    """A run that was recorded: the key is what it ended with."""

    def read(self) -> Recorded:
        """The run.

        Raises:
            ModelError: there is no such file, or it is no trajectory.
        """
        from segue.models.recorded import Recorded

        return Recorded.read(self.path)

    def load(self, told: Origin, schedule: Schedule, shape: tuple[int, int, int]) -> Recorded:
        """The run, if it fits a film.

        Args:
            told: what a run of this key would be of.
            schedule: of the film's runs.
            shape: (channels, height, width) of its latents.

        Raises:
            ModelError: there is no such file, or it is no trajectory.
            TaskError: its model, its latents' shape, its steps or its noise levels are others.
        """
        run = self.read()
        by = run.origin
        if by.sha256 != told.sha256:
            raise TaskError(
                f"{self.path} was made by {by.model} ({by.sha256[:12]}), and this film is made by {told.model} "
                f"({told.sha256[:12]}): take that model, or record the trajectory anew"
            )
        if (own := tuple(run.latents.shape[1:])) != shape:
            raise TaskError(
                f"{self.path} has latents of {own[0]} x {own[1]} x {own[2]} (channels, height, width), and this film's "
                f"are {shape[0]} x {shape[1]} x {shape[2]}: make both of one size"
            )
        if run.steps != len(schedule):
            raise TaskError(f"{self.path} has {run.steps} steps, and this film's runs {len(schedule)}: make them agree")
        if not run.fits(schedule):
            raise TaskError(
                f"{self.path} was made with {by.solver}, whose noise levels are not those of {told.solver}: "
                "make both with one solver"
            )
        return run

    def note(self, prompt: str) -> str | None:
        """What is said about a run of another prompt than that of its key."""
        own = self.read().origin.prompt
        return None if own == prompt else f"{self.path} is of {own!r}; near it, the model is told {prompt!r}"


def key_pictures(texts: Sequence[str], keys: int) -> dict[int, KeyPicture | KeyTrajectory]:
    """By the number of the key.

    Raises:
        TaskError: see `KeyFile.parse`; or two are for one key.
    """
    found: dict[int, KeyPicture | KeyTrajectory] = {}
    for text in texts:
        picture = KeyFile.parse(text, keys)
        if picture.key in found:
            raise TaskError(f"key {picture.key + 1} has two pictures, {found[picture.key].path} and {picture.path}")
        found[picture.key] = picture
    return found


def unchanged(pictures: Mapping[int, KeyFile], hashes: Sequence[str]) -> None:
    """Whether the files are those that a plan was made with.

    Raises:
        TaskError: one is not; the message says which.
    """
    for (_, picture), known in zip(sorted(pictures.items()), hashes, strict=True):
        if picture.sha256() != known:
            raise TaskError(f"{picture.path} is not the file that this was made with: its contents have changed")
