"""What holds for every test: one thread, and no network; and what tests of several rooms lay out."""

from __future__ import annotations

import os

# Before torch is imported anywhere. Small tensors on several threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import errno
import hashlib
import io
import pickle
import shutil
import socket
import tarfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dots import CARD

LOCAL = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True, scope="session")
def offline() -> Generator[None]:
    """Whoever asks for another machine hears that there is no network, here as on a machine that has none."""
    with pytest.MonkeyPatch.context() as patch:
        connect, resolve = socket.socket.connect, socket.getaddrinfo

        def refuse_to_connect(this: socket.socket, address: Any) -> None:
            if this.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOCAL):
                raise OSError(errno.ENETUNREACH, "tests have no network")
            connect(this, address)

        def refuse_to_resolve(host: Any, *rest: Any, **named: Any) -> Any:
            if host is not None and not str(host).startswith(LOCAL):
                raise socket.gaierror(socket.EAI_AGAIN, "tests have no network")
            return resolve(host, *rest, **named)

        patch.setattr(socket.socket, "connect", refuse_to_connect)
        patch.setattr(socket, "getaddrinfo", refuse_to_resolve)
        yield


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random v-model of 64 pixels, to be copied."""
    from models.tiny import write_model

    return write_model(tmp_path_factory.mktemp("zoo") / "dots", prediction="v_prediction", length=24, vae="tiny")


@pytest.fixture
def embedded(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of "dots", the one model that comes with the installation."""
    from segue.zoo import cards
    from segue.zoo.load import VARIABLE

    monkeypatch.setattr(cards, "WEIGHTS", tmp_path / "weights")
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = Path(shutil.copytree(written, tmp_path / "weights" / "dots"))
    (folder / "card.toml").write_text(CARD, "utf-8")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no wish to stay offline."""
    from segue.models.perceptual.weights import OFFLINE_VARIABLES

    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path / "cache"))
    for variable in OFFLINE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def pin(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write an archive of one pickle, which is pinned in place of the published ones as the weights of networks."""
    from segue.models.perceptual import archives

    def write(tree: Mapping[str, Any], inside: str, *names: str) -> Path:
        data, path = pickle.dumps(tree), tmp_path / "small-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as file:
            info = tarfile.TarInfo(inside)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        member = archives.Member(inside, hashlib.sha256(data).hexdigest(), "flax lpips")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        pinned = archives.Archive(path.name, digest, "0" * 64, "MIT", 3, dict.fromkeys(names, member))
        monkeypatch.setattr(archives, "ARCHIVES", (pinned,))
        return path

    return write


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], list[str]]:
    """Let the index answer with these bytes; the addresses that it is asked for."""
    from segue.models.perceptual import weights

    def answer(body: bytes) -> list[str]:
        asked: list[str] = []

        class Sent(io.BytesIO):
            def __init__(self) -> None:
                super().__init__(body)
                self.headers = {"Content-Length": str(len(body))}

        def urlopen(request: weights.Request, timeout: float) -> Sent:
            asked.append(request.full_url)
            return Sent()

        monkeypatch.setattr(weights, "urlopen", urlopen)
        return asked

    return answer
