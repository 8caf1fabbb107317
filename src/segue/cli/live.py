"""`segue live`: a film without an end, which turns to what is typed while it is shown."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output
from segue.cli.player import Player, Playing
from segue.cli.produce import check
from segue.cli.progress import Meter
from segue.errors import SegueError, TaskError
from segue.tasks.live import Live
from segue.tasks.sampling import Execution

if TYPE_CHECKING:
    from segue.media.writer import Writer
    from segue.tasks.live_stream import LiveStream

KEPT = 8
"""Pictures that wait in the player."""


@verb
def live(task: Live, model: ModelChoice, execution: Execution, output: Output, playing: Playing) -> int:
    """Show a film that turns to every line that is typed, and without -o keep nothing: segue live "a red apple" """
    path = output.output.expanduser() if output.output else None
    if path is not None:
        check(path, 2 if task.frames is None else task.frames, task.fps, output.crf)
    elif output.crf is not None or output.json:
        raise TaskError("--crf and --json are about a file: give its name with -o")
    with Meter(output.quiet) as meter:
        loaded = model.load(meter)
        for note in task.notes(loaded):
            meter.note(note)
        stream = task.start(loaded, execution)
    with ExitStack() as opened:
        player = writer = None
        if playing.play or path is None:
            player = opened.enter_context(Player(task.prompt, task.fps, live=KEPT))
            playing.told(player, meter)
        if path is not None:
            writer = opened.enter_context(_writer(path, stream, output.crf))
        _show(stream, meter, player, writer)
        if player is not None:
            player.end("it has ended")
    if path is not None:
        _save_record(stream, path, output.crf)
        if output.json or not output.quiet:
            print(_said(stream, path, as_json=output.json))
    return 0


def _show(stream: LiveStream, meter: Meter, player: Player | None, writer: Writer | None) -> None:
    """Pictures, no faster than the film plays if somebody looks, until it has its length, Ctrl-C, or no more is typed
    and it has arrived.
    """
    ended = Event()
    Thread(target=_listen, args=(stream, meter, ended), daemon=True).start()
    if sys.stdin is not None and sys.stdin.isatty():
        meter.note("type what is wanted, and Enter; Ctrl-D ends it where it has arrived, Ctrl-C at once")
    due = time.monotonic()
    try:
        for picture in stream:
            if writer is not None:
                writer.append(picture[None])
            if player is not None:
                player.note = stream.heading
                player.frame(0.0, picture)
                due = max(due + 1 / stream.task.fps, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
            if stream.task.seconds is None and ended.is_set() and stream.reached:
                break
    except KeyboardInterrupt:
        if writer is not None and not writer.count:
            raise
        meter.note(f"stopped after {stream.pictures} pictures")


def _listen(stream: LiveStream, meter: Meter, ended: Event) -> None:
    """Say every line to the stream; what is wrong with it is no reason to end."""
    for line in _lines():
        if not line.strip():
            continue
        try:
            for note in stream.say(line.strip()):
                meter.note(note)
        except SegueError as error:
            meter.note(str(error))
    ended.set()


def _lines() -> Iterator[str]:
    """What is typed, line by line. Not read through Python's buffer: a thread that waits there cannot be left behind
    at the end.
    """
    try:
        number = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        yield from sys.stdin or ()
        return
    rest = b""
    while chunk := os.read(number, 2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)
    yield rest.decode("utf-8", "replace")


def _writer(path: Path, stream: LiveStream, crf: int | None) -> Writer:
    from segue.media.writer import Writer

    return Writer(path, stream.task.fps, stream.size, crf=crf)


def _save_record(stream: LiveStream, path: Path, crf: int | None) -> None:
    from segue.media.clip import Provenance
    from segue.media.disk import record_path, written_whole
    from segue.tasks.record import WrittenAs

    record = {**stream.record().to_dict(), "output": asdict(WrittenAs(path.suffix, crf))}
    with written_whole(record_path(path)) as part:
        part.write_text(Provenance(record).to_json(), encoding="utf-8")


def _said(stream: LiveStream, path: Path, as_json: bool) -> str:
    (width, height), seconds = stream.size, stream.pictures / stream.task.fps
    if as_json:
        said = list(stream.log)
        return json.dumps({"path": str(path), "frames": stream.pictures, "seconds": round(seconds, 3), "say": said})
    return f"{path}  {width}x{height}, {stream.pictures} frames, {seconds:.4g} s; {len(stream.log)} prompts were said"
