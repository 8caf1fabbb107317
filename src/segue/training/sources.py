"""Where the training pictures and words come from: packages of the npm registry, pinned by version and content hash."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segue.errors import TrainingError


@dataclass(frozen=True)
class Package:
    """A registry package at one version; `sha512` is the registry's integrity value (base64) of its tarball."""

    name: str
    version: str
    sha512: str
    licence: str
    holds: str

    @property
    def filename(self) -> str:
        """The name that `npm pack` gives the tarball: the scope's "@" dropped, its "/" turned into "-"."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PICTURES = Package(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    "MIT",
    "Fluent Emoji in 3D by Microsoft Corporation, WebP of 256 pixels with transparency",
)
PUBLISHED = Package(
    "@iconify-json/fluent-emoji",
    "1.2.7",
    "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
    "MIT",
    "the names of the Fluent Emoji that Microsoft published under MIT",
)
NAMES = Package(
    "unicode-emoji-json",
    "0.9.0",
    "HdrQW/7SdbXUsTd8uTATv7LvQJkCSgbAgRCDCtOhQ6xn3EAx+xZHQtRniOXWJK3ywIqPegkNhP4U4EbuFsiQng==",
    "MIT",
    "names and groups of emoji",
)
KEYWORDS = Package(
    "emojilib",
    "4.0.3",
    "KbWiYre9aRSaPbHrHZIz9zmoM+21LAsK1VFJtnTh1VCtWE/rNMDviGhQTmselFl95dhqtGlY22iH0leG5BuW0g==",
    "MIT",
    "keywords of emoji",
)
DRAWINGS = Package(
    "fluentui-emoji",
    "1.3.0",
    "JTXXwqIie2rWTgOkIJDJxr0WtwTz2WU4kdOq8buLVThYwQ264aFR2jdTyuon2oEbLqqGMT64zI4btyn1saB2xw==",
    "MIT",
    "Fluent Emoji as SVG in three styles, nearly aligned with the 3D pictures",
)
PACKAGES = (PICTURES, PUBLISHED, NAMES, KEYWORDS, DRAWINGS)

STYLES = {"flat": "flat", "gradient": "modern", "line art": "high-contrast"}
"""Our words for the drawn styles, and the folders of the drawings."""

LEFT_OUT = frozenset({"paperclip", "linked-paperclips", "video-game", "copyright", "registered", "trade-mark"})
"""Names in the published list that are, or look like, somebody's mark, or that Microsoft's own list does not have."""


def tarball(package: Package, folder: Path) -> Path:
    """The package's tarball in `folder`, fetched with `npm pack` if it is not there, its hash checked.

    Raises TrainingError when it cannot be fetched or is not the file that was pinned.
    """
    path = folder / package.filename
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        order = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package.name}@{package.version}"]
        try:
            subprocess.run(order, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", "") or str(error)
            raise TrainingError(
                f"could not fetch {package.name}@{package.version}: {detail.strip()[-200:]}; "
                f"install npm, or put {package.filename} into {folder}"
            ) from error
    found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != package.sha512:
        raise TrainingError(f"{path} is not the pinned file: expected sha512 {package.sha512}, got {found}; delete it")
    return path


def read_members(path: Path, pattern: str) -> dict[str, bytes]:
    """Contents of the files in a tarball whose path (below its top folder) matches the regular expression `pattern`."""
    matches = re.compile(pattern).fullmatch
    found: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            inner = member.name.partition("/")[2]
            if member.isfile() and matches(inner):
                stream = archive.extractfile(member)
                if stream is not None:
                    found[inner] = stream.read()
    return found


@dataclass(frozen=True)
class Emoji:
    """One emoji as the packages describe it."""

    character: str
    name: str
    group: str
    keywords: tuple[str, ...]
    picture: bytes = field(repr=False)  # an encoded RGBA picture, 3D
    drawings: Mapping[str, bytes] = field(default_factory=dict[str, bytes], repr=False)  # SVG by style


def code_points(character: str) -> str:
    """How the picture package names its files: hexadecimal code points joined by "-"."""
    return "-".join(f"{ord(part):04x}" for part in character)


def slug(name: str) -> str:
    """How the packages of Fluent Emoji spell a name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Shelf:
    """What lies in the tarballs; read once, since a picture package takes seconds to go through."""

    names: Mapping[str, Mapping[str, str]]
    keywords: Mapping[str, Sequence[str]]
    published: frozenset[str]
    pictures: Mapping[str, bytes]
    drawings: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path, packages: Sequence[Package] = PACKAGES) -> Shelf:
        """Read the tarballs in `folder`; packages come as (pictures, published, names, keywords, drawings)."""
        pictures, published, names, keywords, drawings = (tarball(package, folder) for package in packages)
        icons = _read_json(published, "icons.json")
        return cls(
            names=_read_json(names, "data-by-emoji.json"),
            keywords=_read_json(keywords, "dist/emoji-en-US.json"),
            published=frozenset({*icons["icons"], *icons.get("aliases", {})} - LEFT_OUT),
            pictures=read_members(pictures, r"assets/[0-9a-f-]+\.webp"),
            drawings=read_members(drawings, rf"icons/({'|'.join(STYLES.values())})/.*\.svg"),
        )

    def emoji(self, character: str) -> Emoji:
        """Raises TrainingError for one that has no picture or name, a flag, or one that may not be used."""
        entry, picture = self.names.get(character), self._picture(character)
        if entry is None or picture is None:
            missing = "picture" if entry else "name"
            raise TrainingError(f"{character} has no {missing} in the packages; drop the concept")
        name = slug(entry["name"])
        if name not in self.published or entry["group"] == "Flags":
            raise TrainingError(f"{character} ({name}) is not in the set published under MIT; drop the concept")
        found = {style: self.drawings.get(f"icons/{folder}/{name}.svg") for style, folder in STYLES.items()}
        drawings = {style: svg for style, svg in found.items() if svg is not None}
        words = tuple(word.replace("_", " ") for word in self.keywords.get(character, ()))
        return Emoji(character, entry["name"], entry["group"], words, picture, drawings)

    def everything(self) -> list[Emoji]:
        """All emoji that may be used and have a picture, in the order of the names package."""
        return [
            self.emoji(character)
            for character, entry in self.names.items()
            if entry["group"] != "Flags" and slug(entry["name"]) in self.published and self._picture(character)
        ]

    def _picture(self, character: str) -> bytes | None:
        code = code_points(character)
        options = [f"assets/{code}.webp", f"assets/{code.replace('-fe0f', '')}.webp"]
        return next((self.pictures[option] for option in options if option in self.pictures), None)


def _read_json(path: Path, member: str) -> Any:
    found = read_members(path, re.escape(member))
    if member not in found:
        raise TrainingError(f"{path.name} holds no {member}: expected the pinned package layout")
    return json.loads(found[member])
