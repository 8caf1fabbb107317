"""What this machine has: what `segue doctor` says."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from segue.errors import SegueError

GIB = 1 << 30
LIBRARIES = (
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "av",
    "pillow",
    "numpy",
    "opencv-python-headless",
)
ENCODERS = {"libx264": ".mp4 .mov .mkv", "libvpx-vp9": ".webm", "gif": ".gif", "libwebp": ".webp", "apng": ".apng"}
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what.
        state: fine; missing, and something will not work; or optional, and missing or not asked for.
        found: what is there.
        advice: what to do, if something is to be done.
    """

    name: str
    state: Literal["fine", "missing", "optional"]
    found: str
    advice: str = ""


def examine(hub: bool = False) -> Iterator[Finding]:
    """Everything that Segue needs or could use, one by one.

    Args:
        hub: also ask the model hub whether it answers.
    """
    yield Finding("segue", "fine", version("segue"))
    supported = sys.version_info >= (3, 11)
    yield Finding(
        "python",
        "fine" if supported else "missing",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if supported else "install Python 3.11 or later",
    )
    yield from torch_findings()
    for name in LIBRARIES:
        yield library(name)
    yield memory()
    yield disk()
    yield from encoders()
    yield embedded_models()
    yield from extras()
    yield asked(HUB) if hub else Finding("model hub", "optional", "not asked", "segue doctor --hub asks it")


def torch_findings() -> Iterator[Finding]:
    """The build of torch, and what it can compute on."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "missing", str(error).splitlines()[0], "pip install torch")
        return
    yield Finding("torch", "fine", torch.__version__)
    cores = os.cpu_count() or 1
    yield Finding("cpu", "fine", f"{torch.get_num_threads()} threads on {cores} cores", "--threads sets the number")
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", "fine", f"{about.name}, {about.total_memory / GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Finding("mps", "fine", "Apple GPU")
    elif not torch.cuda.is_available():
        built = torch.version.cuda
        reason = "no driver or no card found" if built else "this build of torch is for the CPU"
        advice = "the embedded model needs none; for larger models, install a torch build for your card"
        yield Finding("gpu", "optional", f"none ({reason})", advice)


def library(name: str) -> Finding:
    """An installed package that Segue needs."""
    try:
        return Finding(name, "fine", version(name))
    except PackageNotFoundError:
        return Finding(name, "missing", "not installed", f"pip install {name}")


def memory() -> Finding:
    """Main memory, where the system tells."""
    try:
        pages = {name: os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES")}
    except (AttributeError, ValueError, OSError):
        return Finding("memory", "fine", "this system does not tell")
    total, free = (pages["SC_PAGE_SIZE"] * pages[name] / GIB for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    advice = "close other programs, or use a smaller --max-batch" if free < 1 else ""
    return Finding("memory", "fine", f"{total:.1f} GiB, {free:.1f} GiB free", advice)


def disk() -> Finding:
    """Room in the current folder, where results go by default."""
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free / GIB
    writable = os.access(folder, os.W_OK)
    advice = "" if writable and free > 0.5 else "free some space, or write elsewhere with -o"
    what = f"{free:.1f} GiB free in {folder}" + ("" if writable else ", which is not writable")
    return Finding("disk", "missing" if advice else "fine", what, advice)


def encoders() -> Iterator[Finding]:
    """The video encoders that come with PyAV, by the suffixes that they serve."""
    try:
        from av.codec import Codec
        from av.codec.codec import UnknownCodecError
    except (ImportError, OSError) as error:
        yield Finding("video", "missing", str(error).splitlines()[0], "pip install av")
        return
    for name, suffixes in ENCODERS.items():
        try:
            Codec(name, "w")
            yield Finding(f"video {suffixes}", "fine", name)
        except UnknownCodecError:
            yield Finding(f"video {suffixes}", "missing", f"no {name} in PyAV", "pip install --force-reinstall av")


def embedded_models() -> Finding:
    """The models that come with this installation."""
    from segue.zoo.cards import models

    try:
        names = [card.name for card in models()]
    except SegueError as error:
        return Finding("embedded models", "missing", str(error), "reinstall segue")
    if not names:
        return Finding("embedded models", "missing", "none", "give a model to --model: a folder, file or hub id")
    return Finding("embedded models", "fine", ", ".join(names))


def extras() -> Iterator[Finding]:
    """The optional parts of Segue, by the extra that installs them."""
    needed: dict[str, list[str]] = {}
    for line in requires("segue") or ():
        package, _, marker = line.partition(";")
        if "extra ==" in marker:
            extra = marker.split("extra ==")[1].strip().strip("'\"")
            needed.setdefault(extra, []).append(_plain(package))
    for extra, packages in needed.items():
        missing = [name for name in packages if not _installed(name)]
        state = "optional" if missing else "fine"
        found = f"without {', '.join(missing)}" if missing else "installed"
        yield Finding(f"extra [{extra}]", state, found, f'pip install "segue[{extra}]"' if missing else "")


def asked(hub: str) -> Finding:
    """Whether the model hub answers within a few seconds."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(hub, timeout=4) as answer:
            return Finding("model hub", "fine", f"{hub} answers {answer.status}")
    except urllib.error.HTTPError as error:
        return Finding("model hub", "fine", f"{hub} answers {error.code}")
    except OSError as error:
        reason = getattr(error, "reason", error)
        advice = "embedded models, local folders and files work without it"
        return Finding("model hub", "optional", f"{hub} does not answer ({reason})", advice)


def _plain(requirement: str) -> str:
    """The package's name: what stands before a version, an extra or a space."""
    name = requirement.strip()
    for end in "[<>=!~ (":
        name = name.partition(end)[0]
    return name


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return importlib.util.find_spec(name.replace("-", "_")) is not None
    return True
