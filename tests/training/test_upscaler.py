"""The upscaler recipe: what it learns from, that it learns, that it can be cut, and what it leaves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from segue.cli.main import main
from segue.errors import TrainingError
from segue.models.codec import AutoencoderCodec
from segue.models.loading import load_model
from segue.training import losses as training_losses
from segue.training import pairs
from segue.training.data import Corpus, step_generator, step_rng, windows
from segue.training.export import load_codec
from segue.training.journal import Journal
from segue.training.recipes import codec, upscaler
from segue.zoo.cards import WEIGHTS

STEPS = 6
VAE = WEIGHTS / "emoji" / "vae"
FULL = torch.autocast("cpu", torch.bfloat16, enabled=False)


@pytest.fixture(scope="module")
def quarter(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec of factor 4."""
    out = tmp_path_factory.mktemp("quarter")
    blocks: dict[str, Any] = {"encoder_blocks": (0, 1, 1), "decoder_blocks": (1, 1, 1), "width": 8}
    times: dict[str, Any] = {"steps": STEPS, "batch": 4, "warmup": 1, "decay": 2, "save_every": STEPS}
    return codec.main(codec.Config(corpus=corpus, out=out, validation_every=8, crop=16, bf16=False, **blocks, **times))


@pytest.fixture(scope="module")
def config(corpus: Path, quarter: Path, tmp_path_factory: pytest.TempPathFactory) -> upscaler.Config:
    sizes: dict[str, Any] = {"widths": (8, 16), "norm_groups": 4, "heads": 2, "window": 4, "noise_levels": 10}
    shown: dict[str, Any] = {"sheet_pictures": 2, "sheet_steps": (1, 2), "sheet_every": STEPS, "validation_every": 8}
    times: dict[str, Any] = {"steps": STEPS, "batch": 4, "warmup": 1, "decay": 2, "log_every": 1, "save_every": 2}
    return upscaler.Config(
        corpus=corpus,
        codec=quarter,
        out=tmp_path_factory.mktemp("upscaler"),
        pixels=0.5,
        pixels_start=0.4,
        decoder=True,
        bf16=False,
        **sizes,
        **shown,
        **times,
    )


@pytest.fixture(scope="module")
def model(config: upscaler.Config) -> Path:
    return upscaler.main(config)


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


class CutError(Exception):
    """Stands for the kill that comes at the worst moment."""


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(
    config: upscaler.Config, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, plain = dataclasses.replace(config, out=tmp_path), Journal.step

    def until(self: Journal, now: int, **values: float) -> None:
        plain(self, now, **values)
        if now == 5:  # one step after the last checkpoint
            raise CutError

    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(Journal, "step", until)
        upscaler.main(cut)
    upscaler.main(cut)
    expected, found = (load_file(one.out / "checkpoint.safetensors") for one in (config, cut))
    assert expected.keys() == found.keys()
    assert [key for key in expected if not expected[key].equal(found[key])] == []
    assert logged(config.out) == logged(tmp_path)


def test_it_learns_of_latents_and_then_of_pictures(config: upscaler.Config, model: Path, tmp_path: Path) -> None:
    pixels = [line["pixels"] for line in logged(config.out) if "pixels" in line]
    assert pixels[:3] == [0, 0, 0] and min(pixels[3:]) > 0, "from .4 of six steps on"
    longer = dataclasses.replace(config, out=tmp_path, steps=60, lr=5e-3, pixels=0.0, log_every=15, save_every=60)
    upscaler.main(dataclasses.replace(longer, sheet_every=60))
    curve = [line["v"] for line in logged(tmp_path) if "v" in line]
    assert curve[-1] < 0.8 * curve[0]
    assert {"psnr_bicubic", "psnr_codec", "psnr_steps_1", "psnr_steps_2"} <= logged(tmp_path)[-1].keys()


def test_what_it_leaves_is_read_like_any_upscaler(model: Path) -> None:
    loaded = load_model(model, device="cpu")
    assert loaded.upscaling is not None
    assert (loaded.upscaling.factor, loaded.upscaling.max_noise_level) == (4, 9)
    assert loaded.denoiser.prediction == "v_prediction"
    stored = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}


def test_a_run_may_begin_with_an_exported_upscaler(config: upscaler.Config, model: Path, tmp_path: Path) -> None:
    unet = upscaler.build(config, 4, 256)
    upscaler.begin_from(unet, model)
    stored = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(value.half().equal(stored[name]) for name, value in unet.state_dict().items())
    with pytest.raises(TrainingError, match="no upscaler that this run can begin with"):
        upscaler.begin_from(upscaler.build(dataclasses.replace(config, widths=(8, 8)), 4, 256), model)
    with pytest.raises(TrainingError, match="no upscaler that this run can begin with"):
        upscaler.begin_from(unet, tmp_path)


def test_windows_of_a_step_show_the_same_place(corpus: Path, quarter: Path, tmp_path: Path) -> None:
    """The small window, enlarged, is its large one but for detail, and far from that of another draw."""
    codecs = pairs.Codecs(quarter, None, 0.0)
    found = pairs.prepared(corpus, tmp_path / "kept", codecs, 0, FULL, "cpu")
    draws = [found.draw(step_rng(5, step), 4) for step in range(20)]
    coarse = [pairs.shrunk(large, 4, "area")[0] for large, *_ in draws]
    near = [float((small[0] - large).abs().mean()) for large, (_, _, small, _) in zip(coarse, draws, strict=True)]
    apart = [float((small[0] - large).abs().mean()) for large, (_, _, small, _) in zip(coarse[1:], draws, strict=False)]
    assert max(near) < 0.1 < float(np.mean(apart))
    whole = AutoencoderCodec(load_codec(quarter)).encode(found.corpus.floats([3]))
    torch.testing.assert_close(found.latents[3].float(), whole[0].detach(), atol=2e-3, rtol=2e-3)
    places = {said for *_, said in draws}
    assert places <= {caption for captions in found.corpus.captions for caption in captions}


def test_small_copies_are_plain_and_through_a_codec(corpus: Path) -> None:
    pictures = Corpus.load(corpus).floats([0, 1])
    through = AutoencoderCodec(load_codec(VAE))
    with torch.no_grad():
        copies = pairs.small_copies(pictures, 4, through, 0.05, step_generator(0, 0)).float() / 255
        again = pairs.small_copies(pictures, 4, through, 0.05, step_generator(0, 0)).float() / 255
    assert copies.shape == (2, 2 * len(pairs.KERNELS), 3, 8, 8) and copies.equal(again)
    for place, kernel in enumerate(pairs.KERNELS):
        plain = pairs.shrunk(pictures, 4, kernel)
        assert float((copies[:, 2 * place] - plain).abs().max()) <= 0.5 / 255 + 1e-6
        assert float((copies[:, 2 * place + 1] - plain).abs().mean()) > 0.005, "a codec loses something"


def test_pairs_are_made_anew_when_what_made_them_changes(corpus: Path, quarter: Path, tmp_path: Path) -> None:
    kept, codecs = tmp_path / "kept", pairs.Codecs(quarter, VAE, 0.05)
    first = pairs.prepared(corpus, kept, codecs, 0, FULL, "cpu")
    written = kept.stat().st_mtime_ns
    assert pairs.prepared(corpus, kept, codecs, 0, FULL, "cpu").small.equal(first.small)
    assert kept.stat().st_mtime_ns == written
    other = pairs.prepared(corpus, kept, dataclasses.replace(codecs, noise=0.5), 0, FULL, "cpu")
    assert kept.stat().st_mtime_ns > written and not other.small.equal(first.small)


def test_windows_lie_on_the_grid_and_inside() -> None:
    pictures = torch.arange(2 * 12 * 20).reshape(2, 1, 12, 20).float()
    corners = np.array([[0.0, 0.999999], [1.0, 0.5]])
    cut = windows(pictures, corners, 4, 4)
    assert cut[0].equal(pictures[0, :, 0:4, 16:20]) and cut[1].equal(pictures[1, :, 8:12, 8:12])
    assert windows(pictures, corners, 12)[1].equal(pictures[1, :, :, 4:16])


def test_the_noise_of_small_pictures_is_that_of_the_schedule(config: upscaler.Config) -> None:
    from diffusers import DDPMScheduler

    stock: Any = DDPMScheduler.from_config(upscaler.LOW_RES)
    small, eps = torch.rand(3, 3, 4, 4), torch.randn(3, 3, 4, 4)
    label = torch.tensor([0, 40, 99])
    torch.testing.assert_close(upscaler.noised(small, label, eps), stock.add_noise(small * 2 - 1, eps, label))


def test_an_estimate_that_is_right_decodes_to_the_codecs_own_error(corpus: Path, quarter: Path) -> None:
    """And its gradient reaches the latents, not the codec."""
    own = AutoencoderCodec(load_codec(quarter))
    own.vae.requires_grad_(False)
    pictures = Corpus.load(corpus).floats([0, 5])
    latents = own.encode(pictures).requires_grad_(True)
    loss = training_losses.DecodedError(own, None, 0.0, FULL)(latents, pictures)
    vae: Any = own.vae
    decoded = vae.decode(latents.detach() / vae.config["scaling_factor"]).sample / 2 + 0.5
    assert float(loss.detach()) == pytest.approx(float(training_losses.reconstruction(decoded, pictures)), rel=1e-5)
    loss.backward()
    assert latents.grad is not None and float(latents.grad.abs().sum()) > 0
    worse = training_losses.DecodedError(own, None, 0.0, FULL)(latents + 1, pictures)
    assert float(worse.detach()) > float(loss.detach())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("window=64", "window must be at most 8"),
        ("widths=[10,16]", "multiples of norm_groups"),
        ("heads=3", "the last of heads"),
        ("noise_levels=1", "noise_levels: "),
        ("codec=/nowhere", "no codec in /nowhere"),
        ("through=emojy", 'no embedded model "emojy"'),
        ("perceptual=lpisp", "lpips-vgg"),
        ("start=/nowhere", "start=/nowhere is no upscaler"),
        ('more=["/nowhere"]', "no corpus in /nowhere"),
    ],
)
def test_a_mistake_is_a_line(
    override: str, said: str, corpus: Path, quarter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("widths=[8,16]", "norm_groups=4", "heads=2", "window=4", "through=", "more=[]", "steps=1", "batch=2")
    given = [f"corpus={corpus}", f"codec={quarter}", f"out={tmp_path / 'run'}", *sizes]
    assert main(["train", "upscaler", *given, override]) not in (0, 70)
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error, error


def test_it_gives_the_same_in_any_window(model: Path) -> None:
    """No layer sees all of a picture but through group norms' means, so that large pictures work as small ones do."""
    unet: Any = UNet2DConditionModel.from_pretrained(model / "unet")
    attended = [name for name, _ in unet.named_modules() if name.endswith("attn1")]
    assert attended and all("down_blocks.1" in name for name in attended)
    assert all(module.to_k.in_features == 256 for name, module in unet.named_modules() if name.endswith("attn1"))
