"""A corpus may have larger pictures; what is trained on it has their size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segue.models.loading import load_model
from segue.training.corpus import build
from segue.training.data import Corpus
from segue.training.recipes import codec, t2i

from .conftest import SMALL, Sources

ONE = '[concepts]\n"🍎" = { noun = "apple", colour = "red", recolour = false }\n'


def test_recipes_take_their_size_from_a_corpus_of_256_pixels(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "concepts.toml").write_text(ONE, "utf-8")
    folder = tmp_path / "corpus"
    count = build(folder, sources.folder, replace(SMALL, size=256), tmp_path / "concepts.toml", sources.packages)
    corpus = Corpus.load(folder)
    assert corpus.pictures.shape == (count, 256, 256, 3)
    placed = corpus.pictures[0].numpy().astype(int)  # plain, in the middle, nine tenths of the side
    rows = np.flatnonzero((placed.min(-1) < 128).any(1))
    assert abs(rows[-1] - rows[0] + 1 - 0.9 * 256 * 52 / 64) < 8, "drawn at this size, not in the corner of it"
    small: dict[str, Any] = {"steps": 1, "batch": 2, "warmup": 1, "decay": 1, "log_every": 1, "save_every": 1}
    blocks: dict[str, Any] = {
        "width": 8,
        "validation_every": 8,
        "encoder_blocks": (0, 0, 0, 1),
        "decoder_blocks": (1, 0, 0, 0),
    }
    vae = codec.main(codec.Config(corpus=folder, out=tmp_path / "codec", **blocks, **small))
    sizes: dict[str, Any] = {"widths": (32, 32), "text_width": 32, "text_layers": 1, "vocabulary": 560}
    shown: dict[str, Any] = {"sheet_prompts": ("an apple",), "sheet_every": 1, "sheet_steps": 1}
    model = t2i.main(t2i.Config(corpus=folder, codec=vae, out=tmp_path / "t2i", **sizes, **shown, **small))
    assert load_model(model, device="cpu", dtype="float32").defaults.size == (256, 256)
