"""Everything that Segue raises on purpose, as one tree.

    SegueError                    every error below; its message is one or two lines for a person
    ├── TaskError                 a field of a task is out of range, missing or contradicts another
    │   └── RecordError           a JSON record (the file beside a result) cannot be read or replayed
    ├── ModelError                a model cannot be found, read or used
    │   ├── ModelNotFoundError    no such folder, file, hub repository or embedded model
    │   ├── ModelAccessError      the hub refuses it (gated, private) or cannot be reached
    │   ├── CheckpointError       a file is damaged, of another architecture, or of another layout
    │   └── UnsafeFileError       the file could run code when loaded (a pickle)
    ├── ScheduleError             a noise schedule or solver that cannot be built or combined
    ├── MediaError                a picture, video or sound file cannot be read or written
    │   └── DiskError             the file system said no: full, read-only, a size limit, no such folder
    ├── ExhaustedError            the device ran out of memory; while doing what, and what to change
    ├── TrainingError             a recipe's configuration, data or checkpoint is unusable
    └── MissingExtraError         an optional dependency is not installed

Each message names what was expected, what came, and what to do about it. `InterruptedRunError` is no fault of the
user's: it carries what was finished when Ctrl-C came. `ExhaustedRunError` is one, too, that came by itself: the device
ran out of memory in the middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from segue.media.clip import Clip


class SegueError(Exception):
    """Base of all errors that Segue raises on purpose."""


class TaskError(SegueError, ValueError):
    """A field of a task is out of range, missing or contradicts another."""


class RecordError(TaskError):
    """A JSON record cannot be read or replayed."""


class ModelError(SegueError):
    """A model cannot be found, read or used."""


class ModelNotFoundError(ModelError):
    """No such folder, file, hub repository or embedded model."""


class ModelAccessError(ModelError):
    """The hub refuses the model or cannot be reached."""


class CheckpointError(ModelError):
    """A checkpoint is damaged, of another architecture, or of another layout."""


class UnsafeFileError(ModelError):
    """A file that could run code when loaded."""


class ScheduleError(SegueError, ValueError):
    """A noise schedule or solver that cannot be built or combined."""


class MediaError(SegueError):
    """A picture, video or sound file cannot be read or written."""


class DiskError(MediaError):
    """The file system refused to read or write."""


class ExhaustedError(SegueError):
    """The device ran out of memory."""


class TrainingError(SegueError):
    """A recipe's configuration, data or checkpoint is unusable."""


class MissingExtraError(SegueError, ImportError):
    """An optional dependency is not installed."""


class InterruptedRunError(SegueError):
    """Work was stopped by the user.

    Args:
        message: what was finished.
        partial: the clip of it, to be saved by the caller; None if nothing can be shown yet, or it is saved.
        path: where it was saved, if the interrupt came while it was written.
        frames: how many frames were saved there.
    """

    def __init__(self, message: str, partial: Clip | None = None, *, path: Path | None = None, frames: int = 0) -> None:
        super().__init__(message)
        self.partial = partial
        self.path = path
        self.frames = frames


class ExhaustedRunError(InterruptedRunError):
    """The device ran out of memory in the middle of a run; what was finished is carried along, as after Ctrl-C."""
