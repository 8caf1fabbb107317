"""Other processes that help to make a long clip: they load the same model, and take gaps that nobody is at.

There is nothing to coordinate: a gap depends on its two key frames alone, whoever makes it holds a lock that ends with
its process, and a finished gap is a file that is whole or not there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from segue.errors import TaskError
from segue.media.disk import disk_errors, written_whole

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.record import ModelRecord, Record

JOB = "job.json"
MOST = 256


def check_workers(count: int, model: LatentDiffusion, how: str) -> None:
    """Find out whether so many processes can share a clip.

    Raises:
        TaskError: they cannot.
    """
    if not 1 <= count <= MOST:
        raise TaskError(f"workers must be from 1 to {MOST}, got {count}")
    if count > 1 and how != "keys":
        raise TaskError(
            "frames that are denoised together, or after each other, are made by one process: leave workers out, or "
            "take long keys"
        )
    if count > 1 and not model.weights:
        raise TaskError(f"other processes load the model by its name, and {model.name!r} is no file: take 1 worker")


@contextmanager
def helped(folder: Path, record: Record, count: int) -> Generator[None]:
    """So many processes work in a folder, this one among them, until the end of the block.

    Args:
        folder: of the clip, with its outline.
        record: what is made, by which model, and how.
        count: of processes.
    """
    if count == 1:
        yield
        return
    with written_whole(folder / JOB) as part:
        part.write_text(json.dumps(record.to_dict()), encoding="utf-8")
    running = list[tuple[subprocess.Popen[bytes], Path, IO[bytes]]]()
    try:
        for number in range(1, count):
            path = folder / f"worker-{number}.log"
            with disk_errors(path):
                log = path.open("wb")
            words = [sys.executable, "-m", __name__, str(folder), str(os.getpid())]
            started = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
            running.append((started, path, log))
        yield
    finally:
        for process, path, log in running:
            ended = process.poll()
            process.kill()
            process.wait()
            log.close()
            if ended:
                said = path.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
                warnings.warn(f"a worker ended early, and the others made its part: {said[0]}", stacklevel=2)


def load_as_recorded(made: ModelRecord) -> LatentDiffusion:
    """The model of a record, on the device that it ran on."""
    from segue.models.placement import Placement
    from segue.zoo.load import load

    return load(
        made.name,
        device=made.device,
        dtype=made.dtype,
        prediction=made.prediction,
        config=made.config,
        loras=dict(made.loras) or None,
        motion=made.motion_adapter,
        placement=Placement(storage=made.storage, offload=made.offload, tile=made.tile, compile=made.compile),
        profile=made.profile,
        preview=made.preview_decoder if made.preview_for == "frames" else None,
        preview_for="frames" if made.preview_for == "frames" else "shown",
    )


def work(folder: Path, parent: int) -> None:
    """Make gaps of the clip in a folder until none is left, or the process that asked for it has ended."""
    import time

    from segue.tasks.animate import Animate
    from segue.tasks.animate_long import Keys
    from segue.tasks.rerun import Rerun

    def alone(what: str = "", done: float = 0, total: float = 0) -> None:
        if os.getppid() != parent:
            raise SystemExit(0)

    job = Rerun.read(folder / JOB)
    assert isinstance(job.task, Animate) and job.record.model is not None
    model = load_as_recorded(job.record.model)
    job.differences(model)
    with job.record.execution.applied(model) as ready:
        keys = Keys(job.task, ready, job.record.execution, folder, alone)
        while not keys.finished:
            alone()
            if not keys.make_next():
                time.sleep(0.2)
        keys.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
