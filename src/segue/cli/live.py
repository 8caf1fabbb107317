"""`segue live`: a film without an end, which turns to what is typed while it is shown."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output
from segue.cli.player import Player, Playing
from segue.cli.produce import FAILED, INTERRUPTED, check
from segue.cli.progress import Meter
from segue.errors import MediaError, SegueError, TaskError
from segue.media.disk import partial_path, record_path, written_whole
from segue.tasks.live import MAX_FRAMES, Live
from segue.tasks.record import Record, WrittenAs
from segue.tasks.sampling import Execution

if TYPE_CHECKING:
    from segue.media.writer import Writer
    from segue.tasks.live_stream import LiveStream

KEPT = 8
"""Pictures that wait in the player."""


@dataclass(frozen=True)
class LiveExecution:
    """How the work is done; none of it changes what is made beyond the last digits.

    Args:
        max_batch: the most network rows in one call (a picture counts once per guidance term); left out, all of a tick.
        deterministic_batch: fill every call up to one number of rows (the largest multiple of 4 up to `max_batch`).
        threads: CPU threads; left out, what is set.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    max_batch: int | None = None
    deterministic_batch: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        self.of(1)

    def of(self, rows: int) -> Execution:
        """For ticks of so many rows."""
        if self.deterministic_batch:
            rows = math.ceil(rows / 4) * 4
        return Execution(rows if self.max_batch is None else self.max_batch, self.deterministic_batch, self.threads)


@verb
def live(task: Live, model: ModelChoice, execution: LiveExecution, output: Output, playing: Playing) -> int:
    """Show a film that turns to every line that is typed, and without -o keep nothing: segue live "a red apple" """
    path = output.output.expanduser() if output.output else None
    if path is not None:
        check(path, 2 if task.frames is None else task.frames, task.fps, output.crf)
    elif output.crf is not None or output.json:
        raise TaskError("--crf and --json are about a file: give its name with -o")
    model.check_previews(shown=playing.play or path is None)
    with Meter(output.quiet) as meter:
        loaded = model.load(meter)
        for note in task.notes(loaded):
            meter.note(note)
        stream = task.start(loaded, execution.of(task.rows(loaded)))
    code = 0
    with ExitStack() as opened:
        player = writer = None
        if playing.play or path is None:
            player = opened.enter_context(Player(task.prompt, task.fps, live=KEPT))
            playing.told(player, meter)
            stream.first_look = partial(player.frame, 0.0)
        if path is not None:
            writer = opened.enter_context(_writer(path, stream, output.crf))
        try:
            _show(stream, meter, player, writer)
        except (KeyboardInterrupt, SegueError) as error:
            code = _kept(error, stream, meter, writer)
        if writer is not None and code:
            # A whole film of an earlier run is worth more than a part of this one.
            writer.close(partial_path(writer.path))
        if player is not None:
            player.end("it has ended")
    if writer is not None:
        record = stream.record(writer.count, complete=not code)
        _save_record(record, writer.path, output.crf)
        if output.json or not output.quiet:
            print(_said(record, writer, as_json=output.json))
    return code


def _kept(error: KeyboardInterrupt | SegueError, stream: LiveStream, meter: Meter, writer: Writer | None) -> int:
    """The exit code after what ended a stream, whose pictures so far are kept. What leaves none to keep is raised."""
    interrupted = isinstance(error, KeyboardInterrupt)
    # Where the file itself fails, it is gone.
    empty = not interrupted if writer is None else not writer.count or isinstance(error, MediaError)
    if empty:
        raise error
    count = stream.pictures if writer is None else writer.count
    if not interrupted:
        print(f"segue: error: {error}; the {count} pictures before it are kept", file=sys.stderr)
        return FAILED
    meter.note(f"stopped after {count} pictures")
    # One without an end is ended so; one that was to have its length is cut.
    return INTERRUPTED if writer is not None and stream.task.frames is not None else 0


def _show(stream: LiveStream, meter: Meter, player: Player | None, writer: Writer | None) -> None:
    """Pictures, no faster than the film plays if somebody looks, until it has its length, Ctrl-C, or no more is typed
    and it has arrived.
    """
    ended = Event()
    Thread(target=_listen, args=(stream, meter, ended), daemon=True).start()
    if sys.stdin is not None and sys.stdin.isatty():
        meter.note("type what is wanted, and Enter; Ctrl-D ends it where it has arrived, Ctrl-C at once")
    due = time.monotonic()
    for picture in stream:
        if writer is not None and writer.count < MAX_FRAMES:
            developed = stream.developed
            with _whole():
                writer.append(developed[None])
            if writer.count == MAX_FRAMES and stream.task.frames is None:
                meter.note(f"{writer.path} has {MAX_FRAMES} pictures and takes no more")
                if player is None:
                    break
        if player is not None:
            player.note = stream.heading
            player.frame(0.0, picture)
            due = max(due + 1 / stream.task.fps, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        if stream.task.seconds is None and ended.is_set() and stream.reached:
            break


@contextmanager
def _whole() -> Generator[None]:
    """Ctrl-C waits for the end of a block, lest a picture is in the file and not counted."""
    heard = signal.getsignal(signal.SIGINT)
    if not callable(heard) or current_thread() is not main_thread():
        yield
        return
    came: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)
    if came:
        heard(signal.SIGINT, came[0])


def _listen(stream: LiveStream, meter: Meter, ended: Event) -> None:
    """Say every line to the stream; what is wrong with it is no reason to end."""
    try:
        for line in _lines():
            if not line.strip():
                continue
            try:
                for note in stream.say(line.strip()):
                    meter.note(note)
            except SegueError as error:
                meter.note(str(error))
    except Exception as error:
        meter.note(f"no more lines are heard ({type(error).__name__}: {error})")
    finally:
        ended.set()


def _lines() -> Iterator[str]:
    """What is typed, line by line. Not read through Python's buffer: a thread that waits there cannot be left behind
    at the end.
    """
    try:
        number = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        # By way of a map, as this generator's end would close what it yields from.
        yield from map(str, sys.stdin or ())
        return
    rest = b""
    while chunk := os.read(number, 2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)
    yield rest.decode("utf-8", "replace")


def _writer(path: Path, stream: LiveStream, crf: int | None) -> Writer:
    from segue.media.writer import Writer

    return Writer(path, stream.task.fps, stream.size, crf=crf)


def _save_record(record: Record, path: Path, crf: int | None) -> None:
    from segue.media.clip import Provenance

    whole = replace(record, output=WrittenAs(path.suffix, crf))
    with written_whole(record_path(path)) as part:
        part.write_text(Provenance(whole.to_dict()).to_json(), encoding="utf-8")


def _said(record: Record, writer: Writer, as_json: bool) -> str:
    (width, height), say = writer.size, record.fields["say"]
    if as_json:
        seconds = round(writer.seconds, 3)
        result = {"path": str(writer.path), "frames": writer.count, "seconds": seconds, "complete": record.complete}
        return json.dumps(result | {"say": list(say)})
    state = "" if record.complete else ", interrupted"
    size = f"{width}x{height}, {writer.count} frames, {writer.seconds:.4g} s{state}"
    return f"{writer.path}  {size}; {len(say)} prompts were said"
