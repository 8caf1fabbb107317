"""Where the training pictures and words come from: packages of the npm registry, pinned by version and content hash."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
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
PACKAGES = (PICTURES, PUBLISHED, NAMES, KEYWORDS)


def tarball(package: Package, folder: Path, *, verify: bool = True) -> Path:
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
    if verify:
        found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        if found != package.sha512:
            wanted = package.sha512
            raise TrainingError(f"{path} is not the pinned file: expected sha512 {wanted}, got {found}; delete it")
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
    picture: bytes  # an encoded RGBA picture


def code_points(character: str) -> str:
    """How the picture package names its files: hexadecimal code points joined by "-"."""
    return "-".join(f"{ord(part):04x}" for part in character)


def read_emoji(characters: Sequence[str], folder: Path, packages: Sequence[Package] = PACKAGES) -> list[Emoji]:
    """The emoji asked for, from the tarballs in `folder`; the packages come as (pictures, published, names, keywords).

    Raises TrainingError for one that has no picture or name, a flag, or one that is not in the published MIT set.
    """
    pictures_at, published_at, names_at, keywords_at = (tarball(package, folder) for package in packages)
    names = _read_json(names_at, "data-by-emoji.json")
    keywords = _read_json(keywords_at, "dist/emoji-en-US.json")
    icons = _read_json(published_at, "icons.json")
    published = {*icons["icons"], *icons.get("aliases", {})}
    pictures = read_members(pictures_at, r"assets/[0-9a-f-]+\.webp")

    emoji: list[Emoji] = []
    for character in characters:
        entry = names.get(character)
        code = code_points(character)
        options = [f"assets/{code}.webp", f"assets/{code.replace('-fe0f', '')}.webp"]
        picture = next((pictures[option] for option in options if option in pictures), None)
        if entry is None or picture is None:
            missing = "picture" if entry else "name"
            raise TrainingError(f"{character} has no {missing} in the packages; drop the concept")
        slug = re.sub(r"[^a-z0-9]+", "-", entry["name"].lower()).strip("-")
        if slug not in published or entry["group"] == "Flags":
            raise TrainingError(f"{character} ({slug}) is not in the set published under MIT; drop the concept")
        words = tuple(word.replace("_", " ") for word in keywords.get(character, ()))
        emoji.append(Emoji(character, entry["name"], entry["group"], words, picture))
    return emoji


def _read_json(path: Path, member: str) -> Any:
    found = read_members(path, re.escape(member))
    if member not in found:
        raise TrainingError(f"{path.name} holds no {member}: expected the pinned package layout")
    return json.loads(found[member])
