"""A transition that can be watched while it is made: its pictures leave as soon as they are settled."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, NoReturn

from segue.errors import ExhaustedError, ExhaustedRunError, InterruptedRunError
from segue.media.clip import levels_of
from segue.tasks.sampling import with_threads
from segue.temporal.timeline import Shot

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

    from segue.media.clip import Clip
    from segue.tasks.album import Album
    from segue.tasks.transition_run import TransitionRun


@dataclass(frozen=True)
class Part:
    """A picture of a film that is being made.

    Args:
        number: of its frame, from 0; None for a glimpse: a finished picture of the tree, before it is known which
            frames the film will have. Where the model has a small decoder to show things, it decodes glimpses.
        position: where it lies on the line of the keys.
        picture: as it is written, 256 levels a colour.
    """

    number: int | None
    position: float
    picture: UInt8[Tensor, "3 h w"]


class TransitionStream:
    """An iterator of the pictures of a transition; the film is made while it is iterated.

    First come glimpses, coarse to fine, each once; then every frame, in order, as soon as it and those before it are
    settled. When that is depends on who decides: see docs/streaming.md. The model is the stream's until it has ended:
    where a film shares attention, what else is asked of the model meanwhile is answered by the same attention.

    Args:
        run: not begun yet.
        glimpses: whether pictures are shown before their frames are known; each is made once, shown or not.
    """

    def __init__(self, run: TransitionRun, glimpses: bool = True) -> None:
        self._run, self._glimpses = run, glimpses
        self._steps = run.steps()
        self._parts = self._made()
        self._seen = set[int]()
        self._next = 0
        self._clip: Clip | None = None

    def __iter__(self) -> Iterator[Part]:
        return self

    def __next__(self) -> Part:
        """The next picture.

        Raises:
            InterruptedRunError: on Ctrl-C while it is made, or as memory ran out, with the pictures that are finished.
        """
        try:
            with self._working():
                return next(self._parts)
        except KeyboardInterrupt:
            self.stop()
        except ExhaustedError as error:
            self._end(error)

    @property
    def clip(self) -> Clip:
        """The film, as `Transition.run` returns it; what is left to be made of it is made first."""
        for _ in self:
            pass
        if self._clip is None:
            raise ValueError("the stream was stopped, so that there is no film")
        return self._clip

    def stop(self) -> NoReturn:
        """End it, as Ctrl-C does between two pictures.

        Raises:
            InterruptedRunError: with the pictures that are finished.
        """
        self._end(KeyboardInterrupt())

    def _end(self, cause: KeyboardInterrupt | ExhaustedError) -> NoReturn:
        """Let the run tell what is finished."""
        with self._working():
            if self._clip is not None:
                exhausted = isinstance(cause, ExhaustedError)
                ended, why = (ExhaustedRunError, cause) if exhausted else (InterruptedRunError, "interrupted")
                raise ended(f"{why}; all pictures were finished", self._clip)
            self._steps.throw(cause)
        raise cause

    def _made(self) -> Iterator[Part]:
        while True:
            try:
                next(self._steps)
            except StopIteration as end:
                self._clip = end.value
                break
            yield from self._settled() if self._run.shown else self._glimpsed()
        yield from self._settled()

    def _glimpsed(self) -> Iterator[Part]:
        """The pictures that have become finished, from left to right."""
        run = self._run
        new = [name for name in run.tree.frames() if name not in self._seen and run.is_finished(name)]
        self._seen.update(new)
        if self._glimpses:
            pictures = self._pictures([Shot(name, name) for name in new])
            if run.sketches is not None:
                pictures = self._sketched(new, run.sketches)
            for name, picture in zip(new, pictures, strict=True):
                yield Part(None, run.tree.nodes[name].position, picture)

    def _sketched(self, names: Sequence[int], sketches: Album) -> Iterator[Tensor]:
        """Pictures of nodes by the small decoder."""
        run = self._run
        for first in range(0, len(names), sketches.batch):
            part = names[first : first + sketches.batch]
            latents = {name: run.grower.final(name) for name in part}
            yield from sketches.levels(part, latents, {name: run.tree.nodes[name].position for name in part})

    def _settled(self) -> Iterator[Part]:
        """The frames that can be shown after those before them."""
        run, shown = self._run, (self._run.shown or ())[self._next :]
        ready = list(takewhile(lambda shot: run.is_finished(shot.left) and run.is_finished(shot.right), shown))
        for shot, picture in zip(ready, self._pictures(ready), strict=True):
            left, right = (run.tree.nodes[name].position for name in (shot.left, shot.right))
            number, self._next = self._next, self._next + 1
            yield Part(number, left + shot.share * (right - left), picture)

    def _pictures(self, shots: Sequence[Shot]) -> Iterator[Tensor]:
        """Their pictures, one by one; those that must be developed are developed as many together as the album does."""
        album, batch = self._run.album, self._run.album.batch
        for place, shot in enumerate(shots):
            if _unknown(album, shot):
                names = dict[int, None]()
                for later in islice(shots, place, None):
                    names.update(dict.fromkeys(_unknown(album, later)))
                    if len(names) >= batch:
                        break
                _ = self._run.frames(tuple(Shot(name, name) for name in islice(names, batch)))[:]
            yield levels_of(self._run.frames((shot,)), slice(0, 1))[0]

    @contextmanager
    def _working(self) -> Generator[None]:
        """What a film sets while it is made, gradients and threads, is set back for those who look at its pictures."""
        import torch

        with torch.no_grad(), with_threads(self._run.execution.threads):
            yield


def _unknown(album: Album, shot: Shot) -> list[int]:
    """The nodes of a frame whose pictures are not at hand."""
    mixed = shot.left != shot.right
    return [name for name in (shot.left, shot.right) if not album.knows(name, exactly=mixed)]
