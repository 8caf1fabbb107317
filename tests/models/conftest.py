# pyright: basic
"""Tiny models, written once per test run and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import write_model

from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epsilon-model with an AutoencoderKL and a context of 77 tokens."""
    return write_model(tmp_path_factory.mktemp("models") / "kl")


@pytest.fixture(scope="session")
def short_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v-model with an AutoencoderTiny and a context of 24 tokens, as the embedded models are."""
    return write_model(
        tmp_path_factory.mktemp("models") / "short", prediction="v_prediction", length=24, vae="tiny", seed=1
    )


@pytest.fixture(scope="session")
def model(folder: Path) -> LatentDiffusion:
    return load_model(folder, device="cpu")


@pytest.fixture(scope="session")
def short_model(short_folder: Path) -> LatentDiffusion:
    return load_model(short_folder, device="cpu")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield
