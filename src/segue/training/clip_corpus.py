"""Clips of things that move, with captions that say how: what the layers of a motion model learn from.

A folder of clips holds

      frames.npy        uint8 (n, frames, size, size, 3)
      manifest.jsonl    one line a clip: what is shown, how it moves, fps, mean flow; captions, also of the clip played
                        backwards, mirrored, and both
      sources.json      packages, versions, licences, hashes; the recipe; the hash of frames.npy
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from segue.evaluation.motion_words import MOTIONS, WORDINGS, Motion
from segue.training.bounds import Count, Natural, Rate, Share
from segue.training.captions import Concept, Look
from segue.training.clip_stack import ClipStack
from segue.training.corpus import COLOURED, CONCEPTS, ConceptList, can_recolour, chosen, sources_of
from segue.training.journal import watched
from segue.training.motion_paths import Course, course
from segue.training.moving_words import PACE, Speed, may_move, moving_caption
from segue.training.naming import meanings, others, recolours, told_apart
from segue.training.pictures import DARK, Picture, Placement, decode, ground, lit, recolour, render, to_bytes
from segue.training.scene import Layer, Scene
from segue.training.sources import PACKAGES, Emoji, Package, Shelf

SAMPLES = 2
"""Along each side of a pixel, whose mean is its colour: edges are soft however things are turned."""


def usual_shares() -> dict[Motion, float]:
    """How often each movement is shown, relative to the others."""
    shares = dict.fromkeys(MOTIONS, 1.0)
    return {**shares, "bounce": 2.0, "still": 0.7}


@dataclass(frozen=True)
class ClipsConfig:
    """What moves, how, and for how long.

    which: as for a corpus: "listed" shows the frozen list, "published" every emoji that may be used.
    """

    which: Literal["listed", "published"] = "listed"
    size: Annotated[int, Field(ge=8)] = 128
    frames: Annotated[int, Field(ge=2)] = 16
    fps: Rate = 8.0
    seed: Natural = 91
    clips: Count = 17  # of each thing
    motions: Annotated[dict[Motion, Rate], Field(min_length=1)] = field(default_factory=usual_shares)
    coloured: Share = 0.5  # of things that come in several colours, the share that has another than the usual one
    grounded: Share = 0.4  # have a coloured ground
    styled: Share = 0.12  # are flat, gradient or line art
    captions: Count = 12  # kept for each clip, and each way of playing it
    silent: Share = 0.1  # of these, which say nothing of movement


@dataclass(frozen=True)
class Said:
    """Captions of a clip, and of the same clip played otherwise; an empty tuple where it may not be."""

    forward: tuple[str, ...]
    backward: tuple[str, ...] = ()
    mirrored: tuple[str, ...] = ()
    both: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClipEntry:
    """A clip's line in the manifest.

    `flow` is the mean movement of the thing's middle, x then y in pixels, from each frame to the next; `turn` by how
    many degrees it turns clockwise, and `zoom` how many times larger it gets.
    """

    concept: str
    noun: str
    colour: str
    background: str
    style: str
    motion: Motion
    speed: Speed
    fps: float
    flow: tuple[tuple[float, float], ...]
    turn: tuple[float, ...]
    zoom: tuple[float, ...]
    captions: Said


@dataclass(frozen=True)
class Thing:
    """What is known of one emoji that shall move."""

    concept: Concept
    emoji: Emoji
    taken: frozenset[str]
    colours: tuple[str, ...]
    styles: tuple[str, ...]

    @staticmethod
    def of(concept: Concept, emoji: Emoji, means: Mapping[str, str], original: Picture) -> Thing:
        """Args: as `corpus.shown` takes them; `original` is the 3D picture."""
        colours = recolours(concept, means) if can_recolour(concept, original) else []
        shared = means[concept.noun.lower()] != concept.character
        styles = [style for style in emoji.drawings if not (style == "line art" and shared)]
        return Thing(concept, emoji, others(concept, means), tuple(colours), tuple(styles))


def build_clips(
    out: Path,
    tarballs: Path,
    config: ClipsConfig,
    concepts_path: Path = CONCEPTS,
    packages: Sequence[Package] = PACKAGES,
) -> int:
    """Write the clips to the folder `out` and return their number; what a cut run has made is kept.

    While it is built over an older one, the folder holds no clips.
    """
    listed = ConceptList.read(concepts_path)
    concepts, emoji = chosen(Shelf.read(tarballs, packages), listed, config.which)
    means = meanings(concepts, listed.unsaid)
    sources = {**sources_of(packages, concepts_path), "config": asdict(config)}
    key = hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()
    shape = (config.frames, config.size, config.size, 3)
    with ClipStack(out, shape, key) as stack, watched("things", len(concepts)) as tell:
        for index, (concept, one) in enumerate(zip(told_apart(concepts, means), emoji, strict=True)):
            if stack.count < (index + 1) * config.clips:
                original = decode(one.picture)
                thing = Thing.of(concept, one, means, original)
                for entry, frames in clips_of(thing, original, config, index, stack.count - index * config.clips):
                    stack.append(frames, json.dumps(asdict(entry), ensure_ascii=False))
            tell(index + 1)
        stack.close(sources)
        return stack.count


def clips_of(
    thing: Thing, original: Picture, config: ClipsConfig, index: int, first: int = 0
) -> Iterator[tuple[ClipEntry, NDArray[np.uint8]]]:
    """The clips of a thing from the `first` on, each by itself a function of the seed and its number."""

    @cache
    def drawn(style: str, colour: str, dark: bool) -> Picture:
        return sprite(thing, original, style, colour, dark)

    for number, motion in enumerate(motions_of(thing, config, index)):
        if number < first:
            continue
        rng = np.random.default_rng((config.seed, index, number))
        look = look_of(thing, motion, config, rng)
        speed: Speed = list(PACE)[rng.integers(len(PACE))]
        way = course(motion, speed, config.frames, rng)
        picture = drawn(look.style, look.colour, look.background in DARK)
        picture = picture[:, ::-1] if look.placement.flip else picture
        frames = rendered(picture, way, ground(look.background, config.size))
        said = captions_of(thing, look, motion, speed, config, rng)
        shown = (thing.concept.character, thing.concept.noun, look.colour, look.background, look.style)
        yield ClipEntry(*shown, motion, speed, config.fps, *changes(way, config.size), said), frames


def motions_of(thing: Thing, config: ClipsConfig, index: int) -> list[Motion]:
    """How each clip of a thing moves: every movement as often as the others, by their shares."""
    rng = np.random.default_rng((config.seed, index))
    can = {m: share for m, share in config.motions.items() if _turns(thing, m)}
    total = sum(can.values())
    due = np.array([share / total * config.clips for share in can.values()])
    counts = np.floor(due + 1e-9).astype(int)
    if rest := config.clips - int(counts.sum()):
        shares = np.maximum(due - counts, 1e-9)
        counts[rng.choice(len(can), rest, replace=False, p=shares / shares.sum())] += 1
    found = [motion for motion, count in zip(can, counts, strict=True) for _ in range(count)]
    return [found[place] for place in rng.permutation(len(found))]


def _turns(thing: Thing, motion: Motion) -> bool:
    return may_move(replace(thing.concept, character=""), "", motion)


def look_of(thing: Thing, motion: Motion, config: ClipsConfig, rng: np.random.Generator) -> Look:
    """Style, colour, ground and side of a clip that may be shown."""
    concept = thing.concept
    style = str(rng.choice(thing.styles)) if thing.styles and rng.random() < config.styled else "3d"
    own = may_move(concept, concept.colour, motion)
    colours = [colour for colour in thing.colours if may_move(concept, colour, motion)]
    other = bool(colours) and (not own or rng.random() < config.coloured) and style != "line art"
    colour = str(rng.choice(colours)) if other else concept.colour
    word = str(rng.choice(COLOURED)) if rng.random() < config.grounded else "white"
    flip = concept.flip and bool(rng.random() < 0.25)
    return Look(colour, word, style, Placement(flip=flip))


def sprite(thing: Thing, original: Picture, style: str, colour: str, dark: bool) -> Picture:
    """The thing as it is moved about: (s, s, 4), its colours not multiplied by alpha."""
    picture = original if style == "3d" else render(thing.emoji.drawings[style], original.shape[1])
    if style == "line art":
        return lit(picture) if dark else picture
    if colour != thing.concept.colour:
        return recolour(picture, colour, tint=thing.concept.colour in ("gray", "white"))
    return picture


def rendered(picture: Picture, way: Course, behind: Picture) -> NDArray[np.uint8]:
    """The frames (t, size, size, 3) of a square picture (s, s, 4) that goes its way before a ground."""
    import cv2

    size = len(behind)
    fine = shrunk(picture, way, size)
    poses = way.poses(len(fine), size) * SAMPLES
    poses[:, :, 2] += (SAMPLES - 1) / 2  # from the middle of the first pixel to the middle of its first sample
    frames: list[NDArray[np.uint8]] = []
    for pose in poses:
        seen = cv2.warpAffine(fine, pose, (size * SAMPLES,) * 2, flags=cv2.INTER_LINEAR)
        seen = cv2.resize(seen, (size, size), interpolation=cv2.INTER_AREA)
        frames.append(to_bytes(seen[..., :3] + behind * (1 - seen[..., 3:])))
    return np.stack(frames)


def shrunk(picture: Picture, way: Course, size: int) -> Picture:
    """The picture, its colours multiplied by alpha, no larger than it is ever shown in samples."""
    import cv2

    multiplied = np.concatenate([picture[..., :3] * picture[..., 3:], picture[..., 3:]], -1, dtype=np.float32)
    side = round(float(way.scale.max()) * size * SAMPLES)
    if side >= len(multiplied):
        return multiplied
    return np.asarray(cv2.resize(multiplied, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def scene_of(picture: Picture, way: Course, behind: Picture) -> Scene:
    """The same as a scene, which tells where everything is in every frame."""
    size, fine = len(behind), shrunk(picture, way, len(behind))
    still = torch.from_numpy(np.concatenate([behind, np.ones_like(behind[..., :1])], -1)).permute(2, 0, 1)
    held = torch.eye(2, 3, dtype=torch.float64).expand(len(way.angle), 2, 3)
    poses = torch.from_numpy(way.poses(len(fine), size))
    thing = Layer(torch.from_numpy(fine).permute(2, 0, 1), poses)
    return Scene((size, size), (Layer(still, held, endless=True), thing), SAMPLES)


def changes(way: Course, size: int) -> tuple[Any, Any, Any]:
    """(flow of the thing's middle in pixels, degrees of turn, growth), from each frame to the next."""
    poses = way.poses(3, size)
    middle = poses @ np.array([1.0, 1.0, 1.0])
    sides = np.sqrt(way.scale.prod(1))
    flow = tuple((round(float(u), 3), round(float(v), 3)) for u, v in np.diff(middle, axis=0))
    turn = tuple(round(float(step), 3) for step in np.diff(way.angle))
    return flow, turn, tuple(round(float(step), 4) for step in sides[1:] / sides[:-1])


def captions_of(
    thing: Thing, look: Look, motion: Motion, speed: Speed, config: ClipsConfig, rng: np.random.Generator
) -> Said:
    """What may be said of a clip, however it is played; mirrored only where a mirror image is the thing, too."""

    def some(look: Look, motion: Motion) -> tuple[str, ...]:
        quiet = rng.random(config.captions) < config.silent
        asked: list[Motion | None] = [None if one else motion for one in quiet]
        return tuple(moving_caption(thing.concept, look, one, speed, rng, taken=thing.taken) for one in asked)

    turned = replace(look, placement=replace(look.placement, flip=not look.placement.flip))
    wording = WORDINGS[motion]
    both = WORDINGS[wording.mirrored].undone
    if not thing.concept.flip:
        return Said(some(look, motion), some(look, wording.undone))
    return Said(some(look, motion), some(look, wording.undone), some(turned, wording.mirrored), some(turned, both))
