"""Files of instruction adapters, and models with such an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import CheckpointError, ModelError
from segue.models.control import unet_of
from segue.models.instruct_adapter import InstructAdapter, InstructLayout, InstructText
from segue.models.own_files import said_of, weights_of, write_own
from segue.models.placement import beside
from segue.models.skeleton import INSTRUCT

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion

KIND = "segue_instruct_adapter"


def save_instruct(path: Path, adapter: InstructAdapter, model: LatentDiffusion) -> None:
    """Write an adapter, 8 bits a weight; the file is replaced when the new one is whole.

    Args:
        path: of the file.
        adapter: of any precision.
        model: which it learned beside; the file names it.
    """
    said = {"layout": asdict(adapter.layout), "base": model.name, "fingerprint": model.fingerprint}
    write_own(path, KIND, said, adapter.state_dict())


def read_instruct(path: Path) -> InstructAdapter:
    """An adapter from its file, in float32, frozen.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, or something else.
    """
    layout = read_layout(path)
    try:
        adapter = InstructAdapter(layout)
        adapter.load_state_dict(weights_of(path))
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} is no instruction adapter of Segue ({reason})") from error
    return adapter.eval().requires_grad_(False)


def read_layout(path: Path) -> InstructLayout:
    """The shape of the adapter in a file, of which no weights are read.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, or something else.
    """
    said = said_of(path, KIND)
    if said is None:
        raise CheckpointError(f"{path} holds no instruction adapter: expected a file that segue train instruct wrote")
    try:
        layout: Mapping[str, Any] = said["layout"]
        return InstructLayout(**{name: _tuples(value) for name, value in layout.items()})
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} is no instruction adapter of Segue ({reason})") from error


def with_instruct_file(model: LatentDiffusion, path: Path) -> LatentDiffusion:
    """A model that follows instructions by the adapter of a file. Without a picture to change it is not used.

    It need not be the model that the adapter learned beside: it works with others of its shape, too.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, no adapter, or made for another architecture.
        ModelError: the model is shown pictures already, or has no UNet that could be told.
    """
    adapter = read_instruct(path)
    taught = with_instruct(model, adapter, path)
    beside(adapter.to(model.dtype), model)
    return replace(taught, weights=(*model.weights, (path, 1.0)), settings=(*model.settings, asdict(adapter.layout)))


def with_instruct(model: LatentDiffusion, adapter: InstructAdapter, path: Path | None = None) -> LatentDiffusion:
    """A model that follows instructions by an adapter, which is on its device.

    Args:
        model: stays as it is.
        adapter: one that was built or read.
        path: of its file, which a refusal names.

    Raises:
        CheckpointError: the adapter was made for another architecture.
        ModelError: the model is shown pictures already, or has no UNet that could be told.
    """
    if model.instructs or model.inpaints:
        raise ModelError(
            f"{model.name} is shown pictures already: put an instruction adapter beside the model of words"
        )
    unet: Any = unet_of(model).unet
    own = {name: value for name, value in asdict(adapter.layout).items() if name not in ("skips", "middle")}
    del own["latents"], own["words"]
    if adapter.layout != (wanted := InstructLayout.of(unet, **own)):
        raise CheckpointError(
            f"{path or 'the adapter'} was made for a UNet of another shape than that of {model.name}: it expects text "
            f"of {adapter.layout.words} channels and skip connections {adapter.layout.skips}; the model has "
            f"{wanted.words} and {wanted.skips}"
        )
    denoiser = replace(model.denoiser, network=_beside(model.denoiser.network, adapter))
    return replace(
        model,
        text=InstructText(model.text),
        denoiser=denoiser,
        parts={**model.parts, INSTRUCT: adapter},
        instructs=True,
    )


def _beside(network: Any, adapter: InstructAdapter) -> Any:
    """The same network with an adapter beside its UNet, below whatever else is around that."""
    if hasattr(network, "network"):
        return replace(network, network=_beside(network.network, adapter))
    return replace(network, instruct=adapter)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
