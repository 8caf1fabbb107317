"""What the presets of `segue stylize` make: films to look at, each with the few numbers that tell whether it came off.

    python benchmarks/presets.py clips benchmarks/edits.toml -o runs/presets text image restore render3d sizes
    python benchmarks/presets.py clips benchmarks/edits.toml -o runs/presets restore --model emoji-fast --area 65536

Clips are cut to 3 s at 8 frames a second, from the second on that the TOML says. Films are kept, and made anew when
what they are made of differs; after a change of the code, remove them. There is a sheet for each film, and a table for
each preset; `fashion.py` is about the fifth.

* text: each clip, cut to the part that the TOML says, after its first prompt.
* image: the same after a reference that the model drew of the prompt in another colour, and in none that was asked for.
* restore: each whole clip, out of focus, noisy and through a coarse JPEG, and one clip with each damage by itself.
* render3d: solids that turn (`solids.py`), by their exact depth, by edges alone, and by nothing.
* sizes: the presets text and restore in three sizes that are no squares.

warp: mean absolute change of neighbours along the flow of the clip, in levels of 255; along the exact movement where
that is known. outlines: the correlation of soft edges of film and clip. changed, distance: the distance that is named,
to the clip, and to the clip as it should be. overlap: intersection over union of what differs from the ground, and the
solid.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from control import edges
from degrade import DAMAGES
from fashion import overlap_with
from jaxtyping import Float
from solids import SOLIDS, Turning
from stylize import Film, control_digests, cut, drawn, frames_digest
from torch import Tensor

import segue
from segue.errors import SegueError
from segue.evaluation.distances import best_distance
from segue.evaluation.fidelity import psnr
from segue.evaluation.warp_error import change, warp_error
from segue.media.clip import Clip, TensorFrames
from segue.media.reader import read
from segue.models.bundle import LatentDiffusion
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_settings import Beginning, References, Shape, preset_values
from segue.training.journal import save_sheet
from segue.types import Frames

SIZES = (192, 128), (128, 224), (256, 144)
"""Neither square nor of one shape."""
COLOURED = "a purple {}", "a teal {}", "a red {}", "a green {}"
"""What references of the clips show, one after the other."""
SHOWN = 6


@dataclass(frozen=True)
class Source:
    """What a film is made of.

    Args:
        name: of it.
        frames: in the size that is drawn.
        folder: where they lie as pictures.
        prompt: what is to be made of it.
    """

    name: str
    frames: TensorFrames
    folder: Path
    prompt: str


@dataclass(frozen=True)
class Made:
    """What a film is kept for."""

    clip: str
    prompt: str


@dataclass(frozen=True)
class Bench:
    """All that a run has."""

    model: LatentDiffusion
    given: argparse.Namespace

    @property
    def out(self) -> Path:
        return self.given.out

    @property
    def area(self) -> int:
        """Of a picture that is drawn, where nothing else is said."""
        return self.given.area or math.prod(self.model.defaults.size)

    def sources(self, *, whole: bool, area: int | None = None) -> list[Source]:
        """All clips, or the parts of their pictures that the model can draw."""
        found: list[Source] = []
        for name, said in tomllib.loads(self.given.edits.read_text("utf-8")).items():
            if self.given.only and name not in self.given.only:
                continue
            clip = read(next(path for path in sorted(self.given.clips.iterdir()) if path.stem == name))
            step, first = float(clip.fps) / self.given.rate, float(said.get("start", 0)) * float(clip.fps)
            count = min(round(self.given.seconds * self.given.rate), math.ceil((len(clip) - first) / step))
            numbers = [round(first + step * i) for i in range(count)]
            crop = None if whole else said.get("crop")
            frames = cut(clip.frames, [n for n in numbers if n < len(clip)], crop, self.model, area or self.area)
            found.append(self.laid_out(name, frames, said["prompts"][0]))
        return found

    def laid_out(self, name: str, frames: TensorFrames, prompt: str) -> Source:
        """Frames as a source of a film, kept as pictures."""
        folder = self.out / "clips" / f"{name.replace(' ', '_')}-{frames_digest(frames)}"
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            Clip(frames, self.given.rate).save(folder)
        return Source(name, frames, folder, prompt)

    def film(self, source: Source, preset: Any, **said: Any) -> Film:
        """What a preset makes of a source in its own size; kept, and drawn where it is missing.

        Args:
            source: the film.
            preset: which.
            said: other fields of the task.
        """
        usual: dict[str, Any] = {
            "prompt": source.prompt,
            "shape": Shape(own_size=True, model_size=True),
            "seed": self.given.seed,
        }
        task = Stylize(str(source.folder), preset=preset, sampling=Sampling(self.given.steps), **(usual | said))
        others = [frames_digest(whole(read(Path(name)).frames)) for name in task.others]
        asked = [asdict(task.filled_in()), frames_digest(source.frames), others, self.model.fingerprint]
        asked += control_digests(["softedge"], self.model)
        name = hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
        film = Film(Made(source.name, task.prompt or ""), str(preset), self.out / "films" / name)
        if film.frames is None:
            film.keep(*drawn(self.model, task, len(source.frames)))
            print(f"{source.name}, {preset}: {film.record['seconds']:.2f} s a frame", flush=True)
        return film

    def sheet(self, name: str, rows: Sequence[Frames | None]) -> None:
        """A row a film, from its first frame to its last."""
        known = [row for row in rows if row is not None]
        picks = [round(i * (len(known[0]) - 1) / (SHOWN - 1)) for i in range(SHOWN)]
        pictures = torch.cat([row[i : i + 1] for row in known for i in picks])
        save_sheet(self.out / f"{name.replace(' ', '_').replace(':', '')}.png", pictures, len(picks))


def whole(frames: Frames) -> TensorFrames:
    """All of it in memory."""
    return TensorFrames.rounded(frames[0 : len(frames)])


def kept(film: Film) -> TensorFrames:
    """The frames of a film that was drawn."""
    frames = film.frames
    assert frames is not None, "it was drawn before"
    return frames


def apart(one: Frames, other: Frames) -> float:
    """The mean distance of the frames of two films."""
    distance = best_distance()
    return fmean(distance(one[i : i + 1], other[i : i + 1]).item() for i in range(len(one)))


def like_source(film: Film, source: Source) -> dict[str, float]:
    """How far a film agrees with itself along its source, and with its source."""
    frames = kept(film)
    warped = warp_error(frames, source.frames, intervals=(1,), to_first=False).at(1).absolute
    return {
        "warp": math.nan if warped is None else 255 * warped,
        "outlines": float(edges(frames[:], source.frames[:]).mean()),
        "changed": apart(frames, source.frames),
        "s/frame": film.record["seconds"],
    }


def text(bench: Bench) -> dict[str, dict[str, float]]:
    """Films in words."""
    rows: dict[str, dict[str, float]] = {}
    for source in bench.sources(whole=False):
        film = bench.film(source, "text")
        bench.sheet(f"text-{source.name}", [source.frames, film.frames])
        rows[f"{source.name}: {source.prompt}"] = like_source(film, source)
    return rows


def image(bench: Bench) -> dict[str, dict[str, float]]:
    """Films after a picture, and how near they are to it, beside those without it."""
    rows: dict[str, dict[str, float]] = {}
    for source, coloured in zip(bench.sources(whole=False), COLOURED, strict=False):
        thing = source.prompt.split(" ", 1)[1]
        drawing = segue.Image(coloured.format(thing), seed=bench.given.seed).run(bench.model)
        place = bench.out / "references" / f"{source.name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        drawing.save(place)
        looks = read(place).frames[0:1]
        shown = TensorFrames.rounded(looks.expand(len(source.frames), -1, -1, -1))
        film = bench.film(source, "image", references=References((str(place),)))
        plain = bench.film(source, "text")
        bench.sheet(f"image-{source.name}", [source.frames, shown, film.frames, plain.frames])
        rows[f"{source.name}: {coloured.format(thing)}"] = like_source(film, source) | {
            "to the picture": apart(kept(film), shown),
            "without it": apart(kept(plain), shown),
            "colours": colours(kept(film)[:], looks),
            "colours without": colours(kept(plain)[:], looks),
        }
    return rows


def colours(pictures: Float[Tensor, "t 3 h w"], looks: Float[Tensor, "1 3 h w"]) -> float:
    """How far the sorted values of each colour channel are from those of a picture, on average, in levels of 255."""
    ours, theirs = (part.flatten(2).sort(-1).values for part in (pictures, looks))
    return 255 * float((ours - theirs).abs().mean())


def restore(bench: Bench) -> dict[str, dict[str, float]]:
    """Damaged films, before and after."""
    rows: dict[str, dict[str, float]] = {}
    for number, source in enumerate(bench.sources(whole=True)):
        for damage in DAMAGES if not number else ["all three"]:
            rows[f"{source.name}, {damage}"] = restored(bench, source, damage)
    return rows


def restored(bench: Bench, source: Source, damage: str) -> dict[str, float]:
    """One damaged film, before and after."""
    spoiled = TensorFrames.rounded(DAMAGES[damage](source.frames[:], bench.given.seed))
    before = bench.laid_out(f"{source.name}, {damage}", spoiled, "")
    film = bench.film(before, "restore")
    bench.sheet(f"restore-{source.name}-{damage}", [source.frames, spoiled, film.frames])
    found: dict[str, float] = {}
    for when, frames in (("before", spoiled), ("after", kept(film))):
        warped = warp_error(frames, source.frames, intervals=(1,), to_first=False).at(1).absolute
        found |= {
            f"PSNR {when}": float(psnr(frames[:], source.frames[:]).mean()),
            f"distance {when}": apart(frames, source.frames),
            f"warp {when}": math.nan if warped is None else 255 * warped,
        }
    return found | {"s/frame": film.record["seconds"]}


def render3d(bench: Bench) -> dict[str, dict[str, float]]:
    """Raw renderings, with their depth and without."""
    rows: dict[str, dict[str, float]] = {}
    size = bench.model.defaults.size
    for name, solid in SOLIDS.items():
        turning = Turning(solid, size, round(bench.given.seconds * bench.given.rate))
        source = bench.laid_out(name, turning.frames, solid.words)
        depth = bench.laid_out(f"{name} depth", turning.depths, "").folder
        said = preset_values("render3d")["control"]
        exact = tuple(one.replace("depth?", f"depth::{depth}") for one in said)
        edged = tuple(one for one in said if not one.startswith("depth"))
        films = {
            "render3d": bench.film(source, "render3d", control=exact),
            "edges alone": bench.film(source, "render3d", control=edged),
            "no control": bench.film(source, "render3d", control=("off",), beginning=Beginning(1.0, "noise")),
        }
        bench.sheet(f"render3d-{name}", [turning.frames, turning.depths, *(film.frames for film in films.values())])
        for row, film in films.items():
            rows[f"{solid.words}, {row}"] = of_solid(film, turning)
    return rows


def of_solid(film: Film, turning: Turning) -> dict[str, float]:
    """How far a film is of a solid that is known."""
    frames = kept(film)
    changes = [
        change(frames[i : i + 1], frames[i + 1 : i + 2], turning.back(i + 1, i)).absolute
        for i in range(len(frames) - 1)
    ]
    shares = [overlap_with(frames[i : i + 1][0], turning.covers(i)) for i in range(len(frames))]
    return {
        "overlap": fmean(shares),
        "outlines": float(edges(frames[:], turning.frames[:]).mean()),
        "warp": 255 * fmean(one for one in changes if one is not None),
        "s/frame": film.record["seconds"],
    }


def sizes(bench: Bench) -> dict[str, dict[str, float]]:
    """Presets in sizes that are no squares."""
    rows: dict[str, dict[str, float]] = {}
    clips = bench.sources(whole=True, area=4 * bench.area)
    for (width, height), clip in zip(SIZES, clips, strict=False):
        fitted = segue.media.fit(clip.frames, (width, height), "crop")
        source = bench.laid_out(f"{clip.name} {width}x{height}", whole(fitted), clip.prompt)
        films = {preset: bench.film(source, preset) for preset in ("text", "restore")}
        bench.sheet(f"size-{width}x{height}", [source.frames, *(film.frames for film in films.values())])
        for preset, film in films.items():
            rows[f"{source.name}, {preset}"] = like_source(film, source)
    return rows


SHOWS: Mapping[str, Callable[[Bench], dict[str, dict[str, float]]]] = {
    "text": text, "image": image, "restore": restore, "render3d": render3d, "sizes": sizes,
}  # fmt: skip


def table(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """As markdown, a row a film."""
    columns = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {name} | {' | '.join(f'{row[one]:.3g}' for one in columns)} |" for name, row in rows.items()]


def main(words: Sequence[str] | None = None) -> None:
    """Make what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("edits", type=Path, help="as of stylize.py")
    parser.add_argument("shows", nargs="+", choices=list(SHOWS))
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--only", nargs="+", help="clips to take")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each clip")
    parser.add_argument("--rate", type=float, default=8.0, help="frames of a second")
    parser.add_argument("--area", type=int, help="pixels of a picture; the model's own, if left out")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        bench = Bench(segue.load(given.model), given)
        for show in given.shows:
            with torch.no_grad():
                lines = [
                    f"{show}, {bench.model.name}; distance: {best_distance().name}",
                    "",
                    *table(SHOWS[show](bench)),
                ]
            print("\n".join(lines), flush=True)
            (given.out / f"{show}.md").write_text("\n".join(lines) + "\n", "utf-8")
    except SegueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
