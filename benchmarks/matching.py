"""Correspondence: PatchMatch against optical flow at intervals of 1 to 32 frames, and against a search of all places.

    python benchmarks/matching.py --clips FOLDER -o runs/matching                   # goes on where it was
    python benchmarks/matching.py --clips FOLDER -o runs/matching --plot docs/matching.svg
    python benchmarks/matching.py --clips FOLDER -o runs/matching --least           # share above the least difference
    python benchmarks/matching.py -o runs/matching --speed                          # fields per second, operations
    python benchmarks/matching.py --clips FOLDER -o runs/matching --sheets          # pictures: frame t+8 brought to t

The first frame of a clip is matched with the one an interval on. "patchmatch" searches the pair by itself; "followed"
starts from what the strides of 1, 2, 4, ... between say, as blending does. "flow" is DIS on the pair by itself, and
"flow followed" goes from frame to frame along the flow of neighbours.

Of each match: `patches`, the root of the mean squared difference of 5x5 patches at both ends of each way, which is what
PatchMatch minimises, so that it is favoured by it; `warp`, the same of the pixels that are brought over; where the
motion is known, `distance`, the mean of how far ways end from the truth in pixels, 20 at most, and `right`, the share
that ends within 2 of it, both over what both frames show; and `believed`, the mean confidence.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from versions import MOTION, named, written

from segue.media.clip import TensorFrames, to_uint8
from segue.media.reader import read
from segue.motion import descriptors
from segue.motion.descriptors import described
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher
from segue.motion.match import Match, ends
from segue.motion.patchmatch import PatchMatcher
from segue.motion.search import Ground
from segue.training.moving import moving_clip
from segue.training.scene import Scene

INTERVALS = (1, 2, 4, 8, 16, 32)
CLIPS = ("bigbuckbunny", "portrait", "scene_cuts", "wolf")
ENGINES = {"flow": "#2c3e50", "flow followed": "#7f8c8d", "patchmatch": "#c0392b", "followed": "#27ae60"}
DRAWN = 3
"""Scenes of known motion."""
KEY = ("clip", "interval", "engine", "matcher", "version", "shown")
"""Columns that tell whether a row is what would be measured now."""
VERSION = written(*MOTION)


@dataclass(frozen=True)
class Source:
    """A clip, and how it moves where that is known."""

    name: str
    frames: TensorFrames
    scene: Scene | None = None

    def shown(self, last: int) -> str:
        """The pair of pictures that is matched, as a short name: stills, and clips, are other ones in other folders."""
        return named(*(to_uint8(self.frames[number : number + 1]).numpy().tobytes() for number in (0, last)))


@dataclass(frozen=True)
class Engine:
    """A way to find matches: by which matcher, and from the first frame of a clip to another."""

    matcher: str
    find: Callable[[int], Match]


def real(folder: Path, name: str, size: int, count: int) -> Source:
    """The first frames' middles, as long as they are high, at a size."""
    frames = read(folder / f"{name}.mp4").frames
    parts: list[Tensor] = []
    for number in range(min(count, len(frames))):
        picture = frames[number : number + 1]
        high, wide = picture.shape[2:]
        square = picture[..., (wide - high) // 2 : (wide - high) // 2 + high]
        parts.append(to_uint8(interpolate(square, (size, size), mode="bilinear", antialias=True).clamp(0, 1)))
    return Source(name, TensorFrames(torch.cat(parts)))


def drawn(number: int, size: int, still: Tensor | None) -> Source:
    """Shapes over a still, all of which moves by 2 pixels of 256 per frame, with a little noise on each frame."""
    scene = moving_clip(number + 1, (size, size), INTERVALS[-1] + 1, still=still, speed=2 / 256)
    draws = torch.Generator().manual_seed(number)
    frames = torch.cat([scene.frames[t : t + 1] for t in range(len(scene))])
    frames = (frames + 0.01 * torch.randn(frames.shape, generator=draws)).clamp(0, 1)
    return Source(f"drawn {number + 1}", TensorFrames(to_uint8(frames)), scene)


def sources(folder: Path | None, size: int, count: int) -> Iterator[Source]:
    """What is known first. Stills are frames of the clips, where there are any."""
    clips = [] if folder is None else [name for name in CLIPS if (folder / f"{name}.mp4").exists()]
    for number in range(DRAWN):
        still = (
            None if folder is None or not clips else real(folder, clips[number % len(clips)], 2 * size, 1).frames[0:1]
        )
        yield drawn(number, size, None if still is None else still[0])
    for name in clips:
        assert folder is not None
        yield real(folder, name, size, count)


def engines(source: Source) -> dict[str, Engine]:
    """The four ways, for one clip."""
    flow, search = FlowMatcher(), PatchMatcher()
    by_flow, by_search = Fields(flow, source.frames), Fields(search, source.frames)

    def along(last: int) -> Match:
        match = by_flow.way(0, 1)
        for number in range(1, last):
            match = match.then(by_flow.way(number, number + 1))
        return match

    def alone(matcher: FlowMatcher | PatchMatcher) -> Callable[[int], Match]:
        return lambda last: matcher(source.frames[0:1], source.frames[last : last + 1])[0]

    def followed(last: int) -> Match:
        return by_search.way(0, last)

    by = [Engine(flow.name, find) for find in (alone(flow), along)]
    by += [Engine(search.name, find) for find in (alone(search), followed)]
    return dict(zip(ENGINES, by, strict=True))


def measured(source: Source, match: Match, last: int) -> dict[str, float]:
    """The columns of a row."""
    here, there = source.frames[0:1], source.frames[last : last + 1]
    goal = ends(match.way)[0].flatten()
    patches = (described(here, 5, 75)[0] - described(there, 5, 75)[0][goal]).square().sum(1).mean()
    row = {
        "patches": float(patches.sqrt()),
        "warp": float((match.remap(there) - here).square().mean().sqrt()),
        "believed": float(match.confidence.mean()),
    }
    if source.scene is not None:
        off = (match.way - source.scene.flow(0, last)).square().sum(1).sqrt()
        off = off[source.scene.visible(0, last)]
        row |= {"distance": float(off.clamp(max=20).mean()), "right": float((off < 2).float().mean())}
    return row


def sweep(given: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows that are asked for; what was measured before, of the same pictures by the same methods, is taken."""
    path = given.out / f"rows-{given.size}.jsonl"
    before = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    done = {tuple(row.get(name) for name in KEY): row for row in before}
    rows: list[dict[str, Any]] = []
    for source in sources(given.clips, given.size, max(given.intervals) + 1):
        for name, engine in engines(source).items():
            for interval in given.intervals:
                if interval >= len(source.frames):
                    continue
                key = (source.name, interval, name, engine.matcher, VERSION, source.shown(interval))
                row = done.get(key)
                if row is None:
                    row = dict(zip(KEY, key, strict=True)) | measured(source, engine.find(interval), interval)
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], intervals: tuple[int, ...]) -> None:
    """Means over the clips of known motion, and over the real ones, by interval."""
    for kind, known in (("known motion", True), ("real", False)):
        chosen = [row for row in rows if ("distance" in row) == known]
        for column in ("patches", "warp", "believed", *(("distance", "right") if known else ())):
            for engine in ENGINES if chosen else ():
                means = [_mean(chosen, engine, interval, column) for interval in intervals]
                print(f"{kind:13} {column:9} {engine:14}", *(f"{mean:8.4f}" for mean in means))


def _mean(rows: list[dict[str, Any]], engine: str, interval: int, column: str) -> float:
    found = [row[column] for row in rows if row["engine"] == engine and row["interval"] == interval]
    return float(np.mean(found)) if found else float("nan")


def plot(rows: list[dict[str, Any]], intervals: tuple[int, ...], path: Path) -> None:
    """Four panels over the interval, as SVG."""
    panels = [("known motion: share within 2 px", True, "right"), ("known motion: distance, px", True, "distance")]
    panels += [("real: patches apart", False, "patches"), ("real: warp error", False, "warp")]
    wide, high, edge = 300, 220, 36
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * wide} {2 * high + 24}" font-size="11"']
    parts = [
        parts[0] + ' font-family="sans-serif">',
        f'<rect width="{2 * wide}" height="{2 * high + 24}" fill="white"/>',
    ]
    for number, (title, known, column) in enumerate(panels):
        left, top = number % 2 * wide, number // 2 * high
        chosen = [row for row in rows if ("distance" in row) == known]
        curves = {engine: [_mean(chosen, engine, one, column) for one in intervals] for engine in ENGINES}
        largest = np.nanmax([*curves.values()]) if chosen else 1.0
        parts.append(f'<text x="{left + edge}" y="{top + 20}">{title} (top {largest:.3g})</text>')
        across = [
            left + edge + place * (wide - 2 * edge) / max(1, len(intervals) - 1) for place in range(len(intervals))
        ]
        for x, interval in zip(across, intervals, strict=True):
            parts.append(f'<text x="{x:.0f}" y="{top + high - 8}" text-anchor="middle">{interval}</text>')
        for engine, values in curves.items() if chosen else ():
            down = [top + high - 24 - value / largest * (high - 56) for value in values]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True) if y == y)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{ENGINES[engine]}" stroke-width="2"/>')
    for number, (engine, colour) in enumerate(ENGINES.items()):
        parts.append(f'<text x="{edge + 130 * number}" y="{2 * high + 14}" fill="{colour}">{engine}</text>')
    path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def least(given: argparse.Namespace) -> None:
    """The difference that is found, in shares of the least one that there is, which is searched for at all places."""
    for name in CLIPS:
        source = real(given.clips, name, given.size, 33)
        for interval in (1, 8, 32):
            if interval >= len(source.frames):
                continue
            a, b = source.frames[0:1], source.frames[interval : interval + 1]
            row: dict[str, Any] = {"clip": name, "interval": interval}
            for patch in (5, 7):
                here, there = (described(one, patch, 3 * patch * patch)[0] for one in (a, b))
                lengths = there.square().sum(1)
                nearest = torch.cat([(lengths - 2 * part @ there.T).argmin(1) for part in here.split(1024)])
                best = float((here - there[nearest]).square().sum(1).mean())
                for label, matcher in (
                    ("thorough", PatchMatcher.thorough(patch)),
                    ("default", PatchMatcher(patch=patch)),
                ):
                    goal = ends(matcher(a, b)[0].way)[0].flatten()
                    row[f"{label} {patch}"] = round(float((here - there[goal]).square().sum(1).mean()) / best, 4)
            print(json.dumps(row), flush=True)


def speed(given: argparse.Namespace) -> None:
    """Fields per second, and what share of the processor's measured peaks that is."""
    cost, summed = Ground.costs, descriptors.weighted
    counted = {"candidates": 0, "numbers": 0, "prepared": 0}

    def costs(self: Ground, way: Tensor, asked: Tensor | None = None) -> Tensor:
        found = cost(self, way, asked)
        counted["candidates"] += len(found)
        counted["numbers"] += len(found) * self.here.shape[-1]
        return found

    def sums(parts: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
        counted["prepared"] += 2 * len(parts) * parts[0].numel()
        return summed(parts, factors)

    one = torch.rand(1024, 1024)
    flops = 2 * 1024**3 / quickest(lambda: one @ one, given.repeat) / 1e9
    large = torch.rand(2**25)
    other = torch.empty_like(large)
    copied = 8 * 2**25 / quickest(lambda: other.copy_(large), given.repeat) / 1e9
    threads = torch.get_num_threads()
    print(f"peaks: {flops:.0f} GFLOP/s multiplying matrices, {copied:.1f} GB/s copying; {threads} thread(s)")
    for size in given.sizes:
        scene = moving_clip(1, (size, size), 5, speed=2 / 256)
        a, b = scene.frames[0:1], scene.frames[4:5]
        for label, matcher in (("default", PatchMatcher()), ("flow", FlowMatcher())):
            seconds = quickest(lambda m=matcher, x=a, y=b: m(x, y), given.repeat) / 2
            print(f"{size} px, {label}: {1 / seconds:.2f} fields/s ({seconds * 1e3:.0f} ms)", end="")
            if label == "default":
                counted.update(dict.fromkeys(counted, 0))
                Ground.costs, descriptors.weighted = costs, sums
                matcher(a, b)
                Ground.costs, descriptors.weighted = cost, summed
                work = (3 * counted["numbers"] + counted["prepared"]) / 2
                # A candidate's numbers are read on both sides; what is between need not leave the cache.
                moved = (8 * counted["numbers"] + 8 * counted["candidates"]) / 2
                each = counted["candidates"] / 2 / size**2
                print(
                    f", {work / 1e9:.2f} GFLOP a field, {each:.1f} candidates a pixel "
                    f"(FastBlend's field: {22.8 * (size / 512) ** 2:.1f} GFLOP): "
                    f"{work / seconds / 1e9:.1f} GFLOP/s, {work / seconds / 1e7 / flops:.0f} % of the matrix peak; "
                    f"{moved / seconds / 1e9:.1f} GB/s, {moved / seconds / 1e7 / copied:.0f} % of copying",
                    end="",
                )
            print(flush=True)


def quickest(call: Callable[[], object], repeat: int) -> float:
    """Seconds of the processor, in which other work on the machine is not counted, of the quickest of some calls."""
    call()
    found: list[float] = []
    for _ in range(repeat):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return min(found)


def sheets(given: argparse.Namespace) -> None:
    """A row of pictures for each clip: the frame, the one 8 on, that brought back in four ways, and confidences."""
    for name in CLIPS:
        source = real(given.clips, name, given.size, 9)
        row = [source.frames[0:1], source.frames[8:9]]
        for engine in engines(source).values():
            match = engine.find(8)
            row += [match.remap(source.frames[8:9]).clamp(0, 1), match.confidence[:, None].expand(-1, 3, -1, -1)]
        top, low = torch.cat([row[0], *row[2::2]], 3), torch.cat([row[1], *row[3::2]], 3)
        picture = to_uint8(torch.cat([top, low], 2))[0].permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(given.out / f"{name}-{given.size}.png")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="a folder of real clips; left out, only drawn ones are measured")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512], help="for --speed")
    parser.add_argument("--intervals", type=int, nargs="+", default=list(INTERVALS), choices=INTERVALS)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/matching"))
    parser.add_argument("--plot", type=Path)
    for name in ("least", "speed", "sheets"):
        parser.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    if (given.least or given.sheets) and given.clips is None:
        parser.error("--least and --sheets need --clips")
    given.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        if given.least or given.speed or given.sheets:
            for asked, measure in ((given.least, least), (given.speed, speed), (given.sheets, sheets)):
                if asked:
                    measure(given)
            return
        rows = sweep(given)
    table(rows, tuple(given.intervals))
    if given.plot is not None:
        plot(rows, tuple(given.intervals), given.plot)


if __name__ == "__main__":
    main()
