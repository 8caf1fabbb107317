# pyright: basic
"""Compiled blocks answer as before, and what cannot be compiled is refused before anything is loaded."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from segue.errors import ModelError, TaskError
from segue.models import compiling, precision
from segue.models.bundle import LatentDiffusion
from segue.models.compiling import Stepped, check_compiler, compiled
from segue.models.loading import find_dtype, load_model
from segue.models.placement import Placement, placed
from segue.tasks.sampling import Execution

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))
LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def own(model: LatentDiffusion) -> LatentDiffusion:
    """A model whose network may be changed."""
    network: Any = model.denoiser.network
    unet = deepcopy(model.parts["unet"])
    return replace(
        model,
        parts={**model.parts, "unet": unet},
        denoiser=replace(model.denoiser, network=replace(network, unet=unet)),
    )


def made(model: LatentDiffusion) -> torch.Tensor:
    point, _ = model.schedule(4, (64, 64)).step(torch.tensor([1, 2]))
    return model.denoiser(LATENTS, point, model.text(["a boat", "a house"]))


def test_without_compiling_not_a_bit_changes(own: LatentDiffusion) -> None:
    before = made(own)
    assert torch.equal(made(placed(own, Placement(), CPU)), before)


def test_the_blocks_that_repeat_are_compiled_and_answer_as_before(own: LatentDiffusion, monkeypatch) -> None:
    """With the compiler's first half alone, which needs no C++: what it traced is run by torch."""
    plain, taken = made(own), []
    compile_ = torch.nn.Module.compile

    def eager(module: torch.nn.Module, **how: Any) -> None:
        taken.append((type(module).__name__, how))
        compile_(module, backend="eager", **how)

    monkeypatch.setattr(torch.nn.Module, "compile", eager)
    model = compiled(own, "blocks")
    assert taken and {name for name, _ in taken} == {"BasicTransformerBlock"}
    assert all(how == {"dynamic": True} for _, how in taken), "one compilation serves every number of rows"
    assert torch.allclose(made(model), plain, atol=1e-5)


def test_recorded_kernels_are_told_where_a_call_begins(own: LatentDiffusion, monkeypatch) -> None:
    """The recording itself needs CUDA and was not run; the network is asked to, and its answers are copied."""
    asked: list[str] = []
    monkeypatch.setattr(type(own.parts["unet"]), "compile", lambda network, mode: asked.append(mode))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: asked.append("begin"))
    plain = made(own)
    model = compiled(own, "graphs")
    assert isinstance(model.denoiser.network, Stepped)
    assert torch.equal(made(model), plain)
    assert asked == ["reduce-overhead", "begin"]


def test_what_cannot_be_compiled_is_refused(own: LatentDiffusion, monkeypatch) -> None:
    wrong: Any = "all"
    with pytest.raises(ModelError, match="blocks or graphs"):
        Placement(compile=wrong)
    kinds: list[dict[str, Any]] = [{"storage": "float8"}, {"offload": "model"}]
    for kept in kinds:
        with pytest.raises(ModelError, match="leave storage and offload out"):
            Placement(compile="blocks", **kept)
    with pytest.raises(ModelError, match='records the kernels of CUDA, and this is cpu: take "blocks"'):
        Placement(compile="graphs").check(CPU)
    with pytest.raises(ModelError, match="is for cpu and cuda, and this is mps"):
        check_compiler("blocks", MPS)
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs triton"):
        check_compiler("blocks", CUDA)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelError, match=r"needs a C\+\+ compiler, and none of no-such-compiler is here"):
        check_compiler("blocks", CPU)
    monkeypatch.delattr(type(own.parts["unet"]), "_repeated_blocks")
    with pytest.raises(ModelError, match="UNet2DConditionModel does not say which of its blocks repeat"):
        compiled(own, "blocks")
    with pytest.raises(ModelError, match="give each one number"):
        compiled(replace(own, loras=((own.weights[0][0], "0s:0, 2s:1"),)), "blocks")


def test_recorded_kernels_need_calls_of_one_shape(own: LatentDiffusion) -> None:
    model = replace(own, placement=Placement(compile="graphs"))
    with pytest.raises(TaskError, match="add --deterministic-batch"), Execution().applied(model):
        pass
    with Execution(deterministic_batch=True).applied(model) as ready:
        assert ready.placement.compile == "graphs"


def test_auto_is_the_dtype_that_a_measurement_finds_quicker(folder, monkeypatch) -> None:
    precision.quicker_dtype.cache_clear()
    assert find_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    for seconds, expected in ((1.0, torch.bfloat16), (2.0, torch.float32)):
        precision.quicker_dtype.cache_clear()
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
        took = {torch.float32: 2.0, torch.bfloat16: seconds}
        monkeypatch.setattr(precision, "_seconds", lambda dtype, took=took: took[dtype])
        assert find_dtype("auto", CPU) == expected == load_model(folder, device="cpu", dtype="auto").dtype
    precision.quicker_dtype.cache_clear()
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert find_dtype("auto", CPU) == torch.float32
    precision.quicker_dtype.cache_clear()
    assert find_dtype(None, CPU) == torch.float32
    assert find_dtype("auto", CUDA) == torch.float16


def test_convolutions_on_a_cpu_have_their_channels_last(model: LatentDiffusion) -> None:
    weights = [part.weight for part in model.parts["unet"].modules() if isinstance(part, torch.nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
