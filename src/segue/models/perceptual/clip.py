"""CLIP: pictures and texts in one space, where a checkpoint of it can be had; and linear heads on its pictures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import interpolate, normalize

from segue.errors import CheckpointError, TaskError
from segue.models.families.sd import read_tokenizer
from segue.models.hub import download_network, place_of_network
from segue.models.weights import read_header, read_json, read_network

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import CLIPModel, CLIPTokenizer

STEM = "model"
SMALL_FILES = (
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "special_tokens_map.json",
)  # fmt: skip
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the colours of the pictures that CLIP learned from, as every published checkpoint has them."""
EXAMPLE = "openai/clip-vit-large-patch14"
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Sight:
    """How a picture is made ready: its shorter side is resized, its middle cut out, its colours standardised.

    Args:
        shorter: pixels that the shorter side is resized to.
        side: pixels of the square in the middle that is looked at; what lies beside it is not.
        mean: of each colour.
        deviation: of each colour.
    """

    shorter: int
    side: int
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION

    @classmethod
    def read(cls, folder: Path, side: int) -> Sight:
        """As a checkpoint's preprocessor_config.json says it; without one, as CLIP's authors have it.

        Raises:
            CheckpointError: what it says is no such thing, or does not fit the network's `side`.
        """
        path = folder / "preprocessor_config.json"
        said = read_json(path) if path.is_file() else {}
        try:
            shorter, crop = (_number(said.get(name, side)) for name in ("size", "crop_size"))
            mean, deviation = (
                tuple(float(value) for value in said.get(name, usual))
                for name, usual in (("image_mean", MEAN), ("image_std", DEVIATION))
            )
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not say how pictures are made ready ({error})") from None
        if crop != side or shorter < side or not len(mean) == len(deviation) == 3 or min(deviation) <= 0:
            raise CheckpointError(
                f"{path} makes pictures of {crop} pixels out of {shorter}, and the network looks at {side}: the files "
                "are of different checkpoints"
            )
        return cls(shorter, side, mean, deviation)

    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 side side"]:
        """Pictures in [0, 1], made ready."""
        height, width = pictures.shape[-2:]
        least = min(height, width)
        size = (self.shorter * height // least, self.shorter * width // least)
        if size != (height, width):
            pictures = interpolate(pictures, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (size[0] - self.side) // 2, (size[1] - self.side) // 2
        middle = pictures[..., top : top + self.side, left : left + self.side]
        mean, deviation = (middle.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.deviation))
        return (middle - mean) / deviation


def _number(said: Any) -> int:
    """224, {"shortest_edge": 224} or {"height": 224, "width": 224}: all three are in use."""
    if isinstance(said, dict):
        values: set[Any] = set(said.values())
        if len(values) != 1:
            raise ValueError(f"expected one number of pixels, got {said}")
        said = values.pop()
    return int(said)


class ClipNetwork:
    """CLIP (Radford et al. 2021, arXiv:2103.00020) of the layout of transformers: features of pictures and of texts.

    Args:
        network: both towers.
        tokenizer: of its texts.
        sight: how pictures are made ready.
        name: of the checkpoint, with a hash of its weights: numbers of different ones are not comparable.
    """

    def __init__(self, network: CLIPModel, tokenizer: CLIPTokenizer, sight: Sight, name: str) -> None:
        self.network, self.tokenizer, self.sight, self.name = network, tokenizer, sight, name

    @classmethod
    def load(cls, source: str | Path, device: str | torch.device = "cpu") -> ClipNetwork:
        """From a local folder, or a repository of the hub.

        Raises:
            ModelNotFoundError: there is neither.
            ModelAccessError: the hub cannot be asked.
            UnsafeFileError: its weights are a pickle.
            CheckpointError: it is no CLIP, or a damaged one.
        """
        from transformers import CLIPModel

        folder = _located(source)
        kind = read_json(folder / "config.json").get("model_type")
        if kind != "clip":
            raise CheckpointError(f'{source} is a "{kind}", and prompts are scored by a "clip", such as {EXAMPLE}')
        network, files = read_network(CLIPModel, folder, STEM, torch.device(device), torch.float32)
        tokenizer = read_tokenizer(folder, network.text_model)
        sight = Sight.read(folder, network.config.vision_config.image_size)
        title = str(source) if folder != Path(str(source)).expanduser() else folder.resolve().name
        return cls(network, tokenizer, sight, f"CLIP {title} ({_digest(files)})")

    @property
    def width(self) -> int:
        """Numbers of a feature vector."""
        return int(self.network.visual_projection.out_features)

    @torch.no_grad()
    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """One vector of length 1 per picture in [0, 1]; only the square in a picture's middle is looked at."""
        ready = self.sight(pictures).to(self.network.device)
        pooled = self.network.vision_model(pixel_values=ready).pooler_output
        return normalize(self.network.visual_projection(pooled), dim=1)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "k d"]:
        """One vector of length 1 per text.

        Raises:
            TaskError: a text is longer than CLIP reads.
        """
        longest = self.network.text_model.config.max_position_embeddings
        tokens = self.tokenizer(list(prompts), padding=True, return_tensors="pt")
        if (length := tokens["input_ids"].shape[1]) > longest:
            raise TaskError(
                f"CLIP reads texts of up to {longest} tokens, and the longest of these has {length}: say it in fewer "
                "words"
            )
        tokens = {name: tokens[name].to(self.network.device) for name in ("input_ids", "attention_mask")}
        return normalize(self.network.text_projection(self.network.text_model(**tokens).pooler_output), dim=1)


@dataclass(frozen=True)
class LinearHead:
    """A score that is linear in CLIP's picture features, as LAION's aesthetic predictors are.

    Args:
        weight: one number per feature.
        bias: added to it.
        name: of the file, with a hash of it.
    """

    weight: Float[Tensor, " d"]
    bias: float
    name: str

    @classmethod
    def load(cls, path: Path, width: int) -> LinearHead:
        """From a safetensors file of one linear layer, or of several with nothing between them, which make one.

        "improved-aesthetic-predictor" is of the second kind: five layers, and between them dropout alone.

        Args:
            path: with `weight` and `bias` of each layer, in the order of the numbers in their names.
            width: numbers of the features that it is for.

        Raises:
            ModelNotFoundError: no such file.
            UnsafeFileError: a pickle.
            CheckpointError: it is damaged, holds something else, or is for features of another width.
        """
        read_header(path)
        tensors = load_file(path)
        weights = sorted((name for name in tensors if name.endswith("weight")), key=_place)
        matrix, bias = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        for name in weights:
            layer, shift = tensors[name].double(), tensors.get(f"{name.removesuffix('weight')}bias")
            if layer.ndim != 2 or layer.shape[1] != len(matrix) or (shift is not None and len(shift) != len(layer)):
                raise CheckpointError(
                    f"{path}: {name} {tuple(layer.shape)} does not take the {len(matrix)} numbers before it; CLIP's "
                    f"features here are {width}, and LAION's heads are for those of {EXAMPLE} (768)"
                )
            matrix, bias = layer @ matrix, layer @ bias + (0 if shift is None else shift.double())
        known = {*weights, *(f"{name.removesuffix('weight')}bias" for name in weights)}
        if not weights or len(matrix) != 1 or set(tensors) - known:
            raise CheckpointError(
                f"{path} is no linear head: expected layers of weight and bias that end in one number; it holds "
                f"{', '.join(sorted(tensors)[:6]) or 'nothing'}"
            )
        return cls(matrix[0].float(), float(bias[0]), f"{path.stem} ({_digest((path,))})")

    def __call__(self, features: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """One score per picture, of features of length 1."""
        return features.cpu() @ self.weight + self.bias


def _place(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))


def _located(source: str | Path) -> Path:
    expected = f"a folder with config.json, {STEM}.safetensors and a tokenizer, or a hub repository such as"
    found = place_of_network(source, f'CLIP at {{}}: expected {expected} "{EXAMPLE}"')
    return found if isinstance(found, Path) else download_network(found, STEM, SMALL_FILES)


def _digest(files: Sequence[Path]) -> str:
    """The first digits of a hash of what files hold."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:8]
