"""What lies on this machine: models in the hub's cache, and what a folder says of itself. No torch is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue.errors import CheckpointError, ModelError
from segue.models.families import family_of
from segue.models.hub import needed_files

INDEX = "model_index.json"


@dataclass(frozen=True)
class Facts:
    """What the files of a model say.

    Args:
        family: what its layout is called: "Stable Diffusion", "Stable Diffusion XL", "Flux".
        size: (width, height) in pixels that it is made for; None where the files do not tell.
        licence: as its README states it; "" if it does not.
        bytes: on disk.
        problem: why it cannot be loaded as it lies there; "" if nothing is known against it.
    """

    family: str
    size: tuple[int, int] | None
    licence: str
    bytes: int
    problem: str = ""


@dataclass(frozen=True)
class Installed:
    """A model in the hub's cache.

    Args:
        name: what `segue.load` takes: owner/name, owner/name@revision, or owner/name/file.safetensors.
        path: its folder or file.
        facts: what its files say.
    """

    name: str
    path: Path
    facts: Facts


def folder_facts(folder: Path, words_from: Path | None = None) -> Facts:
    """What a folder of the diffusers layout says of itself. What cannot be read is left out, and never an error.

    Args:
        folder: of the model.
        words_from: the folder whose text encoder and tokenizer it shares, whose bytes are not its own.
    """
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    kind = str(_json(folder / INDEX).get("_class_name", ""))
    family = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.partition("Pipeline")[0]) or "unknown layout"
    size = sum(path.stat().st_size for path in names.values())
    shared = [path for part in ("text_encoder", "tokenizer") if words_from for path in (words_from / part).iterdir()]
    there = [*names, *(path.relative_to(path.parents[1]).as_posix() for path in shared)]
    return Facts(family, _size(folder), _licence(folder), size, _problem(folder, there))


def installed() -> Iterator[Installed]:
    """The image models in the hub's cache, by name; a folder that makes no sense is passed over."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, OSError, ValueError):
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        if repository.repo_type != "model":
            continue
        for revision in sorted(repository.revisions, key=lambda revision: revision.commit_hash):
            branch = "main" in revision.refs
            suffix = "" if branch else f"@{min(revision.refs, default=revision.commit_hash)}"
            yield from _models(repository.repo_id, suffix, revision.snapshot_path)


def has_network(name: str) -> bool:
    """Whether the hub's cache has a repository of one network: its configuration, and weights as safetensors."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return isinstance(found, str) and any(path.exists() for path in Path(found).parent.glob("*.safetensors"))


def _problem(folder: Path, files: Iterable[str]) -> str:
    index = _json(folder / INDEX)
    if family_of(str(index.get("_class_name"))) is None:
        return "which Segue does not read"
    try:
        needed_files(folder.name, files, index)
    except CheckpointError:
        return "which is half a model, or a refiner"
    except ModelError:
        return "not all of it is here"
    return ""


def _models(name: str, suffix: str, folder: Path) -> Iterator[Installed]:
    """The model folder that a snapshot is, or its single files that hold a whole model."""
    if (folder / INDEX).is_file():
        yield Installed(name + suffix, folder, folder_facts(folder))
        return
    for path in sorted(folder.glob("*.safetensors")):
        if _is_whole_model(path):
            facts = Facts("one file of the original layout", None, _licence(folder), path.stat().st_size)
            yield Installed(f"{name}/{path.name}{suffix}", path, facts)


def _is_whole_model(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            names: list[str] = list(file.keys())
            return any(name.startswith("model.diffusion_model.") for name in names)
    except (SafetensorError, OSError):
        return False


def _size(folder: Path) -> tuple[int, int] | None:
    network = _json(folder / "unet" / "config.json") or _json(folder / "transformer" / "config.json")
    vae = _json(folder / "vae" / "config.json")
    levels = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    side = network.get("sample_size")
    if not isinstance(side, int) or not isinstance(levels, list):
        return None
    pixels = side * 2 ** (len(levels) - 1)
    return pixels, pixels


def _licence(folder: Path) -> str:
    """As the head of the README says, between its two lines of hyphens."""
    try:
        parts = (folder / "README.md").read_text(encoding="utf-8", errors="replace").split("---", 2)
    except OSError:
        return ""
    match = re.search(r"^license:[ \t]*([^\s#]+)", parts[1], flags=re.MULTILINE) if len(parts) == 3 else None
    return match[1].strip("'\"") if match else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
