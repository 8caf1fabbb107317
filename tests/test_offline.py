"""The tests' own promise: no test can reach another machine."""

from __future__ import annotations

import socket

import pytest


def test_names_are_not_resolved() -> None:
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_addresses_are_not_reached() -> None:
    with socket.socket() as here, pytest.raises(OSError, match="no network"):
        here.connect(("192.0.2.1", 80))
