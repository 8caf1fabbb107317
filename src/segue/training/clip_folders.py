"""Captioned footage as people keep it: folders of videos, and shards of the WebDataset layout.

      folder/   forest.mp4  forest.txt         a caption a line
                captions.jsonl                 or one line a video: {"file": "forest.mp4", "caption": "..."}
                shard-000.tar                  members 0001.mp4, 0001.txt or 0001.json ({"caption": "..."})

What cannot be read is left out, and counted.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from segue.errors import TrainingError

VIDEOS = frozenset({".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif", ".webp", ".apng"})
LISTS = "captions.jsonl"
LARGEST = 4 << 30
"""Bytes of a member of a shard; one that claims more is no clip."""


@dataclass(frozen=True)
class Footage:
    """A video, where it lies now, and what is said of it.

    Args:
        name: by which it is told from others: its path below the folder, with its shard if it came in one.
        path: of the file; of a member of a shard, only while it is its turn.
        captions: what is said of it; none where nobody said anything.
    """

    name: str
    path: Path
    captions: tuple[str, ...]


@dataclass
class Faults:
    """What could not be read: how often for each reason, and the first names."""

    counts: Counter[str] = field(default_factory=Counter[str])
    names: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, reason: str, name: str) -> None:
        self.counts[reason] += 1
        self.names.setdefault(reason, [])
        if len(self.names[reason]) < 5:
            self.names[reason].append(name)


def footage(folder: Path, faults: Faults) -> Iterator[Footage]:
    """All videos of a folder and of the shards in it, in the order of their names; or those of a single shard.

    Args:
        folder: or a .tar file.
        faults: is told what cannot be read.

    Raises:
        TrainingError: there is no such folder, or nothing in it that could be footage, or a list of captions is none.
    """
    if not folder.exists():
        raise TrainingError(f"there is no folder or shard {folder}; check the name")
    if folder.is_file():
        if folder.suffix != ".tar":
            raise TrainingError(f"expected a folder of videos or a .tar of them, got {folder}")
        yield from _of_shard(folder, folder.name, faults)
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in {*VIDEOS, ".tar"})
    if not files:
        raise TrainingError(
            f"{folder} holds neither videos ({', '.join(sorted(VIDEOS))}) nor shards (.tar); put some there"
        )
    listed = {path.parent: _listed(path) for path in folder.rglob(LISTS)}
    for path in files:
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".tar":
            yield from _of_shard(path, name, faults)
        else:
            yield Footage(name, path, _beside(path, name, listed.get(path.parent, {}), faults))


def _beside(path: Path, name: str, listed: Mapping[str, tuple[str, ...]], faults: Faults) -> tuple[str, ...]:
    text = path.with_suffix(".txt")
    if not text.exists():
        return listed.get(path.name, ())
    try:
        return _lines(text.read_bytes())
    except UnicodeDecodeError:
        faults.add("its captions are no UTF-8", name)
        return ()


def _lines(text: bytes) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.decode("utf-8-sig").splitlines() if line.strip())


def _listed(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            said: Any = json.loads(line)
            found[str(said["file"])] = found.get(str(said["file"]), ()) + _said(said)
        except (ValueError, LookupError, TypeError) as error:
            raise TrainingError(
                f'{path}, line {number}: expected {{"file": "x.mp4", "caption": "..."}}, got {line[:60]!r}'
            ) from error
    return found


def _said(line: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a JSON object: "captions", a list, or "caption" or "text".

    Raises:
        TypeError, LookupError: there is none, or none of words.
    """
    captions = line["captions"] if "captions" in line else [line["caption"] if "caption" in line else line["text"]]
    if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
        raise TypeError("captions are texts")
    return tuple(caption.strip() for caption in captions if caption.strip())


def _of_shard(path: Path, name: str, faults: Faults) -> Iterator[Footage]:
    """The samples of a shard: consecutive members whose names are the same up to the first dot."""
    with tempfile.TemporaryDirectory() as scratch:
        key, held = "", dict[str, bytes | Path]()
        for member, data in _members(path, name, faults, Path(scratch)):
            inner = PurePosixPath(member)
            stem, _, kind = inner.name.partition(".")
            mine = (inner.parent / stem).as_posix()
            if mine != key:
                yield from _sample(f"{name}/{key}", held, faults)
                key, held = mine, {}
            held[f".{kind.lower()}"] = data
        yield from _sample(f"{name}/{key}", held, faults)


def _members(path: Path, name: str, faults: Faults, scratch: Path) -> Iterator[tuple[str, bytes | Path]]:
    """(name, bytes; or for a video a file in `scratch`) of the regular files of a shard, as far as it can be read."""
    try:
        with tarfile.open(path) as archive:
            for number, member in enumerate(archive):
                suffix = PurePosixPath(member.name).suffix.lower()
                if not member.isfile() or suffix not in {*VIDEOS, ".txt", ".json"}:
                    continue
                stream = archive.extractfile(member) if member.size <= LARGEST else None
                if stream is None:
                    faults.add("its member of a shard cannot be read", f"{name}/{member.name}")
                    continue
                data = stream.read()
                if len(data) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                if suffix not in VIDEOS:
                    yield member.name, data
                    continue
                # The name of a member is never that of a file: it may point anywhere.
                file = scratch / f"{number}{suffix}"
                file.write_bytes(data)
                yield member.name, file
    except (tarfile.TarError, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise TrainingError(f"cannot read {path}: {error}") from error
        faults.add("a shard is torn; what comes before is used", name)


def _sample(name: str, held: dict[str, bytes | Path], faults: Faults) -> Iterator[Footage]:
    with _file(held) as video:
        if video is None:
            if held:
                faults.add("captions without a video", name)
            return
        captions: tuple[str, ...] = ()
        try:
            if isinstance(text := held.get(".txt"), bytes):
                captions = _lines(text)
            elif isinstance(text := held.get(".json"), bytes):
                captions = _said(json.loads(text))
        except (ValueError, LookupError, TypeError, AttributeError):
            faults.add("its captions cannot be read", name)
        yield Footage(name, video, captions)


@contextmanager
def _file(held: Mapping[str, bytes | Path]) -> Generator[Path | None]:
    """The video of a sample, which is removed afterwards."""
    found = next((data for data in held.values() if isinstance(data, Path)), None)
    try:
        yield found
    finally:
        for data in held.values():
            if isinstance(data, Path):
                data.unlink(missing_ok=True)
