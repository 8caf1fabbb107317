"""What commands take besides a task: the model, and where results go."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segue.errors import TaskError
from segue.temporal.curve import Value, value_of
from segue.types import Prediction, Progress

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.models.placement import Placement
    from segue.tasks.record import ModelRecord


@dataclass(frozen=True)
class ModelChoice:
    """Which model, and where it runs.

    Args:
        model: an embedded model by name (`segue models` lists them), a folder, a .safetensors file, or a hub
            repository as owner/name; left out, what SEGUE_MODEL names, or else the embedded one.
        device: cpu, cuda, cuda:1 or mps; left out, the fastest that is here.
        dtype: float32, float16 or bfloat16; left out, float32 on the CPU and float16 elsewhere; auto, bfloat16 on a CPU
            that a measurement finds quicker in it.
        lora: a LoRA file to add to the weights, FILE or FILE=SCALE; may be repeated, once per file. The scale may be
            a curve over the film, FILE="0s:0, 2s:1".
        motion_adapter: layers that let a model of Stable Diffusion make clips (AnimateDiff): a folder, a hub repository
            such as guoyww/animatediff-motion-adapter-v1-5-3, or a .safetensors file; for segue animate. For segue
            upscale, a file of layers along time for an upscaler.
        instruct_adapter: a file of segue train instruct, by which a model of Stable Diffusion changes pictures as it is
            told; for segue edit.
        prediction: epsilon, v_prediction, sample or flow_prediction, where the model's files cannot tell.
        model_config: a folder of the diffusers layout whose configurations a single file is read with.
        profile: turbo, lcm, lightning or hyper, for models and LoRAs that need few steps: their steps, guidance, solver
            and times; left out, what the model's scheduler or card asks for.
        storage: float8 or int8, what weights are stored as; left out, the dtype. It changes pictures a little.
        offload: model or sequential, to keep on the graphics card only the network, or the layer, that works.
        tile: side in pixels above which pictures are decoded in overlapping tiles; left out, what fits into memory.
        compile: blocks, to compile those that repeat in the network, or graphs, to record all its kernels on CUDA (with
            --deterministic-batch). The first film takes longer, others less; pictures change in their last digits.
        preview_decoder: a small, quick decoder of the model's latents: a folder or a hub repository such as
            madebyollin/taesd; auto is the one that the model comes with, or that is published for its family.
        preview_for: what the small decoder is for: shown, what is looked at (--play, live) before or beside the film's
            own pictures; measured, also what the film's frames are placed by; frames, all pictures, the film's too.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    lora: tuple[str, ...] = ()
    motion_adapter: str | None = None
    instruct_adapter: Path | None = None
    prediction: Prediction | None = None
    model_config: Path | None = None
    profile: str | None = None
    storage: Literal["float8", "int8"] | None = None
    offload: Literal["model", "sequential"] | None = None
    tile: int | None = None
    compile: Literal["blocks", "graphs"] | None = None
    preview_decoder: str | None = None
    preview_for: Literal["shown", "measured", "frames"] | None = None

    def __post_init__(self) -> None:
        if self.preview_decoder is not None and not self.preview_decoder.strip():
            raise TaskError("--preview-decoder is empty: expected a folder, a hub repository, or auto")
        if self.preview_for is not None and self.preview_decoder is None:
            raise TaskError("preview_for says what a small decoder is for: name it with --preview-decoder, or auto")

    def otherwise(self, made: ModelRecord) -> ModelChoice:
        """With what was left out filled in from a record."""
        loras = tuple(f"{path}={scale}" for path, scale in made.loras)
        return ModelChoice(
            self.model or made.name,
            self.device or made.device,
            self.dtype or made.dtype,
            self.lora or loras,
            self.motion_adapter or made.motion_adapter,
            self.instruct_adapter or (Path(made.instruct_adapter) if made.instruct_adapter else None),
            self.prediction or made.prediction,
            self.model_config or (Path(made.config) if made.config else None),
            self.profile or made.profile,
            self.storage or made.storage,
            self.offload or (made.offload if self.device is None else None),
            made.tile if self.tile is None else self.tile,
            self.compile or (made.compile if self.device is None else None),
            self.preview_decoder or (made.preview_decoder if made.preview_for == "frames" else None),
            self.preview_for or ("frames" if made.preview_for == "frames" else None),
        )

    def check_previews(self, *, shown: bool = False, measured: bool = False) -> None:
        """Raise TaskError if there is a small decoder, and nothing that it is for.

        Args:
            shown: whether pictures are looked at that are not the result.
            measured: whether what is shown in the result is decided by looking at pictures.
        """
        use = self.preview_for or "shown"
        if self.preview_decoder is None or use == "frames" or shown or (measured and use == "measured"):
            return
        raise TaskError(
            f"--preview-decoder is for pictures that are {use}, and there are none here: leave it out, let it decode "
            "all pictures (--preview-for frames), or, where there is --play, look on"
        )

    def compiled_if_possible(self) -> ModelChoice:
        """The same without compiling, where this machine cannot: it changes no more than the last digits."""
        from segue.errors import ModelError
        from segue.models.compiling import check_compiler
        from segue.models.loading import find_device

        if self.compile is not None:
            try:
                check_compiler(self.compile, find_device(self.device))
            except ModelError:
                return replace(self, compile=None)
        return self

    def load(self, progress: Progress) -> LatentDiffusion:
        """The model, ready to use.

        Raises:
            ModelError: see `segue.zoo.load`.
            TaskError: a LoRA is not FILE or FILE=SCALE, or given twice.
        """
        from segue.zoo.load import load

        progress("loading the model", 0, 1)
        model = load(
            self.model,
            device=self.device,
            dtype=self.dtype,
            prediction=self.prediction,
            config=self.model_config,
            loras=self._loras() or None,
            motion=self.motion_adapter,
            instruct=self.instruct_adapter,
            placement=self.placement(),
            profile=self.profile,
            preview=self.preview_decoder,
            preview_for=self.preview_for or "shown",
        )
        progress("loading the model", 1, 1)
        return model

    def placement(self) -> Placement:
        """How its networks are kept and run.

        Raises:
            ModelError: that cannot be.
        """
        from segue.models.placement import Placement

        return Placement(storage=self.storage, offload=self.offload, tile=self.tile, compile=self.compile)

    def _loras(self) -> dict[str | Path, Value]:
        found: dict[str | Path, Value] = {}
        for text in self.lora:
            file, scale = _scaled(text)
            path = Path(file).expanduser()
            if path.absolute() in (other.absolute() for other in map(Path, found)):
                raise TaskError(f"--lora {file} is given twice; give each file once, with one scale")
            found[path] = scale
        return found


@dataclass(frozen=True)
class Output:
    """Where the result goes, and what is said of it.

    Args:
        output: file to write, replaced if it exists; its suffix chooses the format (.mp4 .webm .gif .webp .png ...,
            or no suffix for a folder of PNG files). Left out, a new name in this folder.
        crf: constant rate factor of the video, lower is better: 0 to 51 for H.264, 0 to 63 for VP9.
        json: print one JSON object on stdout instead of a line.
        quiet: no progress, no notes and no line at the end; errors are still said.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    output: Path | None = None
    crf: int | None = None
    json: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Drawing:
    """A drawing beside the film.

    Args:
        tree: file to draw the tree of branches in, such as tree.svg.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    tree: Path | None = None

    def __post_init__(self) -> None:
        if self.tree is not None and self.tree.suffix.lower() != ".svg":
            raise TaskError(f"the tree is drawn as SVG: give a name such as {self.tree.stem or 'tree'}.svg")


@dataclass(frozen=True)
class Recording:
    """What is kept of a run besides its picture.

    Args:
        trajectory: file to write the latents of every step to, such as walk.safetensors, for a transition to take as a
            key.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    trajectory: Path | None = None

    def __post_init__(self) -> None:
        if self.trajectory is not None and self.trajectory.suffix.lower() != ".safetensors":
            raise TaskError(
                f"a trajectory is written as safetensors: give a name such as {self.trajectory.stem or 'walk'}"
                ".safetensors"
            )


def slug(text: str, most: int = 40) -> str:
    """A prompt as the name of a file: its letters and digits, in words joined by hyphens."""
    words = re.findall(r"\w+", re.sub(r":\d*\.?\d+\)", ")", text).lower())
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word[:most]
        if len(longer) > most:
            break
        name = longer
    return name or "picture"


def _scaled(text: str) -> tuple[str, Value]:
    file, equals, scale = text.rpartition("=")
    if not equals:
        return text, 1.0
    try:
        return file, value_of(scale, "the scale")
    except TaskError as error:
        raise TaskError(f"--lora must be FILE or FILE=SCALE, such as style.safetensors=0.8: {error}") from None
