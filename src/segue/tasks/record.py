"""The JSON beside a result: what was asked, what was decided, with what; enough to make it again, byte for byte."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segue.errors import RecordError
from segue.tasks.sampling import Execution
from segue.types import Prediction
from segue.zoo.vocabulary import remarks

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion

FORMAT = 1
PACKAGES = ("segue", "torch", "diffusers", "transformers", "av", "numpy")


@dataclass(frozen=True)
class ModelRecord:
    """Which model made a result.

    Args:
        name: as the user gave it; local paths are absolute.
        sha256: the model's fingerprint: weights, LoRAs, configurations and prediction.
        device: "cpu", "cuda", ...
        dtype: what its networks computed in.
        loras: files that were added to its weights, each with its scale, or the curve of it.
        motion_adapter: by which it made clips, as the user gave it, but for a local path, which is absolute.
        instruct_adapter: the file by which it followed instructions, an absolute path.
        prediction: what its network was said to predict; None if its files decided.
        config: the folder that a single file was read with, if one was given.
        profile: whose defaults it had, if not its family's or its card's.
        storage: what its weights were stored as, if in fewer bits.
        offload: which networks waited off the device.
        tile: side in pixels above which pictures were decoded in tiles.
        compile: what of its network was compiled.
        preview_decoder: the small decoder of its latents, if that had a say in the result.
        preview_for: what that was used for.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    sha256: str
    device: str
    dtype: str
    loras: list[tuple[str, float | str]] = field(default_factory=list[tuple[str, float | str]])
    motion_adapter: str | None = None
    instruct_adapter: str | None = None
    prediction: Prediction | None = None
    config: str | None = None
    profile: str | None = None
    storage: Literal["float8", "int8"] | None = None
    offload: Literal["model", "sequential"] | None = None
    tile: int | None = None
    compile: Literal["blocks", "graphs"] | None = None
    preview_decoder: str | None = None
    preview_for: Literal["measured", "frames"] | None = None

    @staticmethod
    def of(model: LatentDiffusion) -> ModelRecord:
        """The record of a loaded model."""
        preview = model.preview if model.preview and model.preview.use != "shown" else None
        return ModelRecord(
            name=lasting_name(model),
            sha256=model.fingerprint,
            device=model.device.type,
            dtype=str(model.dtype).removeprefix("torch."),
            loras=[(str(path.expanduser().absolute()), scale) for path, scale in model.loras],
            motion_adapter=model.adapter,
            instruct_adapter=model.instruct_adapter,
            prediction=model.prediction,
            config=None if model.config is None else str(model.config.absolute()),
            profile=model.profile,
            storage=model.placement.storage,
            offload=model.placement.offload,
            tile=model.placement.tile,
            compile=model.placement.compile,
            preview_decoder=preview and preview.source,
            preview_for=None if preview is None else "frames" if preview.use == "frames" else "measured",
        )


@dataclass(frozen=True)
class WrittenAs:
    """How a result was written.

    Args:
        suffix: of its file, which names the format.
        crf: constant rate factor, if one was asked for.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    suffix: str
    crf: int | None = None


@dataclass(frozen=True)
class Record:
    """One result: the task with nothing left open, the resolved plan, and everything that the bytes depend on.

    Args:
        format: version of this layout.
        task: name of the task, such as "transition".
        fields: the task's fields, resolved.
        plan: what was decided while running, as the task stores it.
        model: the model; None for a task that needs none.
        execution: batches and threads.
        versions: of Segue, Python and the libraries.
        scores: what was measured of the result.
        notes: what is good to know about it, a line each, such as words that the model does not know.
        complete: False if the work was interrupted and only a part was kept.
        output: how the command wrote the file; None if it was not a command that did.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    format: int
    task: str
    fields: dict[str, Any]
    plan: dict[str, Any]
    model: ModelRecord | None
    execution: Execution
    versions: dict[str, str] = field(default_factory=dict[str, str])
    scores: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])
    complete: bool = True
    output: WrittenAs | None = None

    @staticmethod
    def of(
        task: str,
        fields: Any,
        plan: Any,
        model: LatentDiffusion | None,
        execution: Execution,
        scores: Mapping[str, Any],
        complete: bool = True,
        notes: Sequence[str] = (),
    ) -> Record:
        """A record of work that was just done; `fields` and `plan` are dataclasses of plain values."""
        return Record(
            FORMAT,
            task,
            asdict(fields),
            asdict(plan),
            None if model is None else ModelRecord.of(model),
            execution.pinned(),
            versions(),
            dict(scores),
            list(notes),
            complete,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values that json can hold."""
        return asdict(self)


def read_record(path: Path) -> Record:
    """The record in a JSON file.

    Raises:
        RecordError: if there is no such file, it is no JSON, no record, or of another format.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}; pass the .json beside a result") from error
    except ValueError as error:
        raise RecordError(f"{path} is not JSON ({error}); pass the .json that Segue wrote beside a result") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found is None:
        raise RecordError(f"{path} is not a record of Segue: it has no format; pass the .json beside a result")
    if found != FORMAT:
        raise RecordError(
            f"{path} has record format {found!r}, this Segue {version('segue')} reads format {FORMAT}; "
            f"use the version that wrote it ({_writer(data)})"
        )
    try:
        return TypeAdapter(Record).validate_python(data)
    except ValidationError as error:
        raise RecordError(f"{path} is not a sound record: {first_fault(error)}") from error


def first_fault(error: Any) -> str:
    """The first complaint of a pydantic validation error, in one line."""
    fault = error.errors()[0]
    if "error" in fault.get("ctx", {}):
        return str(fault["ctx"]["error"])
    where = ".".join(str(part) for part in fault["loc"]) or "the whole"
    return f"{where}: {fault['msg']}"


def differences(record: Record, model: LatentDiffusion | None) -> list[str]:
    """What is not as it was when the record was written, and may change the result; the model must be the same.

    Raises:
        RecordError: if the model's weights, configurations or prediction are others; there is one, and none was used,
            or the other way round.
    """
    found = [
        f"{name} was {before}, is {versions().get(name, 'missing')}"
        for name, before in record.versions.items()
        if versions().get(name) != before
    ]
    if (record.model is None) != (model is None):
        raise RecordError(
            f"the record is of a task that uses no model ({record.task}): leave it out"
            if model is not None
            else f"the record was made with a model ({record.task}): load it, and pass it"
        )
    return found if record.model is None or model is None else [*found, *_differing(record.model, model)]


def _differing(made: ModelRecord, model: LatentDiffusion) -> list[str]:
    now = ModelRecord.of(model)
    if now.sha256 != made.sha256:
        raise RecordError(
            f"the record was made with {_told(made)}, but this model is {_told(now)}; pass the original with "
            "--model (and --lora, --prediction, --model-config, --storage and --preview-decoder, where they differ)"
        )
    found: list[str] = []
    if (now.device, now.dtype) != (made.device, made.dtype):
        found.append(f"ran on {made.device} in {made.dtype}, now {now.device} in {now.dtype}")
    if made.tile is not None and now.tile != made.tile:
        found.append(f"was decoded in tiles of up to {made.tile} pixels, now of {now.tile}")
    if now.compile != made.compile:
        before, after = (f"compiled ({how})" if how else "uncompiled" for how in (made.compile, now.compile))
        found.append(f"ran {before}, now {after}")
    return found


def notes_on(prompts: Sequence[str], model: LatentDiffusion) -> tuple[str, ...]:
    """What is good to know before a model draws these prompts: a line that names the words that it does not know.

    Raises:
        TaskError: if a weight in a prompt is out of range.
    """
    return remarks(prompts, model, lasting_name(model))


@cache
def versions() -> dict[str, str]:
    """Versions of everything that may change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def lasting_name(model: LatentDiffusion) -> str:
    """The model's name; of a local folder or file, a path that another working folder finds too."""
    place = Path(model.name).expanduser().absolute()
    local = any(place in (file.absolute(), *file.absolute().parents) for file, _ in model.weights)
    return str(place) if local else model.name


def _told(model: ModelRecord) -> str:
    said = f", told that it predicts {model.prediction}" if model.prediction else ""
    return f"{model.sha256[:12]} of {model.name!r}{said}"


def _writer(data: Mapping[str, Any]) -> str:
    stated = data.get("versions")
    return f"segue {stated['segue']}" if isinstance(stated, dict) and "segue" in stated else "unknown"
