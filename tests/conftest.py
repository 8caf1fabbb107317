"""What holds for every test: one thread, and no network."""

from __future__ import annotations

import os

# Before torch is imported anywhere. Small tensors on several threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import errno
import socket
from collections.abc import Generator
from typing import Any

import pytest

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
