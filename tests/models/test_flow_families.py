# pyright: basic
"""Stable Diffusion 3 and FLUX: pictures equal those of diffusers' own pipelines on the same folder, and films work."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from safetensors.torch import save_file
from tiny_flow import CHANNELS, write_flux, write_sd3

from segue.cli.main import main
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.schedule import resolution_shift
from segue.diffusion.starts import from_seeds
from segue.errors import CheckpointError, ModelError, ModelNotFoundError, TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.families.flux import packed, unpacked
from segue.models.loading import load_model, usual_dtype
from segue.models.weights import freeze, quiet
from segue.tasks.image import Image
from segue.tasks.likeness import Likeness
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.types import Guided, RowId

PROMPT, NEGATIVE = "a red apple", "cat"
STEPS = 4
WIDE = (96, 64)


def ours(model: LatentDiffusion, scale: float, seed: int, size=WIDE, steps=STEPS, negative=NEGATIVE) -> torch.Tensor:
    schedule = model.schedule(steps, size)
    text = model.text([negative, PROMPT])
    shape = (model.codec.channels, size[1] // model.codec.scale, size[0] // model.codec.scale)
    state = from_seeds([seed], [RowId("a")], schedule, shape, model.device)
    guided = classifier_free(text[[1]], text[[0]], scale)
    return model.codec.decode(collect(denoise(model.denoiser, state, schedule, guided), schedule))


def theirs(kind: Any, folder: Path, scale: float, seed: int, size=WIDE, steps=STEPS, **settings: Any) -> torch.Tensor:
    with quiet():
        said = json.loads((folder / "model_index.json").read_text())
        absent = {part: None for part, made in said.items() if made == [None, None]}
        pipeline = kind.from_pretrained(folder, local_files_only=True, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=scale,
        width=size[0],
        height=size[1],
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        **settings,
    ).images


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("flow")
    return {
        "sd3": write_sd3(root / "sd3", shards="60KB"),
        "sd3 without t5": write_sd3(root / "sd3-clip", with_t5=False, dynamic=True, seed=1),
        "dev": write_flux(root / "dev", shards="60KB"),
        "schnell": write_flux(root / "schnell", embeds=False, dynamic=False, seed=1),
        "undistilled": write_flux(root / "undistilled", embeds=False, seed=2),
    }


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, LatentDiffusion]:
    return {name: load_model(folder, device="cpu") for name, folder in folders.items()}


@pytest.mark.parametrize(("name", "scale"), [("sd3", 4.0), ("sd3", 1.0), ("sd3 without t5", 3.0)])
def test_stable_diffusion_3_equals_its_pipeline(name, scale, folders, models):
    expected = theirs(StableDiffusion3Pipeline, folders[name], scale, 11, negative_prompt=NEGATIVE)
    assert expected.std() > 0.01
    assert (ours(models[name], scale, 11) - expected).abs().max() <= 1e-4
    assert (ours(models[name], scale, 12) - expected).abs().max() > 0.05, "the comparison can fail"


@pytest.mark.parametrize(("name", "scale"), [("dev", 3.5), ("dev", 1.0), ("schnell", 1.0)])
def test_flux_equals_its_pipeline(name, scale, folders, models):
    length = 512 if name == "dev" else 256
    expected = theirs(FluxPipeline, folders[name], scale, 11, max_sequence_length=length)
    assert expected.std() > 0.01
    assert (ours(models[name], scale, 11) - expected).abs().max() <= 1e-4
    assert (ours(models[name], scale, 12) - expected).abs().max() > 0.05, "the comparison can fail"


def test_flux_without_a_guidance_embedding_is_guided_by_two_terms(folders, models):
    told: dict[str, Any] = {"max_sequence_length": 256, "negative_prompt": NEGATIVE, "true_cfg_scale": 3.0}
    expected = theirs(FluxPipeline, folders["undistilled"], 1.0, 5, **told)
    assert (ours(models["undistilled"], 3.0, 5) - expected).abs().max() <= 1e-4


def test_no_part_of_what_a_network_is_told_is_idle(models):
    """So that parity says something about text, pooled vector, time and, where there is one, guidance."""
    for name in ("sd3", "dev"):
        model = models[name]
        text = model.text([PROMPT, NEGATIVE])
        x = torch.randn(1, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(1))
        now, _ = model.schedule(2, (64, 64)).step(torch.zeros(1, dtype=torch.int64))
        denoiser = replace(model.denoiser, prediction="sample")  # what the network says, as it is
        plain = denoiser(x, now, text[[0]])
        words = text.text.shape[1]
        changed = {
            "first tokens": replace(text[[0]], text=torch.cat([text.text[[1], :9], text.text[[0], 9:]], 1)),
            "pooled": replace(text[[0]], pooled=text.pooled[[1]]),
        }
        answers = {part: denoiser(x, now, cond) for part, cond in changed.items()}
        answers["time"] = denoiser(x, replace(now, time=now.time / 2), text[[0]])
        if name == "dev":
            answers["guidance"] = denoiser(x, now, classifier_free(text[[0]], text[[1]], 6.0))
        else:
            last = torch.cat([text.text[[0], : words - 256], text.text[[1], words - 256 :]], 1)
            answers["t5"] = denoiser(x, now, replace(text[[0]], text=last))
        for part, answer in answers.items():
            assert (answer - plain).abs().max() > 1e-4, (name, part)


def test_packing_is_undone_by_unpacking():
    x = torch.randn(2, 5, 6, 8)
    assert packed(x).shape == (2, 12, 20)
    assert torch.equal(unpacked(packed(x), 6, 8), x)
    assert torch.equal(packed(x)[0, 1], x[0, :, :2, 2:4].reshape(-1)), "a token is a patch"


def test_larger_pictures_are_noisier_for_longer(models):
    dev = models["dev"]
    small, large = (dev.schedule(4, size).now.sigma for size in ((32, 32), (128, 64)))
    assert bool((large[1:] > small[1:]).all())
    assert resolution_shift({}, 256) == 0.5
    assert resolution_shift({}, 4096) == pytest.approx(1.15)
    static = models["schnell"]
    assert torch.equal(static.schedule(4, (32, 32)).now.sigma, static.schedule(4, (128, 64)).now.sigma)
    assert static.schedule(4, (64, 64)).now.sigma.tolist() == [1.0, 0.75, 0.5, 0.25]


def test_defaults_are_data_of_the_family(models):
    told = {name: (model.defaults.steps, model.defaults.guidance_scale) for name, model in models.items()}
    assert told == {
        "sd3": (28, 7.0),
        "sd3 without t5": (28, 7.0),
        "dev": (28, 3.5),
        "schnell": (4, 1.0),
        "undistilled": (28, 3.5),
    }
    assert {model.grid for model in models.values()} == {16}
    assert {name for name, model in models.items() if model.denoiser.embeds_guidance} == {"dev"}


def test_half_precision_runs_and_stays_close(folders, models):
    for name, dtype, part in (("sd3", torch.float16, "text_encoder_3"), ("dev", torch.bfloat16, "text_encoder_2")):
        half = load_model(folders[name], device="cpu", dtype=dtype)
        assert half.parts["transformer"].dtype == dtype
        assert half.parts[part].dtype == torch.bfloat16
        picture = ours(half, 2.0, 1, (48, 32), 2)
        assert picture.dtype == torch.float32
        assert (picture - ours(models[name], 2.0, 1, (48, 32), 2)).abs().mean() < 0.05
    card = torch.device("cuda")
    assert usual_dtype(folders["dev"], card) == "bfloat16"
    assert usual_dtype(folders["dev"], torch.device("cpu")) is None


def test_weights_are_read_in_their_own_precision_from_the_first(folders, monkeypatch):
    """As they come from the reader, before anything is converted: by way of float32 they would take twice the room."""
    read: dict[str, set[torch.dtype]] = {}

    def frozen(network: Any, device: torch.device, dtype: torch.dtype) -> None:
        read[type(network).__name__] = {tensor.dtype for tensor in network.parameters()}
        freeze(network, device, dtype)

    monkeypatch.setattr("segue.models.weights.freeze", frozen)
    half = load_model(folders["sd3"], device="cpu", dtype=torch.float16)
    assert read == {
        "SD3Transformer2DModel": {torch.float16},
        "CLIPTextModelWithProjection": {torch.float16},
        "T5EncoderModel": {torch.bfloat16},
        "AutoencoderKL": {torch.float32},  # which says that it leaves the range of float16
    }
    whole = load_model(folders["sd3"], device="cpu")
    assert set().union(*read.values()) == {torch.float32}
    for part, network in half.parts.items():
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, whole.parts[part].state_dict()[name].to(tensor.dtype)), (part, name)


def test_a_guidance_scale_is_embedded_row_by_row(models):
    """One row a picture, whatever the scale, in one call; rows agree with each alone."""
    dev, tally = models["dev"], Tally()
    text = dev.text([PROMPT, "a cat", "", ""])
    x = torch.randn(2, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(1))
    now, _ = dev.schedule(4, (64, 64)).step(torch.tensor([0, 2]))
    guided = classifier_free(text[[0, 1]], text[[2, 3]], [2.0, 7.0])
    both = tally.watching(dev.denoiser)(x, now, guided)
    assert (tally.calls, tally.rows) == (1, 2)
    for row in (0, 1):
        alone = dev.denoiser(x[[row]], now[[row]], guided[[row]])
        assert (alone - both[[row]]).abs().max() < 1e-4
        other = dev.denoiser(x[[row]], now[[row]], classifier_free(text[[row]], text[[2]], 9.0))
        assert (other - both[[row]]).abs().max() > 1e-3
    late = Guided(guided.terms, guided.weights, start=0.4)
    began = dev.denoiser(x, now, late)
    assert (began[0] - both[0]).abs().max() > 1e-4, "guidance has not set in: the network is told 1"
    assert (began[1] - both[1]).abs().max() < 1e-4
    with pytest.raises(TaskError, match="without rescale"):
        dev.denoiser(x, now, replace(guided, rescale=0.5))


def test_negative_prompts_are_refused_where_nothing_hears_them(models):
    sampling = Sampling(steps=2, size=(32, 32))
    with pytest.raises(TaskError, match=r"told its guidance scale as a number.*'cat'"):
        Image(PROMPT, negative=NEGATIVE, sampling=sampling).run(models["dev"])
    with pytest.raises(TaskError, match="negative prompts have no effect"):
        Transition((PROMPT, "a cat"), negative=(NEGATIVE,), sampling=sampling).run(models["dev"])
    heard = [
        Image(PROMPT, negative=negative, sampling=replace(sampling, guidance_scale=(3.0,))).run(models["sd3"]).frames[:]
        for negative in ("", NEGATIVE)
    ]
    assert not torch.equal(heard[0], heard[1])


def test_batches_do_not_change_rows(models):
    for name in ("sd3", "dev"):
        text = models[name].text([PROMPT, "a cat", "a green apple", "", "", ""])
        x = torch.randn(3, CHANNELS, 8, 12, generator=torch.Generator().manual_seed(1))
        now, _ = models[name].schedule(4, WIDE).step(torch.tensor([0, 1, 3]))
        guided = classifier_free(text[[0, 1, 2]], text[[3, 4, 5]], [2.0, 3.0, 4.0])
        padded = models[name].batched(4, deterministic=True).denoiser
        whole = padded(x, now, guided)
        parts = torch.cat([padded(x[rows], now[rows], guided[rows]) for rows in ([2], [0, 1])])
        assert torch.equal(parts, whole[[2, 0, 1]])
        assert (models[name].denoiser(x, now, guided) - whole).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["sd3", "sd3 without t5", "dev", "schnell"])
def test_a_transition_on_each(name, models):
    task = Transition(
        (PROMPT, "a green (apple:1.2)"),
        seconds=0.5,
        seeds=(1, 2),
        sampling=Sampling(steps=3, size=(48, 32)),
    )
    model = models[name]
    plain = task.run(model, Execution(max_batch=4)).frames[:]
    assert len(plain) > 2
    assert (plain[0] - plain[-1]).abs().max() > 0.05
    crossfed = replace(task, tree=replace(task.tree, crossfeed=(0.8, 1.0, 1.0))).run(model).frames[:]
    shared = replace(task, likeness=Likeness(structure=0.6, interpolation=0.5)).run(model).frames[:]
    assert torch.isfinite(shared).all()
    assert not torch.equal(crossfed, plain)
    assert (plain[0] - crossfed[0]).abs().max() < 1e-4 > (plain[0] - shared[0]).abs().max(), "the anchor stays"
    assert (plain[-1] - shared[-1]).abs().max() > 0.01, "the other key takes after it"


def test_curves_and_dampers_of_guidance_go_into_the_embedding(models):
    task = Transition((PROMPT, "a cat"), seconds=0.4, seeds=(1, 2), sampling=Sampling(steps=2, size=(32, 32)))
    plain, dampened = (
        replace(task, tree=replace(task.tree, damper=damper)).run(models["dev"]).frames[:] for damper in (1.0, 0.3)
    )
    assert (plain[0] - dampened[0]).abs().max() < 1e-4
    assert (plain[1] - dampened[1]).abs().max() > 1e-4
    curved = replace(task, sampling=replace(task.sampling, guidance_scale=("0s:1, 0.4s:9",)))
    assert (curved.run(models["dev"]).frames[:][-1] - plain[-1]).abs().max() > 1e-4


def test_the_command_draws_with_a_folder(folders, tmp_path, capsys):
    for name in ("sd3", "dev"):
        out = tmp_path / f"{name}.png"
        told = ["image", PROMPT, "-o", str(out), "--model", str(folders[name]), "--steps", "2", "--size", "48x32"]
        assert main([*told, "--device", "cpu"]) == 0, capsys.readouterr()
        assert out.is_file()
    assert main([*told[:-1], "40x32", "--device", "cpu"]) != 0
    assert "multiple of 16" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sd3", "dev"])
def test_a_lora_for_the_transformer_is_merged(name, folders, models, tmp_path):
    layer = "transformer_blocks.1.attn.to_q"
    rows = models[name].parts["transformer"].get_submodule(layer).weight.shape
    factors = {"A": torch.randn(2, rows[1]), "B": torch.randn(rows[0], 2)}
    file = tmp_path / "style.safetensors"
    save_file({f"transformer.{layer}.lora_{side}.weight": factor for side, factor in factors.items()}, file)
    styled = load_model(folders[name], device="cpu", loras={file: 1.0})
    assert (ours(styled, 2.0, 1, (32, 32), 1) - ours(models[name], 2.0, 1, (32, 32), 1)).abs().max() > 1e-3
    other = {"sd3": "dev", "dev": "sd3"}[name]
    unknown = {
        f"transformer.single_transformer_blocks.9.attn.to_q.lora_{side}.weight": part for side, part in factors.items()
    }
    save_file(unknown, file)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_model(folders[other], device="cpu", loras={file: 1.0})


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("dev", "lora_unet_double_blocks_0_img_attn_qkv"),
        ("dev", "lora_unet_single_blocks_0_linear1"),
        ("sd3", "lora_unet_joint_blocks_0_x_block_attn_qkv"),
    ],
)
def test_a_lora_of_the_family_in_a_naming_that_is_not_read(name, layer, folders, tmp_path):
    file = tmp_path / "style.safetensors"
    save_file({f"{layer}.lora_{side}.weight": torch.ones(2, 2) for side in ("down", "up")}, file)
    with pytest.raises(CheckpointError, match=r"kohya's scripts do.*not read for this family.*names of diffusers"):
        load_model(folders[name], device="cpu", loras={file: 1.0})
    with pytest.raises(CheckpointError, match="another architecture"):
        load_model(folders[{"sd3": "dev", "dev": "sd3"}[name]], device="cpu", loras={file: 1.0})


def test_single_files_are_refused_by_name(tmp_path):
    files = {
        "FLUX": "double_blocks.0.img_attn.qkv.weight",
        "Stable Diffusion 3": "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
    }
    for name, key in files.items():
        file = tmp_path / "one.safetensors"
        save_file({key: torch.zeros(2, 2), "x_embedder.proj.weight": torch.zeros(2, 2)}, file)
        with pytest.raises(CheckpointError, match=name):
            load_model(file, device="cpu")


def test_the_fingerprint_follows_t5(folders, models, tmp_path):
    copy = Path(shutil.copytree(folders["sd3"], tmp_path / "copy"))
    assert load_model(copy, device="cpu").fingerprint == models["sd3"].fingerprint
    shutil.rmtree(copy / "text_encoder_3")
    without = load_model(copy, device="cpu")
    assert without.fingerprint != models["sd3"].fingerprint
    assert not without.text([PROMPT]).text[:, -256:].any()


def rewritten(folder: Path, copy: Path, part: str, **entries: Any) -> Path:
    shutil.copytree(folder, copy)
    said = json.loads((copy / part).read_text())
    (copy / part).write_text(json.dumps({**said, **entries}))
    return copy


def test_wrong_families_are_named_for_what_they_are(folders, tmp_path):
    index = "model_index.json"
    mixed = rewritten(folders["dev"], tmp_path / "a", index, _class_name="StableDiffusion3Pipeline")
    with pytest.raises(CheckpointError, match=r"index of Stable Diffusion 3.*that of FLUX"):
        load_model(mixed, device="cpu")
    mixed = rewritten(folders["sd3"], tmp_path / "b", index, _class_name="FluxPipeline")
    with pytest.raises(CheckpointError, match=r"index of FLUX.*that of Stable Diffusion 3"):
        load_model(mixed, device="cpu")
    kontext = rewritten(folders["dev"], tmp_path / "c", index, _class_name="FluxKontextPipeline")
    with pytest.raises(CheckpointError, match=r"made for FluxKontextPipeline; Segue reads .*FLUX"):
        load_model(kontext, device="cpu")
    plain = rewritten(folders["dev"], tmp_path / "d", index, _class_name="StableDiffusionPipeline")
    with pytest.raises(ModelNotFoundError, match="unet"):
        load_model(plain, device="cpu")
    other = rewritten(folders["dev"], tmp_path / "e", "transformer/config.json", _class_name="ChromaTransformer2DModel")
    with pytest.raises(CheckpointError, match="a ChromaTransformer2DModel, which Segue does not read"):
        load_model(other, device="cpu")


def test_parts_that_do_not_fit_are_named(folders, tmp_path):
    scheduler = "scheduler/scheduler_config.json"
    odd = rewritten(folders["dev"], tmp_path / "a", scheduler, _class_name="DDIMScheduler")
    with pytest.raises(CheckpointError, match="flow matching; got DDIMScheduler"):
        load_model(odd, device="cpu")
    with pytest.raises(ModelError, match="must be left out, got 'epsilon'"):
        load_model(folders["sd3"], device="cpu", prediction="epsilon")
    bare = Path(shutil.copytree(folders["dev"], tmp_path / "b"))
    (bare / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        load_model(bare, device="cpu")
    small = Path(shutil.copytree(folders["dev"], tmp_path / "c"))
    shutil.rmtree(small / "tokenizer_2")
    shutil.copytree(small / "tokenizer", small / "tokenizer_2")
    with pytest.raises(CheckpointError, match=r"no T5 tokenizer|are no pair"):
        load_model(small, device="cpu")


def test_pictures_beyond_the_places_that_are_known_are_refused(models):
    with pytest.raises(TaskError, match=r"at most 128 for this model, got 144x64"):
        ours(models["sd3"], 1.0, 1, (144, 64), 1)


def test_what_a_network_has_no_place_for_is_refused(models):
    x, row = torch.zeros(1, CHANNELS, 8, 8), torch.zeros(1, 1)
    for name in ("sd3", "schnell"):
        cond = models[name].text([PROMPT])
        now, _ = models[name].schedule(2, (64, 64)).step(torch.zeros(1, dtype=torch.int64))
        wrong = {"text_mask": row, "concat": x, "label": row, "extra": {"guidance": row}, "pooled": None}
        for part, value in wrong.items():
            with pytest.raises(ValueError, match="guidance" if part == "extra" else part):
                models[name].denoiser(x, now, replace(cond, **{part: value}))
