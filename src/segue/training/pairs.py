"""Large pictures, their latents, and small copies as an upscaler meets them: what its recipe learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from segue.errors import TrainingError
from segue.models.codec import AutoencoderCodec
from segue.training.data import Corpus, step_generator, windows
from segue.training.export import load_codec
from segue.training.journal import watched
from segue.types import Codec

KERNELS = ("bicubic", "area")
SLICE = 16


@dataclass(frozen=True)
class Codecs:
    """What makes latents, and what small pictures went through.

    Args:
        latents: the folder of the codec whose latents the upscaler draws; it is as many times smaller.
        through: that of the model whose pictures it will enlarge; None makes no copies of that kind.
        noise: how far the latents of that one are off; they have unit variance.
    """

    latents: Path
    through: Path | None
    noise: float

    def key(self, corpus: Path, seed: int) -> str:
        """What all pairs follow from."""
        files = [folder / "diffusion_pytorch_model.safetensors" for folder in (self.latents, self.through) if folder]
        said = b"".join(path.read_bytes() for path in (corpus / "sources.json", *files))
        return f"{hashlib.sha256(said).hexdigest()} {self.noise} {seed}"


@dataclass(frozen=True)
class Pairs:
    """Pictures with their latents, of unit variance and in half precision, and their small copies."""

    corpus: Corpus
    latents: Float[Tensor, "n c h w"]
    small: UInt8[Tensor, "n k 3 h w"]

    def __len__(self) -> int:
        return len(self.corpus)

    def take(self, rows: NDArray[np.int64]) -> Pairs:
        return Pairs(self.corpus.take(rows), self.latents[rows], self.small[rows])

    def split(self, every: int) -> tuple[Pairs, Pairs]:
        """(training, validation): every `every`-th picture goes to validation."""
        kept = np.arange(len(self)) % every == every - 1
        return self.take(np.flatnonzero(~kept)), self.take(np.flatnonzero(kept))

    def draw(self, rng: np.random.Generator, side: int) -> tuple[Tensor, Tensor, Tensor, str]:
        """(a window of a picture, of its latents, of a small copy; a caption), of `side` latents; pictures in [0, 1].

        Args:
            rng: decides which.
            side: of the window, in latents.
        """
        row = [int(rng.choice(len(self), p=self.corpus.weights))]
        corner, factor = rng.random((1, 2)), self.corpus.pictures.shape[1] // self.latents.shape[-2]
        large = windows(self.corpus.floats(row), corner, side * factor, factor)
        copy = self.small[row, int(rng.integers(self.small.shape[1]))]
        said = str(rng.choice(self.corpus.captions[row[0]]))
        return large, windows(self.latents[row], corner, side).float(), windows(copy, corner, side).float() / 255, said


def prepared(folder: Path, kept: Path, codecs: Codecs, seed: int, precision: torch.autocast, device: str) -> Pairs:
    """The pairs of a corpus. Latents and copies are kept in the file `kept` while what they are made of is the same.

    Raises:
        TrainingError: there is no corpus or codec, or its pictures do not fit them.
    """
    codec = AutoencoderCodec(load_codec(codecs.latents, device), slice=SLICE)
    through = None if codecs.through is None else AutoencoderCodec(load_codec(codecs.through, device), slice=SLICE)
    corpus, key = Corpus.load(folder), codecs.key(folder, seed)
    height, width = corpus.pictures.shape[1:3]
    multiple = codec.scale * (1 if through is None else through.scale)
    if height % multiple or width % multiple:
        raise TrainingError(
            f"{folder}: pictures must have sides that are multiples of {multiple}; got {width}x{height}"
        )
    if kept.exists():
        with safe_open(kept, "pt") as file:
            if file.metadata()["made_of"] == key:
                return Pairs(corpus, file.get_tensor("latents"), file.get_tensor("small"))
    generator, made = step_generator(seed, 0), list[tuple[Tensor, Tensor]]()
    with torch.no_grad(), precision, watched("preparing", len(corpus)) as tell:
        for rows in np.array_split(np.arange(len(corpus)), -(-len(corpus) // SLICE)):
            pictures = corpus.floats(rows).to(device)
            copies = small_copies(pictures, codec.scale, through, codecs.noise, generator)
            made.append((codec.encode(pictures).half().cpu(), copies.cpu()))
            tell(int(rows[-1]) + 1)
    latents, small = (torch.cat(parts).contiguous() for parts in zip(*made, strict=True))
    part = kept.with_name(kept.name + ".part")
    save_file({"latents": latents, "small": small}, part, {"made_of": key})
    part.replace(kept)
    return Pairs(corpus, latents, small)


def small_copies(
    pictures: Float[Tensor, "b 3 h w"], factor: int, through: Codec | None, noise: float, generator: torch.Generator
) -> UInt8[Tensor, "b k 3 h/f w/f"]:
    """Small copies of pictures in [0, 1]: one for each kernel, and as many more that went through a codec.

    What a model draws is no picture that was made smaller: it is what its codec makes of latents that are a little off.

    Args:
        factor: how many times smaller on each side.
        through: the codec of the model whose pictures will be enlarged, if any.
        noise: how far its latents are off.
        generator: of that noise.
    """
    copies = list(_copies(pictures, factor, through, noise, generator))
    return (torch.stack(copies, 1).clamp(0, 1) * 255 + 0.5).byte()


def _copies(
    pictures: Tensor, factor: int, through: Codec | None, noise: float, generator: torch.Generator
) -> Iterator[Tensor]:
    for kernel in KERNELS:
        small = shrunk(pictures, factor, kernel)
        yield small
        if through is not None:
            latents = through.encode(small)
            off = torch.randn(latents.shape, generator=generator).to(latents) * noise
            yield through.decode(latents + off)


def shrunk(pictures: Float[Tensor, "b 3 h w"], factor: int, kernel: str) -> Float[Tensor, "b 3 h/f w/f"]:
    """Pictures in [0, 1], so many times smaller on each side: by "area", or by "bicubic" with its low-pass filter."""
    size = [length // factor for length in pictures.shape[-2:]]
    if kernel == "area":
        return functional.interpolate(pictures, size, mode="area")
    filtered: Any = functional.interpolate(pictures, size, mode=kernel, antialias=True, align_corners=False)
    return filtered.clamp(0, 1)
