# pyright: basic
"""Forecasts: what is counted without numbers is what a run with numbers takes, and what is advised helps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from ldm_layout import to_ldm
from tiny_flow import write_flux, write_sd3
from tiny_upscaler import write_upscaler
from tiny_xl import write_xl
from torch.utils.flop_counter import FlopCounterMode

from segue.errors import CheckpointError, ModelError, ModelNotFoundError
from segue.models.capacity import SPARED, Memory, Speed, measured_speed, memory_of
from segue.models.codec import AutoencoderCodec
from segue.models.decoding import SHARE, bytes_per_latent, tiled
from segue.models.forecast import Render, changes, forecast
from segue.models.loading import load_model
from segue.models.placement import Placement, placed
from segue.models.rehearsal import Kind, rehearsed, weights_of
from segue.models.skeleton import skeleton

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = (64, 64)


@pytest.fixture(scope="module")
def bones(folder):
    return skeleton(folder, torch.float32)


def test_live_bytes_are_counted_and_views_and_weights_are_not() -> None:
    weight = torch.empty(1000, 250, device="meta")

    def run() -> torch.Tensor:
        x = torch.empty(10, 1000, device="meta")  # 40,000 bytes
        y = x @ weight  # 10,000
        del x
        z = y.view(250, 10).t() + 1  # 10,000
        return z.add_(1)

    work = rehearsed(run, [weight])
    assert work.peak == 50_000
    assert work.flops == {"product": 2 * 10 * 1000 * 250}
    assert work.operations == 4


def test_convolutions_of_a_cpu_work_on_copies() -> None:
    kernel = torch.empty(8, 4, 3, 3, device="meta")

    def run() -> torch.Tensor:
        return torch.nn.functional.conv2d(torch.empty(1, 4, 10, 10, device="meta"), kernel, padding=1)

    work = rehearsed(run, [kernel])
    tensors = 4 * (4 * 100 + 8 * 100)
    assert work.peak == tensors
    assert work.reordered == 2 * tensors + kernel.nbytes


def test_operations_are_those_that_torch_counts(bones) -> None:
    unet: Any = bones.parts["unet"]

    def run() -> Any:
        return unet(
            torch.empty(2, 4, 8, 8, device="meta"),
            torch.empty(2, device="meta"),
            encoder_hidden_states=torch.empty(2, 77, unet.config.cross_attention_dim, device="meta"),
        )

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    assert bones.call(2, SIZE).all_flops == counter.get_total_flops() > 0


def test_a_call_without_numbers_takes_what_one_with_numbers_takes(bones, model) -> None:
    unet: Any = model.parts["unet"]

    def run() -> Any:
        text = torch.randn(3, 77, unet.config.cross_attention_dim)
        return unet(torch.randn(3, 4, 8, 8), torch.ones(3), encoder_hidden_states=text)

    real = rehearsed(run, weights_of(unet))
    assert bones.call(3, SIZE).peak == real.peak > 0
    latents = torch.randn(2, 4, 8, 8)
    real = rehearsed(lambda: model.codec.decode(latents), weights_of(model.parts["vae"]))
    assert bones.decoding(2, SIZE, None).peak == real.peak


@pytest.mark.parametrize("storage", [None, "float8"])
def test_weights_are_forecast_to_the_byte(folder, bones, storage) -> None:
    found = forecast(bones, Render(SIZE, 4, CPU, placement=Placement(storage=storage)))
    model = placed(load_model(folder, device="cpu"), Placement(storage=storage), CPU)
    for part in found.parts:
        network = model.parts[part.name]
        assert part.bytes == sum(tensor.nbytes for tensor in weights_of(network))
        assert part.parameters == sum(tensor.numel() for tensor in network.parameters())


def test_int8_is_forecast_to_the_byte(folder, bones) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: it is the extra [int8]")
    found = forecast(bones, Render(SIZE, 4, CPU, placement=Placement(storage="int8")))
    model = placed(load_model(folder, device="cpu"), Placement(storage="int8"), CPU)

    def stored(tensor: Any) -> int:
        inner = getattr(tensor, "qdata", None)
        return tensor.nbytes if inner is None else inner.nbytes + tensor.scale.nbytes

    for part in found.parts:
        assert part.bytes == sum(stored(tensor) for tensor in weights_of(model.parts[part.name]))


@pytest.mark.parametrize(
    ("write", "dtype"),
    [
        (write_xl, torch.float32),
        (write_sd3, torch.bfloat16),
        (write_flux, torch.bfloat16),
        (write_upscaler, torch.float32),
    ],
)
def test_every_family_is_forecast_by_its_networks(write, dtype, tmp_path) -> None:
    found = skeleton(write(tmp_path / "model"), dtype)
    one, four = (forecast(found, Render(SIZE, 4, CUDA, max_batch=rows, pictures=9)) for rows in (1, 4))
    assert {part.name for part in one.parts} == set(found.parts)
    assert one.flops == pytest.approx(four.flops, rel=0.01)
    denoising = [next(phase for phase in each.phases if phase.name == "denoising") for each in (one, four)]
    assert denoising[0].tensors < denoising[1].tensors
    assert ("text_encoder_2" in found.waiting) == (write is write_flux)


def test_single_files_are_forecast_by_their_header(folder, tmp_path, bones) -> None:
    file = to_ldm(folder, tmp_path / "one.safetensors")
    found = skeleton(file, torch.float32, config=folder)
    assert found.call(2, SIZE) == bones.call(2, SIZE)


def test_what_cannot_be_forecast_is_refused(folder, tmp_path, bones) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no model at"):
        skeleton(tmp_path / "nothing", torch.float32)
    odd = replace(bones, parts={**bones.parts, "unet": torch.nn.Linear(2, 2)})
    with pytest.raises(CheckpointError, match="denoises with Linear; known are UNet2DConditionModel"):
        odd.call(1, SIZE)


def test_networks_that_leave_make_room_for_those_that_stay(bones) -> None:
    peaks = [
        forecast(bones, Render(SIZE, 4, CUDA, placement=Placement(offload=offload))).peak
        for offload in (None, "model", "sequential")
    ]
    assert peaks[0] > peaks[1] > peaks[2] > 0
    parts = forecast(bones, Render(SIZE, 4, CUDA)).parts
    assert peaks[0] > sum(part.bytes for part in parts)


def room(count: int) -> Memory:
    """Memory in which just so many bytes can be used."""
    free = math.ceil(count / (1 - SPARED)) + 1
    return Memory(free, free, 0)


def test_changes_are_forecast_anew_until_it_fits(bones) -> None:
    now = forecast(bones, Render((256, 256), 4, CUDA, pictures=32))
    smallest = forecast(bones, replace(now.render, placement=Placement(offload="sequential")).batched(1)).peak
    fitted = 0
    for share in (0.9, 0.3):
        there = room(smallest + int((now.peak - smallest) * share))
        found = changes(bones, now, there)
        raised = [change for change in found if "instead of" in change.options]
        assert all(change.fits for change in raised)
        found = found[: len(found) - len(raised)]
        assert [change.fits for change in found] == [False] * (len(found) - 1) + [True]
        for change in found:
            assert change.forecast == forecast(bones, change.forecast.render)
            assert change.fits == (change.forecast.peak <= there.room)
        assert [change.forecast.peak for change in found] == sorted(
            (change.forecast.peak for change in found), reverse=True
        )
        fitted += len(found)
    assert fitted >= 2
    assert changes(bones, now, room(now.peak)) == []


def test_the_order_of_changes_is_that_of_their_cost(bones) -> None:
    now = forecast(bones, Render((768, 512), 4, CUDA, pictures=32))
    found = [change.options.split()[0] for change in changes(bones, now, room(1000))]
    order = ["--max-batch", "--offload", "--storage", "--tile", "--offload", "--size"]
    assert len(found) >= 5
    positions = [order.index(found[0])]
    for option in found[1:]:
        positions.append(order.index(option, positions[-1] + 1))
    assert not any(change.fits for change in changes(bones, now, room(1000)))


def test_nothing_leaves_main_memory(bones) -> None:
    now = forecast(bones, Render((256, 256), 4, CPU, pictures=32))
    assert not any("--offload" in change.options for change in changes(bones, now, room(1000)))


def test_decoding_stays_within_its_share_of_the_memory(bones) -> None:
    codec = bones.codec
    memory = int(SHARE * bytes_per_latent(codec) * 40**2)
    bounded = tiled(codec, None, memory)
    assert bounded.tile == 40
    latents = torch.empty(3, 4, 64, 88, device="meta")
    weights = weights_of(bones.parts["vae"])
    whole = rehearsed(lambda: codec.decode(latents), weights).peak
    peak = rehearsed(lambda: bounded.decode(latents), weights).peak
    pictures = 3 * 3 * 64 * 88 * 64 * 4
    # What is decoded at last exists three times over: tile by tile, joined, and brought into its range.
    assert peak <= memory // SHARE + 3 * pictures < whole


def test_slices_are_as_large_as_one_tile(bones) -> None:
    codec = replace(bones.codec, tile=32)
    weights = weights_of(bones.parts["vae"])

    def peak(*shape: int) -> int:
        return rehearsed(lambda: codec.decode(torch.empty(*shape, device="meta")), weights).peak

    one, picture = peak(1, 4, 32, 32), 3 * 32 * 32 * 64 * 4
    assert peak(4, 4, 32, 32) < one + 3 * 4 * picture
    assert peak(4, 4, 16, 16) == pytest.approx(one, rel=0.05)


def test_tiles_can_be_asked_for(model) -> None:
    assert tiled(model.codec, 320, 0).tile == 40
    assert tiled(model.codec, None, 0) == model.codec
    with pytest.raises(ModelError, match="tile must be 256 pixels or more for this model; got 128"):
        tiled(model.codec, 128, 0)


def test_a_machine_is_asked_and_not_looked_up() -> None:
    memory = memory_of(CPU)
    assert 0 < memory.room <= memory.free <= memory.total
    speed = measured_speed(CPU, torch.float32, patience=0.02)
    assert all(flops > 1e8 for flops in speed.flops.values())
    work = rehearsed(lambda: torch.empty(64, 64, device="meta") @ torch.empty(64, 64, device="meta"))
    assert speed.seconds(work.times(10)) == pytest.approx(10 * speed.seconds(work), rel=1e-6)
    faster: dict[Kind, float] = {kind: flops * 2 for kind, flops in speed.flops.items()}
    twice = Speed(faster, speed.moved * 2, speed.overhead / 2, speed.drag)
    assert twice.seconds(work) == pytest.approx(speed.seconds(work) / 2)


def test_the_codec_of_a_skeleton_is_that_of_the_model(bones, model) -> None:
    assert isinstance(bones.codec, AutoencoderCodec)
    assert (bones.codec.scale, bones.codec.channels) == (model.codec.scale, model.codec.channels)
    assert bones.size == model.defaults.size
