"""Models on the Hugging Face hub: asked about first, downloaded in part, and found in the cache when offline."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue.errors import CheckpointError, ModelAccessError, ModelNotFoundError, UnsafeFileError

PATIENCE = 4.0
"""Seconds that the hub has to answer the first question."""

PARTS = {"unet": "diffusion_pytorch_model", "text_encoder": "model", "vae": "diffusion_pytorch_model"}
_SMALL = re.compile(r"(model_index|(unet|text_encoder|vae)/config|scheduler/scheduler_config)\.json|tokenizer/[^/]+")
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
    from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download

    with _discreet(), _translated(repository):
        try:
            info = HfApi(library_name="segue").model_info(repository.id, revision=repository.revision, timeout=PATIENCE)
        except (errors.HfHubHTTPError, errors.HFValidationError):
            raise
        except (errors.OfflineModeIsEnabled, OSError, *_connection_errors()) as error:
            return _cached(repository, error)
        names = {file.rfilename for file in info.siblings or ()}
        if repository.file is not None and repository.file not in names:
            raise ModelNotFoundError(f"the hub's {repository.id} has no file {repository.file}")
        wanted = set[str]() if repository.file is not None else needed_files(repository.id, names)
        # One small file first: a gated repository answers questions, but refuses files.
        first = repository.file or "model_index.json"
        options: dict[str, Any] = {"revision": repository.revision, "library_name": "segue"}
        local = Path(hf_hub_download(repository.id, first, **options))
        if repository.file is not None:
            return local
        return Path(snapshot_download(repository.id, allow_patterns=sorted(wanted), **options))


def needed_files(name: str, files: Iterable[str]) -> set[str]:
    """Which files of a repository make a model: configurations, tokenizer, and the safetensors of each part.

    Raises:
        CheckpointError: there is no model_index.json.
        UnsafeFileError: a part comes as a pickle only.
        ModelNotFoundError: a part has no weights at all.
    """
    there = set(files)
    if "model_index.json" not in there:
        single = sorted(file for file in there if file.endswith(".safetensors") and "/" not in file)
        hint = f"; it holds single files: try {name}/{single[0]}" if single else ""
        raise CheckpointError(f"the hub's {name} is no model of the diffusers layout (no model_index.json){hint}")
    wanted = {file for file in there if _SMALL.fullmatch(file)}
    for part, stem in PARTS.items():
        name_of = re.compile(rf"{part}/{stem}(\.fp16)?(-\d+-of-\d+)?(\.fp16)?\.safetensors(\.index(\.fp16)?\.json)?")
        fitting = {file for file in there if name_of.fullmatch(file)}
        weights = {file for file in fitting if ".fp16" not in file} or fitting
        if not weights and any(file.startswith(f"{part}/") and file.endswith(".bin") for file in there):
            raise UnsafeFileError(
                f"the hub's {name} has its {part} as a pickle only, and loading a pickle can run any code; Segue reads "
                "safetensors only. Look for a converted copy, or convert it on a machine where you trust it"
            )
        if not weights:
            raise ModelNotFoundError(
                f"the hub's {name} has no weights for its {part}; expected {part}/{stem}.safetensors"
            )
        wanted |= weights
    return wanted


def _cached(repository: Repository, reason: BaseException) -> Path:
    from huggingface_hub import errors, hf_hub_download

    first = repository.file or "model_index.json"
    try:
        local = Path(hf_hub_download(repository.id, first, revision=repository.revision, local_files_only=True))
        if repository.file is not None:
            return local
        # The client calls a snapshot incomplete when files are missing that no model needs, so we look ourselves.
        folder = local.parent
        needed_files(repository.id, (path.relative_to(folder).as_posix() for path in folder.rglob("*")))
        return folder
    except (errors.LocalEntryNotFoundError, ModelNotFoundError, OSError, ValueError):
        why = "offline mode is on" if isinstance(reason, errors.OfflineModeIsEnabled) else "it does not answer"
        raise ModelAccessError(
            f"{repository.id} is not on this machine, or not all of it, and the hub cannot be asked for it ({why}). "
            "Connect, or give the path of a local folder or file"
        ) from reason


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
