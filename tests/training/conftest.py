"""A tiny corpus from synthetic packages: a red and a green apple, a grey elephant and a yellow star, drawn here."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from segue.training.corpus import CorpusConfig, build
from segue.training.sources import STYLES, Package, slug

EMOJI = {"🍎": ("red apple", (220, 30, 40)), "🍏": ("green apple", (120, 200, 60)), "🐘": ("elephant", (150, 150, 155))}
EMOJI["⭐"] = ("star", (250, 200, 40))

CONCEPTS = """
[concepts]
"🍎" = { noun = "apple", colour = "red" }
"🍏" = { noun = "apple", colour = "green", recolour = false }
"🐘" = { noun = "elephant", colour = "gray", turn = false }
"⭐" = { noun = "star", colour = "yellow", flip = false }

[held_out]
"🐘" = ["pink"]
"⭐" = ["blue"]
"""


SMALL = CorpusConfig(size=32, moved=6, styled=4)


@dataclass(frozen=True)
class Sources:
    """Synthetic packages in the layout of the real ones."""

    folder: Path
    concepts: Path
    packages: tuple[Package, ...]


def _disc(colour: tuple[int, int, int]) -> bytes:
    """A disc on a transparent ground, with the pale fringe that renders on a white stage have."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    brush = ImageDraw.Draw(image)
    brush.ellipse((4, 4, 59, 59), fill=(255, 255, 255, 80))
    brush.ellipse((6, 6, 57, 57), fill=(*colour, 255))
    data = io.BytesIO()
    image.save(data, "WEBP", lossless=True, exact=True)
    return data.getvalue()


def _drawing(colour: tuple[int, int, int]) -> bytes:
    """The same disc as SVG."""
    red, green, blue = colour
    disc = f'<circle cx="16" cy="16" r="13" fill="rgb({red},{green},{blue})"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{disc}</svg>'.encode()


def _drawings() -> dict[str, bytes]:
    """All styles of all but the star, which has only two."""
    found = {
        f"icons/{folder}/{slug(name)}.svg": _drawing((33, 33, 33) if folder == "high-contrast" else colour)
        for name, colour in EMOJI.values()
        for folder in STYLES.values()
    }
    del found["icons/modern/star.svg"]
    return found


def _pack(folder: Path, name: str, members: Mapping[str, bytes]) -> Package:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for path, content in members.items():
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    digest = base64.b64encode(hashlib.sha512(data.getvalue()).digest()).decode()
    package = Package(name, "1.0.0", digest, "MIT", "test data")
    (folder / package.filename).write_bytes(data.getvalue())
    return package


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("packages")
    slugs = {name.replace(" ", "-"): {} for name, _ in EMOJI.values()}
    names = {character: {"name": name, "group": "Things"} for character, (name, _) in EMOJI.items()}
    keywords = {"🍎": ["red_apple", "fruit"], "🍏": ["fruit"], "🐘": ["animal", "gray"], "⭐": ["sky"]}
    packages = (
        _pack(folder, "@test/pictures", {f"assets/{ord(c):04x}.webp": _disc(rgb) for c, (_, rgb) in EMOJI.items()}),
        _pack(folder, "@test/published", {"icons.json": json.dumps({"icons": slugs}).encode()}),
        _pack(folder, "names", {"data-by-emoji.json": json.dumps(names).encode()}),
        _pack(folder, "keywords", {"dist/emoji-en-US.json": json.dumps(keywords).encode()}),
        _pack(folder, "drawings", _drawings()),
    )
    concepts = folder / "concepts.toml"
    concepts.write_text(CONCEPTS, "utf-8")
    return Sources(folder, concepts, packages)


@pytest.fixture(scope="session")
def corpus(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of the synthetic packages, at 32 pixels."""
    out = tmp_path_factory.mktemp("corpus")
    build(out, sources.folder, SMALL, sources.concepts, sources.packages)
    return out
