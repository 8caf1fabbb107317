# pyright: basic
"""Stable Video Diffusion through our loop equals diffusers' own pipeline on the same folder."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    StableVideoDiffusionPipeline,
    _resize_with_antialiasing,
)
from PIL import Image
from safetensors.torch import save_file
from tiny_svd import write_svd

from segue.diffusion.frame_guidance import linear, scales_over_frames, triangle
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.errors import CheckpointError, TaskError
from segue.models.families import svd
from segue.models.hub import needed_files
from segue.models.image_embedding import Squeeze
from segue.models.loading import load_model
from segue.models.perceptual.clip import DEVIATION, MEAN
from segue.models.skeleton import skeleton
from segue.models.temporal_codec import TemporalCodec
from segue.models.weights import quiet
from segue.temporal.both_ends import BothEnds
from segue.types import RowId, State

SIDE, FRAMES = 48, 5
# Their scheduler makes numpy arrays of tensors in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Standardised:
    """What the pipeline asks of a feature extractor: colours standardised, and nothing else.

    The one of transformers needs libraries that are not here, or resizes by itself.
    """

    def __call__(self, images: torch.Tensor, **told: Any) -> Any:
        assert (told["do_normalize"], told["do_resize"], told["do_center_crop"]) == (True, False, False)
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        return type("Features", (), {"pixel_values": (images - mean) / deviation})


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_svd(tmp_path_factory.mktemp("models") / "svd")


@pytest.fixture(scope="session")
def model(folder):
    return load_model(folder, device="cpu")


def picture(side: int = SIDE, seed: int = 5) -> torch.Tensor:
    """Of whole bytes, as PIL holds it."""
    return (255 * torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))).round() / 255


def as_pil(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((255 * pixels).round().to(torch.uint8).permute(1, 2, 0).numpy())


def theirs(folder, steps: int, seed: int, **told: Any) -> torch.Tensor:
    """Frames in [0, 1], or latents."""
    with quiet():
        pipeline: Any = StableVideoDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.feature_extractor = Standardised()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        as_pil(picture()),
        height=SIDE,
        width=SIDE,
        num_frames=FRAMES,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        **told,
    ).frames[0]


def ours(model, steps: int, seed: int, least=1.0, most=3.0, **told: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, SIDE, SIDE, generator=generator)[0]
    start = torch.randn(1, FRAMES, 4, SIDE // 2, SIDE // 2, generator=generator)[0]
    cond = svd.shown(model, picture(), FRAMES, noise=noise, **told)
    guided = classifier_free(cond, svd.blank(cond), linear(FRAMES, least, most))
    schedule = model.schedule(steps, (SIDE, SIDE))
    rows = tuple(RowId("clip", frame) for frame in range(FRAMES))
    state = State(start * schedule.start_scale, torch.zeros(FRAMES, dtype=torch.int64), rows)
    return collect(denoise(model.over(FRAMES).denoiser, state, schedule, guided), schedule)


@pytest.fixture(autouse=True)
def their_size(monkeypatch):
    """The pipeline brings pictures to 224 pixels a side, whatever its encoder; the tiny one looks at 32."""
    module = "diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion._resize_with_antialiasing"
    monkeypatch.setattr(module, lambda image, size: _resize_with_antialiasing(image, (32, 32)))


def test_latents_of_a_clip_equal_diffusers(folder, model):
    expected = theirs(folder, 6, 11, output_type="latent")
    got = ours(model, 6, 11)
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= 1e-4


def test_told_numbers_equal_diffusers(folder, model):
    told = {"fps": 12, "noise_aug_strength": 0.3, "motion_bucket_id": 200}
    expected = theirs(folder, 4, 2, output_type="latent", min_guidance_scale=1.5, max_guidance_scale=2.0, **told)
    got = ours(model, 4, 2, 1.5, 2.0, fps=12, augmentation=0.3, bucket=200)
    assert (got - expected).abs().max() <= 1e-4
    assert (ours(model, 4, 2, 1.5, 2.0, fps=12, augmentation=0.3, bucket=20) - expected).abs().max() > 1e-4


def test_frames_equal_diffusers(folder, model):
    expected = theirs(folder, 4, 3, output_type="pt")
    got = model.codec.decode(ours(model, 4, 3))
    assert expected.std() > 0.01
    assert (got - expected).abs().max() <= 1 / 255


@pytest.mark.parametrize("size", [(48, 48), (300, 170), (33, 500), (20, 25)])
def test_a_picture_is_squeezed_as_in_diffusers(size):
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = _resize_with_antialiasing(2 * pictures - 1, (32, 32))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    got = Squeeze(32)(pictures) * deviation + mean
    assert (2 * got - 1 - expected).abs().max() < 1e-5


def test_a_single_frame_is_made_too(model):
    told = svd.shown(model, picture(), 1, noise=torch.zeros(3, SIDE, SIDE))
    schedule = model.schedule(2, (SIDE, SIDE))
    state = State(torch.randn(1, 4, 24, 24), torch.zeros(1, dtype=torch.int64), (RowId("clip"),))
    assert collect(denoise(model.denoiser, state, schedule, told), schedule).isfinite().all()


def guided(model, scales: torch.Tensor, first: torch.Tensor):
    noise = torch.zeros(3, SIDE, SIDE)
    return svd.guided(model, first, len(scales), noise=noise, scales=scales)


def drawn(model, cond, denoiser=None, frames=9, steps=4) -> torch.Tensor:
    """A clip whose frames begin in one noise, so that only what they are told sets them apart."""
    schedule = model.schedule(steps, (SIDE, SIDE))
    noise = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(6)).expand(frames, -1, -1, -1)
    state = State(noise, torch.zeros(frames, dtype=torch.int64), tuple(RowId("clip", n) for n in range(frames)))
    return collect(denoise(denoiser or model.over(frames).denoiser, state, schedule, cond), schedule)


def loop_ratio(clip: torch.Tensor) -> float:
    """How much larger the step from the last frame to the first is than the others."""
    steps = (clip - clip.roll(-1, 0)).flatten(1).norm(dim=1)
    return float(steps[-1] / steps[:-1].mean())


def test_triangular_guidance_and_the_same_picture_at_both_ends_close_loops(model):
    frames, first = 9, picture()
    ratios = {}
    for shape in ("linear", "triangle"):
        cond = guided(model, scales_over_frames(shape, frames, 1.0, 6.0), first)
        ratios[shape] = loop_ratio(drawn(model, cond))
    cond = guided(model, triangle(frames, 1.0, 6.0), first)
    both = BothEnds(model.over(frames).denoiser, cond, frames)
    ratios["both ends"] = loop_ratio(drawn(model, cond, both))
    assert ratios["triangle"] < 0.75 * ratios["linear"]
    assert ratios["both ends"] < 0.5 * ratios["triangle"]


def test_both_ends_can_be_swapped(model):
    frames = 5
    first, last = (guided(model, triangle(frames, 1.0, 3.0), picture(seed=seed)) for seed in (1, 2))
    plain = model.over(frames).denoiser
    there = drawn(model, first, BothEnds(plain, last, frames), frames)
    back = drawn(model, last, BothEnds(plain, first, frames), frames)
    assert (there - back.flip(0)).abs().max() < 1e-4
    assert (there[0] - there[-1]).abs().mean() > 1e-3
    alone = drawn(model, first, frames=frames, steps=1)
    assert (drawn(model, first, BothEnds(plain, last, frames), frames, 1)[0] - alone[0]).abs().max() < 1e-5


def test_what_it_is_not_told_well_is_refused(model):
    none = torch.zeros(3, SIDE, SIDE)
    wrongs: list[tuple[Any, str]] = [
        ({"fps": 0.5}, "fps must be"),
        ({"bucket": 300}, "bucket"),
        ({"augmentation": -1.0}, "noise"),
    ]
    for wrong, match in wrongs:
        with pytest.raises(TaskError, match=match):
            svd.shown(model, picture(), 2, noise=none, **wrong)
    with pytest.raises(TaskError, match="multiples of 2"):
        svd.shown(model, picture()[:, :47], 2, noise=none[:, :47])
    with pytest.raises(TaskError, match="takes no words"):
        model.text(["a cat"])
    with pytest.raises(TaskError, match="motion must be"):
        svd.bucket_of(3)
    assert (svd.bucket_of(0), svd.bucket_of(1), svd.bucket_of(2)) == (0, 127, 254)
    told = svd.shown(model, picture(), 2, noise=none)
    now, _ = model.schedule(2, (SIDE, SIDE)).step(torch.zeros(2, dtype=torch.int64))
    x, denoiser = torch.zeros(2, 4, 24, 24), model.over(2).denoiser
    with pytest.raises(TaskError, match="was shown none"):
        denoiser(x, now, replace(told, concat=None))
    with pytest.raises(ValueError, match="the same text"):
        denoiser(x, now, replace(told, text=torch.stack([told.text[0], told.text[1] + 1])))
    with pytest.raises(ValueError, match="also has pooled"):
        denoiser(x, now, replace(told, pooled=torch.zeros(2, 1)))


def test_a_model_that_fills_in_between_frames_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="takes 9 channels"):
        load_model(write_svd(tmp_path / "nine", in_channels=9), device="cpu")


def test_what_it_says_about_itself(model):
    assert (model.family, model.moving.words, model.moving.given) == ("svd", False, ("first", "last"))
    assert (model.moving.frames, model.defaults.size, model.defaults.solver) == (4, (16, 16), "euler")
    assert isinstance(model.codec, TemporalCodec)


def test_what_it_takes_is_told_without_its_weights(folder):
    without = skeleton(folder, torch.float32)
    assert without.call(4, (16, 16)).all_flops > without.call(2, (16, 16)).all_flops > 0
    assert without.decoding(4, (16, 16), None).peak > 0
    assert isinstance(without.codec, TemporalCodec)


def test_what_is_downloaded_is_all_that_is_read(folder):
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    index = json.loads((folder / "model_index.json").read_text())
    wanted = needed_files("svd", {*there, "svd.safetensors", "image_encoder/model.fp16.safetensors"}, index)
    assert wanted == there


def test_a_single_file_is_refused_by_name_and_not_taken_for_an_instruction_model(tmp_path):
    """Its first layer is as wide as that of a model that is shown a picture."""
    unet = "model.diffusion_model"
    tensors = {
        f"{unet}.input_blocks.0.0.weight": torch.zeros(320, 8, 3, 3),
        f"{unet}.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, 1024),
        f"{unet}.input_blocks.1.1.time_stack.0.attn2.to_k.weight": torch.zeros(320, 1024),
    }
    save_file(tensors, tmp_path / "svd_xt.safetensors")
    with pytest.raises(CheckpointError, match="is Stable Video Diffusion in one file"):
        load_model(tmp_path / "svd_xt.safetensors", device="cpu")
