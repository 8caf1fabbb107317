"""A stream that runs: prompts go in from any thread, pictures come out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from segue.errors import ExhaustedError, ExhaustedRunError, InterruptedRunError, TaskError
from segue.tasks.frames import DecodedFrames, Developer, Sketcher
from segue.tasks.image import NoPlan
from segue.tasks.likeness import Likeness
from segue.tasks.live import Live, Said, spoken
from segue.tasks.masks import shown_to
from segue.tasks.record import Record, notes_on
from segue.tasks.sampling import Execution, checked_seeds, with_threads
from segue.types import Progress, RowId, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion
    from segue.temporal.stream import Place, Stream


class LiveStream:
    """A running stream: an iterator of pictures, one tick of the network each.

    Where the model has a small decoder, pictures are its own: quick ones, to be looked at; `developed` and `film` are
    by the model's decoder. It also shows what the first picture is going to be, at every tick until it is there, to
    `first_look` if that is set.

    The first picture takes as many ticks as a run has steps. After it, what the stream keeps does not grow, but for the
    words that were said. Any thread may `say`; one thread iterates.

    Args:
        task: with nothing left open.
        model: makes the pictures.
        execution: batches and threads; None lets all rows of a tick be one call of the network.
    """

    def __init__(self, task: Live, model: LatentDiffusion, execution: Execution | None = None) -> None:
        from segue.diffusion.solvers import find_solver
        from segue.temporal.stream import Stream

        self.task, self.model = task, model
        self._settings = settings = task.sampling.resolve(model, 1)
        fork = task.fork(settings.steps)
        self.execution = execution or Execution(max_batch=task.rows(model))
        if model.lora_curves:
            raise TaskError("the scale of a LoRA follows a curve over a film, and a stream has no end: give a number")
        with self.execution.applied(model) as ready:
            self._denoiser = ready.denoiser
        self._stream: Stream = Stream(
            self._denoiser,
            model.schedule(settings.steps, settings.size, solver=settings.solver),
            find_solver(settings.solver).solver,
            fork,
            task.between,
            settings.latent_shape(model),
            model.device,
            queue=task.queue,
            idle=self._next_seed if task.idle == "drift" else lambda: None,
            guidance_start=settings.guidance_start,
            mix=Likeness().mix,
            words=Likeness().words,
        )
        self.pictures = 0
        self._develop = Developer(model.codec)
        quick = model.preview.codec if model.preview and model.preview.use != "frames" else None
        self._look = self._develop if quick is None else Sketcher(self._develop, quick)
        self._seen: Tensor | None = None
        self.first_look: Callable[[Float[Tensor, "3 h w"]], None] | None = None
        self._lock, self._inbox, self._said = Lock(), deque[tuple[Said, "Place"]](), list[Said]()
        self._model_free, self._next = Lock(), Lock()
        self._shape: tuple[int, ...] | None = None
        self._last: tuple[RowId, Tensor] | None = None
        self._latest = self._place(task.prompt, task.seed)
        self._heading = self._stream.ask(self._latest)
        self._reached = False
        self._script = deque((said, self._place(said.prompt, said.seed)) for said in task.script)

    def say(self, prompt: str, seed: int | None = None) -> tuple[str, ...]:
        """Turn to a prompt; counts from the next picture that is asked for. From any thread.

        Args:
            prompt: what is wanted; (words:1.3) are weighted.
            seed: of its picture; None is that of the stream.

        Returns:
            What is good to know about it, a line each.

        Raises:
            TaskError: it is empty, or much longer than the first prompt.
        """
        seed = None if seed is None else checked_seeds([seed])[0]
        place = self._place(spoken(prompt), seed)
        with self._lock:
            self._inbox.append((Said(0, prompt, seed), place))
        return notes_on([prompt], self.model)

    def __iter__(self) -> Iterator[Float[Tensor, "3 h w"]]:
        return self

    def __next__(self) -> Float[Tensor, "3 h w"]:
        """The next picture, in [0, 1], on the CPU."""
        import torch

        if self.pictures == self.task.frames:
            raise StopIteration
        _, latents = self._advance()
        with self._alone(), torch.no_grad(), with_threads(self.execution.threads):
            picture = self._look(latents[None], [0], [0.0])[0]
        # One that Ctrl-C came before is none.
        self.pictures += 1
        self._seen = picture
        return picture

    @property
    def developed(self) -> Float[Tensor, "3 h w"]:
        """The picture that came last, as a film of the stream has it; in [0, 1], on the CPU.

        Raises:
            ValueError: there was none.
        """
        import torch

        if self._seen is None or self._last is None:
            raise ValueError("no picture has come yet")
        if self._look is self._develop:
            return self._seen
        with self._alone(), torch.no_grad(), with_threads(self.execution.threads):
            return self._develop(self._last[1][None], [0], [0.0])[0]

    @property
    def reached(self) -> bool:
        """Whether the picture that came last, or one before it, is that of the prompt that was said last."""
        with self._lock:
            return self._reached and not self._inbox and not self._script

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of its pictures, in pixels."""
        return self._settings.size

    @property
    def heading(self) -> str:
        """The prompt that was said last, as far as it counts already."""
        return self._said[-1].prompt if self._said else self.task.prompt

    @property
    def rows(self) -> int:
        """How many rows are on their way, of which each takes one step for every picture."""
        return self._stream.rows

    @property
    def log(self) -> tuple[str, ...]:
        """What was said so far, and when, as `Live.say` is spelled."""
        return tuple(str(said) for said in self._said)

    @property
    def replay(self) -> Live:
        """The task that shows these pictures again, to the bit, on the same machine.

        Raises:
            TaskError: there are more than a film has.
        """
        return self._replay(self.pictures)

    def film(self, progress: Progress = silent) -> Clip:
        """The rest of a stream that has an end, as a clip with its record; its pictures are latents until they are
        asked for.

        Raises:
            TaskError: it has none.
            InterruptedRunError: on Ctrl-C, or as memory ran out, with the pictures that are finished.
        """
        if self.task.frames is None:
            raise TaskError("a film has an end: give seconds")
        first = self.pictures
        shown: list[Tensor] = []
        try:
            while self.pictures < self.task.frames:
                shown.append(self._advance()[1])
                self.pictures += 1
                progress("streaming", self.pictures, self.task.frames)
        except (KeyboardInterrupt, ExhaustedError) as cause:
            self.pictures = first + len(shown)
            exhausted = isinstance(cause, ExhaustedError)
            ended, why = (ExhaustedRunError, cause) if exhausted else (InterruptedRunError, "interrupted")
            message = f"{why}; {len(shown)} of {self.task.frames} pictures were finished"
            raise ended(message, self._clip(shown, complete=False) if shown else None) from None
        return self._clip(shown)

    def record(self, frames: int | None = None, complete: bool = True) -> Record:
        """What makes the first so many of these pictures again; None is all of them.

        Raises:
            TaskError: there are more than a film has.
        """
        task = self._replay(self.pictures if frames is None else frames)
        notes = task.notes(self.model)
        return Record.of(task.name, task, NoPlan(), self.model, self.execution, {}, complete, notes)

    def _clip(self, shown: list[Tensor], complete: bool = True) -> Clip:
        from segue.media.clip import Clip, Provenance
        from segue.temporal.timeline import Shot

        # Pictures are decoded one by one, as the stream does it: the bits are then the same.
        latents = dict(enumerate(shown))
        shots = tuple(Shot(number, number) for number in latents)
        threads = self.execution.pinned().threads
        frames = DecodedFrames(latents, dict.fromkeys(latents, 0.0), shots, self._develop, 1, threads)
        return Clip(frames, self.task.fps, provenance=Provenance(self.record(complete=complete).to_dict()))

    def _replay(self, frames: int) -> Live:
        seconds = self.task.seconds if frames == self.task.frames else max(frames, 1) / self.task.fps
        # What was said after the last of them changes none.
        say = tuple(str(said) for said in self._said if said.after < frames)
        return replace(self.task, say=say, seconds=seconds)

    def _advance(self) -> tuple[RowId, Float[Tensor, "c h w"]]:
        """One tick, or those of the first picture; where the stream stands still, the last picture stays."""
        import torch

        self._take_in()
        with self._alone(), torch.no_grad(), with_threads(self.execution.threads):
            left = self._stream.tick()
            while left is None and self._last is None:
                self._sketch_first()
                left = self._stream.tick()
        self._last = left or self._last
        if self._last is None:
            raise ValueError("a stream that has begun has a last picture")
        self._reached = self._reached or self._last[0] == self._heading
        return self._last

    def _sketch_first(self) -> None:
        """Show what the network takes the first picture to be, by the small decoder."""
        estimate = self._stream.estimates.latest
        if self.first_look is not None and self._look is not self._develop and estimate is not None:
            self.first_look(self._look(estimate[:1], [0], [0.0])[0])

    def _take_in(self) -> None:
        """Hand over what is due, and what has been said since the last picture."""
        due = list[tuple[Said, "Place"]]()
        while self._script and self._script[0][0].after <= self.pictures:
            due.append(self._script.popleft())
        with self._lock:
            # Before the first picture nothing counts, since the first prompt would be gone.
            while self.pictures and self._inbox:
                said, place = self._inbox.popleft()
                due.append((replace(said, after=self.pictures), place))
            for said, place in due:
                self._said.append(said)
                self._latest, self._heading, self._reached = place, self._stream.ask(place), False

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Nobody else asks the model meanwhile: where it is offloaded, its parts take each other's place. Who waits is
        next, so that a stream in a hurry hears every word.
        """
        with self._next:
            self._model_free.acquire()
        try:
            yield
        finally:
            self._model_free.release()

    def _next_seed(self) -> Place:
        """The key to drift to: the latest prompt, with a seed of its own."""
        ((seed, _),) = self._latest.seeds.items()
        self._latest = replace(self._latest, seeds={seed + 1: 1.0})
        return self._latest

    def _place(self, prompt: str, seed: int | None) -> Place:
        import torch

        from segue.temporal.stream import Place

        with self._alone(), torch.no_grad():
            texts = shown_to(self.model, self.model.text([prompt, self.task.negative]), None, None)
        shape = tuple(texts.text.shape)
        if self._shape is not None and self._shape != shape:
            raise TaskError(
                f"prompts of a stream are mixed token by token, and this one is of {shape[1]} tokens where the first "
                f"made {self._shape[1]}: shorten it, or begin with a prompt as long"
            )
        self._shape, scale = shape, float(self._settings.guidance_scale[0])
        return Place(texts[[0]], texts[[1]], scale, {self.task.seed if seed is None else seed: 1.0})
