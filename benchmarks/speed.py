"""Seconds for one picture, and for a film of 48 frames that the model draws all of, as a user asks for them.

    python benchmarks/speed.py                                   # the embedded model and its student
    python benchmarks/speed.py --model emoji-fast --threads 2

Everything goes through the tasks with the model's own defaults: `segue.Image("a lion")`, and `segue.Transition` from a
lion to a tiger. "Draw" is from words to final latents, "decode" from these to pixels, "write" from pixels to a file.
Libraries and the model are loaded before, and one picture is made first. Calls of the network and rows in them (a
picture counts once per guidance term) are exact; seconds are those of the quickest of `--repeat` runs on this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import segue
from segue.errors import ModelNotFoundError, SegueError
from segue.media.clip import Clip, TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.tasks.sampling import Execution

MODELS = ("emoji", "emoji-fast")
PROMPTS = ("a lion", "a tiger")
FPS = 24.0


@dataclass(frozen=True)
class Took:
    """What making something took.

    Args:
        frames: of it.
        native: frames that the model drew, and that are no mixture of others.
        calls: of the network.
        rows: over all calls, guidance terms counted.
        draw: seconds from words to final latents.
        decode: seconds from these to pixels.
        write: seconds from pixels to a file.
    """

    frames: int
    native: int
    calls: int
    rows: int
    draw: float
    decode: float
    write: float

    @property
    def made(self) -> float:
        """Seconds until the pixels are there."""
        return self.draw + self.decode


def timed(model: LatentDiffusion, task: segue.Image | segue.Transition, execution: Execution, suffix: str) -> Took:
    """Make it once."""
    tally = Tally()
    start = time.perf_counter()
    clip = task.run(replace(model, denoiser=tally.watching(model.denoiser)), execution)
    drawn = time.perf_counter()
    pictures = clip.frames[:]
    decoded = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        Clip(TensorFrames.rounded(pictures), clip.fps).save(Path(folder) / f"made{suffix}")
    written = time.perf_counter()
    record = clip.provenance.record if clip.provenance else {}
    native = record.get("scores", {}).get("native_frames", len(pictures))
    seconds = (drawn - start, decoded - drawn, written - decoded)
    return Took(len(pictures), native, tally.calls, tally.rows, *seconds)


def measure(model: LatentDiffusion, frames: int, execution: Execution, repeat: int) -> dict[str, Took]:
    """The quickest of so many runs, of a picture and of a film."""
    picture = segue.Image(PROMPTS[0])
    film = segue.Transition(PROMPTS, seconds=frames / FPS, fps=FPS)
    timed(model, picture, execution, ".png")  # warms up
    jobs = {"picture": (picture, ".png"), "film": (film, ".mp4")}
    return {
        name: min((timed(model, task, execution, suffix) for _ in range(repeat)), key=lambda took: took.made)
        for name, (task, suffix) in jobs.items()
    }


def lines(table: dict[str, Any]) -> list[str]:
    """The table, for a person."""
    width, height = table["size"]
    settings = f"{table['steps']} steps, guidance {table['guidance_scale']:g}, {table['threads']} threads"
    said = [f"{table['model']}, {width}x{height}, {settings}"]
    said.append(f"{'':18}{'calls':>7}{'rows':>7}{'draw':>9}{'decode':>9}{'in all':>9}{'write':>9}")
    for name in ("picture", "film"):
        took = table[name]
        title = "one picture" if name == "picture" else f"{took['native']} native frames"
        seconds = (took["draw"], took["decode"], took["draw"] + took["decode"], took["write"])
        columns = "".join(f"{value:7.2f} s" for value in seconds)
        said.append(f"{title:18}{took['calls']:7d}{took['rows']:7d}{columns}")
    return said


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help=f"instead of {' and '.join(MODELS)}; may be repeated")
    parser.add_argument("--frames", type=int, default=48, help="of the film")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the quickest is shown")
    parser.add_argument("--threads", type=int, help="instead of all cores, or what OMP_NUM_THREADS says")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    tables: list[dict[str, Any]] = []
    for name in chosen.model or MODELS:
        try:
            model = segue.load(name)
            made = measure(model, chosen.frames, Execution(), chosen.repeat)
        except ModelNotFoundError as error:
            if chosen.model:
                raise SystemExit(str(error)) from None
            print(f"{name} is passed over: it does not come with this installation", file=sys.stderr)
            continue
        except SegueError as error:
            raise SystemExit(str(error)) from None
        settings = {"model": name, **asdict(model.defaults), "threads": torch.get_num_threads()}
        tables.append({**settings, **{key: asdict(took) for key, took in made.items()}})
    if chosen.json:
        print(json.dumps(tables, indent=2))
    else:
        print("\n\n".join("\n".join(lines(table)) for table in tables))


if __name__ == "__main__":
    main()
