"""Seconds for one picture, and for a film of 48 frames that the model draws all of, as a user asks for them.

    python benchmarks/speed.py                                   # the embedded model and its student
    python benchmarks/speed.py --model emoji-fast --threads 2
    python benchmarks/speed.py --levers                          # what makes them quicker, each by itself
    python benchmarks/speed.py --size sdxl-turbo --count         # calls and rows of the reference and of Segue
    python benchmarks/speed.py --size sd-turbo --pixels 256 --branches 4 --dtype bfloat16    # and their seconds

The first two go as follows; the others are told in `levers.py` and `serial.py`.

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
from fullsize import SIZES, arithmetic, built, matmul_peak
from levers import COMPILED, LEVERS, pulled
from levers import lines as levers_lines
from serial import FEW, Course, by_waves, one_by_one

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


def against_reference(chosen: argparse.Namespace) -> dict[str, Any]:
    """One film by the reference's schedule and by Segue's, on random weights of a full-size model."""
    size = SIZES[chosen.size]
    steps = chosen.steps or size.steps
    course = Course(steps, chosen.branches or (10 if steps < FEW else 13))
    device = None if chosen.count else torch.device(chosen.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype: torch.dtype = getattr(torch, chosen.dtype or ("float16" if device and device.type == "cuda" else "float32"))
    # On a CPU others are at work, so its own seconds count; elsewhere it waits for the device.
    clock = time.process_time if device is None or device.type == "cpu" else time.perf_counter
    model = built(chosen.size, chosen.pixels, device, dtype)
    row, decoding = arithmetic(chosen.size, chosen.pixels)
    pixels = model.defaults.size[0]
    table: dict[str, Any] = {"size": chosen.size, "pixels": pixels, "steps": steps, "branches": course.branches}
    table |= {"parameters": size.parameters, "row_operations": row, "decoding_operations": decoding}
    table |= {"device": str(device), "dtype": str(dtype).removeprefix("torch."), "threads": torch.get_num_threads()}
    if device is not None:
        warm = Course(2, 0)
        by_waves(model, warm, chosen.max_batch, clock)
        table["matmul_peak"] = matmul_peak(device, dtype, 8192 if device.type == "cuda" else 1024, clock)
    reference, ours = one_by_one(model, course, clock), by_waves(model, course, chosen.max_batch, clock)
    for name, spent in (("reference", reference), ("segue", ours)):
        table[name] = spent.table()
        if device is not None:
            table[name]["share_of_peak"] = spent.rows * row / spent.network / table["matmul_peak"]
    if device is not None:
        table["times_faster"] = reference.seconds / ours.seconds
    return table


def reference_lines(table: dict[str, Any]) -> list[str]:
    """The table, for a person."""
    said = [
        f"{table['size']} ({table['parameters']:,} parameters, random), {table['pixels']} px, {table['steps']} steps, "
        f"{table['branches'] + 2} pictures; a row is {table['row_operations'] / 1e12:.2f} T operations, decoding a "
        f"picture {table['decoding_operations'] / 1e12:.2f}"
    ]
    counted = ("calls", "rows", "unused", "decoded", "largest_call")
    said.append(f"{'':12}" + "".join(f"{name.replace('_', ' '):>14}" for name in counted))
    for name in ("reference", "segue"):
        said.append(f"{name:12}" + "".join(f"{table[name][key]:14d}" for key in counted))
    if "times_faster" not in table:
        return said
    said.append(f"on {table['device']} in {table['dtype']}, {table['threads']} threads:")
    heads = ("network", "decoding", "in all", "overhead", "pictures/s", "share of peak", "memory")
    said.append(f"{'':12}" + "".join(f"{head:>14}" for head in heads))
    for name in ("reference", "segue"):
        took = table[name]
        seconds = "".join(f"{took[key]:12.2f} s" for key in ("network", "decoding", "seconds"))
        said.append(
            f"{name:12}{seconds}{took['overhead']:14.1%}{took['pictures_per_second']:14.3f}"
            f"{took['share_of_peak']:14.1%}{took['memory'] / 2**30:10.2f} GiB"
        )
    return [*said, f"Segue makes {table['times_faster']:.2f} times as many pictures a second"]


def levers(chosen: argparse.Namespace) -> None:
    """Print what each lever does."""
    task = segue.Transition(PROMPTS, seconds=chosen.frames / FPS, fps=FPS)
    pulls = (*LEVERS, COMPILED) if chosen.compile else LEVERS
    for name in chosen.model or MODELS:
        found = pulled(name, task, pulls, chosen.repeat)
        if chosen.json:
            print(json.dumps({"model": name, "levers": [asdict(one) for one in found]}))
        else:
            title = f"{name}, {chosen.frames} frames, {torch.get_num_threads()} threads, seconds of the processor"
            print("\n".join([title, *levers_lines(found), ""]), flush=True)


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help=f"instead of {' and '.join(MODELS)}; may be repeated")
    parser.add_argument("--frames", type=int, default=48, help="of the film")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the quickest is shown")
    parser.add_argument("--threads", type=int, help="instead of all cores, or what OMP_NUM_THREADS says")
    parser.add_argument("--levers", action="store_true", help="what each of them does, by itself")
    parser.add_argument("--compile", action="store_true", help="that lever too")
    parser.add_argument("--size", choices=SIZES, help="random weights of a full-size model, against the reference")
    parser.add_argument("--count", action="store_true", help="its calls and rows only; nothing is computed")
    parser.add_argument("--pixels", type=int, help="the side of its pictures")
    parser.add_argument("--steps", type=int, help="of its runs")
    parser.add_argument("--branches", type=int, help="between its two keys")
    parser.add_argument("--max-batch", type=int, default=16, help="rows of Segue's largest call")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    for name in ("max_batch", "repeat", "frames"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    return chosen


def main() -> None:
    """Run the benchmark and print its table."""
    chosen = parsed()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    if chosen.size:
        table = against_reference(chosen)
        print(json.dumps(table, indent=2) if chosen.json else "\n".join(reference_lines(table)))
        return
    if chosen.levers:
        levers(chosen)
        return
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
