"""The recipe of small decoders: it comes nearer to the decoder that it imitates, and can be cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file

from segue.errors import TrainingError
from segue.models.codec import AutoencoderCodec
from segue.models.preview import read_preview
from segue.training.data import Corpus, step_generator
from segue.training.export import load_codec
from segue.training.recipes import codec, preview

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec of the KL kind, whose latents are scaled."""
    times: dict[str, Any] = {"steps": 6, "warmup": 1, "decay": 2, "log_every": 1, "save_every": 2}
    out = tmp_path_factory.mktemp("codec")
    return codec.main(
        codec.Config(corpus=corpus, out=out, kind="kl", width=8, batch=4, validation_every=8, bf16=False, **times)
    )


def config_of(corpus: Path, vae: Path, out: Path, **changes: Any) -> preview.Config:
    times: dict[str, Any] = {"steps": 6, "warmup": 1, "decay": 2, "log_every": 1, "save_every": 2, "sheet_every": 6}
    size: dict[str, Any] = {"width": 8, "blocks": (1, 1, 0, 0), "batch": 4, "validation_every": 8, "bf16": False}
    return preview.Config(corpus=corpus, codec=vae, out=out, **{**times, **size, **changes})


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]


def test_it_comes_nearer_to_the_decoder_that_it_imitates(corpus: Path, vae: Path, tmp_path: Path) -> None:
    folder = preview.main(config_of(corpus, vae, tmp_path, steps=60, ema=0.8, lr=5e-3, sheet_every=10, decay=20))
    kept_back = [line["to_own"] for line in logged(tmp_path) if "to_own" in line]
    assert kept_back[-1] > kept_back[0] + 1.5
    assert (tmp_path / "sheet.png").is_file()
    quick, _ = read_preview(folder, CPU, torch.float32)
    own = AutoencoderCodec(load_codec(vae))
    pictures = Corpus.load(corpus).floats([0, 1, 2, 3])
    with torch.no_grad():
        latents = own.encode(pictures)
        error = (quick.decode(latents) - own.decode(latents)).square().mean()
    assert float(-10 * error.log10()) > kept_back[0], "what is exported is what was judged, and in the same range"
    stock: Any = AutoencoderTiny.from_pretrained(folder)
    made = (stock.float().decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(quick.decode(latents), made, atol=1e-5, rtol=0)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    corpus: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (config_of(corpus, vae, tmp_path / name) for name in ("whole", "cut"))
    expected = preview.main(whole)
    plain = preview.draw

    def until(training: Corpus, own: AutoencoderCodec, config: preview.Config, step: int, share: slice) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return plain(training, own, config, step, share)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preview, "draw", until)
        preview.main(cut)
    found = preview.main(cut)
    one, other = (load_file(folder / "diffusion_pytorch_model.safetensors") for folder in (expected, found))
    assert one.keys() == other.keys()
    assert [name for name in one if not one[name].equal(other[name])] == []
    assert all(name.startswith("decoder.") and value.dtype == torch.float16 for name, value in one.items())


def test_latents_lie_between_those_of_pictures_and_keep_their_variance(corpus: Path, vae: Path, tmp_path: Path) -> None:
    latents = torch.randn(4000, 4, 2, 2, generator=step_generator(0, 0))
    moved = preview.between(latents, np.random.default_rng(0), 0.5)
    changed = (moved != latents).flatten(1).any(1).float().mean()
    assert float(changed) == pytest.approx(0.5, abs=0.05)
    assert float(moved.std()) == pytest.approx(1, abs=0.02)
    assert preview.between(latents, np.random.default_rng(0), 0.0).equal(latents)
    config = config_of(corpus, vae, tmp_path)
    own = AutoencoderCodec(load_codec(vae))
    with torch.no_grad():
        seen = [preview.draw(Corpus.load(corpus), own, config, step, slice(None)) for step in (3, 3, 4)]
        assert seen[0][0].equal(seen[1][0]) and not seen[0][0].equal(seen[2][0])
        assert seen[0][1].equal(own.decode(seen[0][0])), "the aim is what the codec makes of the same latents"
        share = preview.draw(Corpus.load(corpus), own, config, 3, slice(2, 4))
    assert share[0].equal(seen[0][0][2:]), "ranks share a batch"


def test_sizes_that_do_not_fit_are_named(corpus: Path, vae: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"of which the codec in .* has 4; got 3, which make 4x4 pixels"):
        preview.main(config_of(corpus, vae, tmp_path, blocks=(1, 1, 0)))
    with pytest.raises(TrainingError, match="validation_every must be at most"):
        preview.main(config_of(corpus, vae, tmp_path, validation_every=10**6))
