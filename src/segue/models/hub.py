"""Models on the Hugging Face hub: asked about first, downloaded in part, and found in the cache when offline."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue.errors import CheckpointError, ModelAccessError, ModelNotFoundError, UnsafeFileError
from segue.models.families import find_family

PATIENCE = 4.0
"""Seconds that the hub has to answer the first question."""

NETWORK = "network"
"""What a part is called that is a repository of its own."""

_SMALL = ("model_index.json", "scheduler/scheduler_config.json")
_SIGHT = "feature_extractor/preprocessor_config.json"
_CONFIGURATIONS = ["model_index.json", "*/config.json", "scheduler/scheduler_config.json"]
_NAME = re.compile(r"(?P<id>[\w.-]+/[\w.-]+?)(?P<file>/.+\.\w+)?(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Repository:
    """A hub repository, a revision of it, and perhaps one file in it."""

    id: str
    revision: str | None = None
    file: str | None = None


def parse_repository(source: str) -> Repository | None:
    """ "owner/name", "owner/name@revision" or "owner/name/file.safetensors"; None if `source` is none of these."""
    match = _NAME.fullmatch(source)
    if match is None or source[0] in "./~" or match["id"].endswith((".safetensors", ".ckpt", ".pt", ".bin")):
        return None
    return Repository(match["id"], match["revision"], match["file"][1:] if match["file"] else None)


def download(repository: Repository) -> Path:
    """The local copy of a repository's model folder, or of its one file: what is missing is downloaded.

    Offline, or if the hub does not answer within PATIENCE, the cache is used.

    Raises:
        ModelNotFoundError: the hub has no such repository, revision or file.
        ModelAccessError: it is gated or private, or the hub cannot be reached and the cache does not have it.
        UnsafeFileError: it holds pickles only.
        CheckpointError: it is no model of the diffusers layout.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    with _discreet(), _translated(repository):
        names = _listed(repository)
        if isinstance(names, BaseException):
            return _cached(repository, names)
        if repository.file is not None and repository.file not in names:
            raise ModelNotFoundError(f"the hub's {repository.id} has no file {repository.file}")
        if repository.file is None:
            check_layout(repository.id, names)
        # One small file first: a gated repository answers questions, but refuses files.
        first = repository.file or "model_index.json"
        options: dict[str, Any] = {"revision": repository.revision, "library_name": "segue"}
        local = Path(hf_hub_download(repository.id, first, **options))
        if repository.file is not None:
            return local
        wanted = needed_files(f"the hub's {repository.id}", names, _index(local))
        return Path(snapshot_download(repository.id, allow_patterns=sorted(wanted), **options))


def place_of_network(source: str | Path, what: str) -> Path | Repository:
    """The folder of a network that is here, its config.json in it, or the repository that is meant.

    Args:
        source: a folder, or a repository "owner/name", perhaps "@revision".
        what: it is, and what its folder holds, as in "small decoder at {}: expected ...".

    Raises:
        ModelNotFoundError: neither.
    """
    path = Path(source).expanduser()
    if str(source) and (path / "config.json").is_file():
        return path
    repository = parse_repository(source) if isinstance(source, str) and not path.exists() else None
    if repository is None or repository.file is not None:
        raise ModelNotFoundError(f"there is no {what.format(str(source) or '(an empty name)')}")
    return repository


def download_network(repository: Repository, stem: str | None = None, also: Collection[str] = ()) -> Path:
    """The local copy of a repository that holds one network: its config.json and its safetensors.

    Offline, or if the hub does not answer within PATIENCE, the cache is used.

    Args:
        repository: of the hub.
        stem: what the weights are called, without .safetensors; as diffusers has it, if left out.
        also: names of small files that belong to it, such as a tokenizer's; those that there are.

    Raises:
        ModelNotFoundError: the hub has no such repository or revision, or it holds no network.
        ModelAccessError: it is gated or private, or the hub cannot be reached and the cache does not have it.
        UnsafeFileError: its weights come as a pickle only.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    options: dict[str, Any] = {"revision": repository.revision, "library_name": "segue"}
    with _discreet(), _translated(repository):
        names = _listed(repository)
        if not isinstance(names, BaseException):
            wanted = network_files(f"the hub's {repository.id}", names, stem) | names.intersection(also)
            hf_hub_download(repository.id, "config.json", **options)  # alone, as a gated repository refuses it
            return Path(snapshot_download(repository.id, allow_patterns=sorted(wanted), **options))
        try:
            local = Path(hf_hub_download(repository.id, "config.json", local_files_only=True, **options))
            network_files(repository.id, (path.name for path in local.parent.iterdir()), stem)
        except (ModelNotFoundError, OSError, ValueError):
            raise _unreachable(repository, names) from names
        return local.parent


def configurations(repository: Repository) -> Path:
    """The folder of a repository's configurations, or its one file; of the former, what is missing is downloaded.

    Raises:
        ModelNotFoundError: the hub has no such repository or revision, or its one file is not on this machine.
        ModelAccessError: it is gated or private, or the hub cannot be reached and the cache does not have it.
    """
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    first = repository.file or "model_index.json"
    options: dict[str, Any] = {"revision": repository.revision, "library_name": "segue"}
    try:
        local = Path(hf_hub_download(repository.id, first, local_files_only=True, **options))
        if repository.file is not None:
            return local
        # A model that was refused left its index here, and nothing else.
        if (local.parent / "vae" / "config.json").is_file():
            return local.parent
    except (errors.LocalEntryNotFoundError, OSError, ValueError):
        if repository.file is not None:
            raise ModelNotFoundError(
                f"{repository.id}/{repository.file} is not on this machine, and what it holds stands in its first "
                "bytes: give the folder of the same model on the hub, or run it once"
            ) from None
    with _discreet(), _translated(repository):
        try:
            return Path(snapshot_download(repository.id, allow_patterns=_CONFIGURATIONS, **options))
        except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
            raise ModelAccessError(
                f"the configurations of {repository.id} are not on this machine, and the hub cannot be asked for them. "
                "Connect, or give the path of a local folder or file"
            ) from error


def check_layout(name: str, files: Iterable[str]) -> None:
    """Raise CheckpointError, with what there is instead, if a repository has no model_index.json."""
    there = set(files)
    if "model_index.json" not in there:
        single = sorted(file for file in there if file.endswith(".safetensors") and "/" not in file)
        hint = f"; it holds single files: try {name}/{single[0]}" if single else ""
        raise CheckpointError(f"the hub's {name} is no model of the diffusers layout (no model_index.json){hint}")


def needed_files(name: str, files: Iterable[str], index: Mapping[str, Any]) -> set[str]:
    """Which files make a model: configurations, tokenizers, and the safetensors of each part that its family has.

    Args:
        name: what the repository or folder is called in what is said of it.
        files: all that are there, from its root on.
        index: the contents of its model_index.json.

    Raises:
        CheckpointError: it is of no family that Segue reads, or lacks a part by its own index.
        UnsafeFileError: a part comes as a pickle only.
        ModelNotFoundError: a part has no weights at all.
    """
    there = set(files)
    family = find_family(index, name)
    wanted = {file for file in there if file in _SMALL}
    for part in family.parts:
        left_out = index.get(part, True) in (None, [None, None])
        if left_out and part not in family.optional:
            raise CheckpointError(f"{name} has no {part}, which {family.name} needs: it is half a model, or a refiner")
        if left_out:
            continue
        weights = _weights(name, part, there)
        if not weights and part in family.optional:
            continue
        if not weights:
            raise ModelNotFoundError(
                f"{name} has no weights for its {part}; expected {part}/{stem_of(part)}.safetensors"
            )
        tokenizer = f"{part.replace('text_encoder', 'tokenizer')}/"
        sight = (_SIGHT,) if part == "image_encoder" else ()
        small = (file for file in there if file in (f"{part}/config.json", *sight))
        words = (file for file in there if tokenizer.startswith("tokenizer") and file.startswith(tokenizer))
        wanted |= {*weights, *small, *words}
    return wanted


def network_files(name: str, files: Iterable[str], stem: str | None = None) -> set[str]:
    """Which files of a folder make one network: its configuration and its safetensors.

    Args:
        name: what the folder is called in what is said of it.
        files: all that are in it.
        stem: what the weights are called, without .safetensors; as diffusers has it, if left out.

    Raises:
        UnsafeFileError: its weights come as a pickle only.
        ModelNotFoundError: it has no configuration, or no weights.
    """
    there, stem = {f"{NETWORK}/{file}" for file in files}, stem or stem_of(NETWORK)
    weights = {file.removeprefix(f"{NETWORK}/") for file in _weights(name, NETWORK, there, stem)}
    if not weights or f"{NETWORK}/config.json" not in there:
        raise ModelNotFoundError(
            f"{name} holds no network: expected config.json and {stem}.safetensors in its first folder"
        )
    return {"config.json", *weights}


def stem_of(part: str) -> str:
    """What the weight files of a part are called, without .safetensors."""
    return "model" if part.startswith(("text_encoder", "image_encoder")) else "diffusion_pytorch_model"


def _weights(name: str, part: str, there: set[str], stem: str | None = None) -> set[str]:
    """The safetensors of a part and their index; those of half precision where there are no others."""
    form = rf"{part}/{stem or stem_of(part)}(\.fp16)?(-\d+-of-\d+)?(\.fp16)?\.safetensors(\.index(\.fp16)?\.json)?"
    fitting = {file for file in there if re.fullmatch(form, file)}
    weights = {file for file in fitting if ".fp16" not in file} or fitting
    if not weights and any(file.startswith(f"{part}/") and file.endswith(".bin") for file in there):
        raise UnsafeFileError(
            f"{name} has its {part} as a pickle only, and loading a pickle can run any code; Segue reads "
            "safetensors only. Look for a converted copy, or convert it on a machine where you trust it"
        )
    return weights


def _listed(repository: Repository) -> set[str] | BaseException:
    """The files of a repository as the hub lists them, or why it does not answer."""
    from huggingface_hub import HfApi, errors

    try:
        info = HfApi(library_name="segue").model_info(repository.id, revision=repository.revision, timeout=PATIENCE)
    except (errors.HfHubHTTPError, errors.HFValidationError):
        raise
    except (errors.OfflineModeIsEnabled, OSError, *_connection_errors()) as error:
        return error
    return {file.rfilename for file in info.siblings or ()}


def _unreachable(repository: Repository, reason: BaseException) -> ModelAccessError:
    from huggingface_hub import errors

    why = "offline mode is on" if isinstance(reason, errors.OfflineModeIsEnabled) else "it does not answer"
    return ModelAccessError(
        f"{repository.id} is not on this machine, or not all of it, and the hub cannot be asked for it ({why}). "
        "Connect, or give the path of a local folder or file"
    )


def _index(path: Path) -> dict[str, Any]:
    """What a model_index.json says; nothing, if it is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _cached(repository: Repository, reason: BaseException) -> Path:
    from huggingface_hub import errors, hf_hub_download

    first = repository.file or "model_index.json"
    try:
        local = Path(hf_hub_download(repository.id, first, revision=repository.revision, local_files_only=True))
        if repository.file is not None:
            return local
        # The client calls a snapshot incomplete when files are missing that no model needs, so we look ourselves.
        folder = local.parent
        files = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        needed_files(repository.id, files, _index(local))
        return folder
    except (errors.LocalEntryNotFoundError, ModelNotFoundError, OSError, ValueError):
        raise _unreachable(repository, reason) from reason


@contextmanager
def _translated(repository: Repository) -> Generator[None]:
    """Turn what the hub's client raises into one line of ours."""
    from huggingface_hub import errors

    name = repository.id
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelAccessError(
            f"{name} is gated: accept its terms on https://huggingface.co/{name}, then sign in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(f"the hub's {name} has no revision {repository.revision}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"the hub has no model {name}, or it is private. Check the spelling; for a private one, sign in with "
            "`hf auth login`"
        ) from error
    except errors.HFValidationError as error:
        raise ModelNotFoundError(f'"{name}" is no name of a hub repository ({error})') from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        raise ModelAccessError(f"the hub answered {status} when asked for {name}; try again later") from error
    except _connection_errors() as error:
        raise ModelAccessError(
            f"the connection to the hub broke while fetching {name}; run it again to resume"
        ) from error


def _connection_errors() -> tuple[type[BaseException], ...]:
    """What the hub's client raises when it cannot connect: its versions use different libraries for it."""
    found: list[type[BaseException]] = [ConnectionError, TimeoutError]
    for library, name in (("httpx2", "TransportError"), ("httpx", "TransportError"), ("requests", "RequestException")):
        try:
            module: Any = __import__(library)
        except ImportError:
            continue
        found.append(getattr(module, name))
    return tuple(found)


@contextmanager
def _discreet() -> Generator[None]:
    """Send the hub no more about this machine than a download needs, and put the setting back afterwards."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before
