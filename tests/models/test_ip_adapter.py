# pyright: basic
"""Reference pictures act as they do in diffusers, and leave the model as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_control import write_controlnet
from tiny_ip import SIDE, TOKENS, write_encoder, write_ip
from tiny_upscaler import write_upscaler
from tiny_xl import write_xl

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_seeds
from segue.errors import CheckpointError, ModelError, ModelNotFoundError, TaskError
from segue.models import ip_adapter_files
from segue.models.attended import model_sites
from segue.models.attention import attached, sites
from segue.models.bundle import LatentDiffusion
from segue.models.control import Control, controlled, unet_of
from segue.models.control_files import load_control
from segue.models.hub import Repository
from segue.models.ip_adapter import IMAGE_SCALE, referring, shown, with_tokens
from segue.models.ip_adapter_files import load_ip_adapter
from segue.models.loading import load_model
from segue.models.weights import quiet
from segue.temporal.frame_attention import frame_attention
from segue.types import Condition, RowId

PROMPT, NEGATIVE = "a red apple", "cat"
EXACT = 1e-4
KINDS = ("plain", "plus", "full")


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl") / "xl")


@pytest.fixture(scope="module")
def xl(xl_folder) -> LatentDiffusion:
    return load_model(xl_folder, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory, model, xl) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("ip")
    made = {kind: write_ip(place / kind, model, kind, seed=i) for i, kind in enumerate(KINDS)}
    return {**made, "xl": write_ip(place / "xl", xl, "plain", seed=5)}


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """In bytes, as files have them, and of the size at which the encoder looks."""
    drawn = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (drawn * 255).round() / 255


def words(model: LatentDiffusion, rows: int = 1, scale: float = 5.0) -> Condition:
    positive, negative = (model.text([said])[[0] * rows] for said in (PROMPT, NEGATIVE))
    return classifier_free(positive, negative, scale)


def run(model: LatentDiffusion, cond: Condition, steps: int = 4) -> torch.Tensor:
    schedule = model.schedule(steps, (64, 64), solver="ddim")
    state = from_seeds([11] * len(cond), [RowId("a", i) for i in range(len(cond))], schedule, (4, 8, 8), model.device)
    return collect(denoise(model.denoiser, state, schedule, cond), schedule)


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def theirs(kind: Any, folder: Path, file: Path, seen: torch.Tensor, scale: float) -> torch.Tensor:
    images = [Image.fromarray((255 * one).round().byte().permute(1, 2, 0).numpy()) for one in seen]
    with quiet():
        made = kind.from_pretrained(folder, local_files_only=True)
        made.load_ip_adapter(file.parent, subfolder=".", weight_name=file.name, image_encoder_folder="image_encoder")
        made.scheduler = DDIMScheduler.from_config({**made.scheduler.config, "clip_sample": False})
        made.set_ip_adapter_scale(scale)
        made.set_progress_bar_config(disable=True)
        return made(
            PROMPT,
            negative_prompt=NEGATIVE,
            ip_adapter_image=[images],
            num_inference_steps=4,
            guidance_scale=5.0,
            width=64,
            height=64,
            generator=torch.Generator().manual_seed(11),
            output_type="latent",
        ).images


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_reference_pictures_act_as_in_diffusers(kind, count, folder, model, files):
    seen = pictures(count)
    expected = theirs(StableDiffusionPipeline, folder, files[kind], seen, 0.7)
    adapter = load_ip_adapter(files[kind], model)
    got = run(shown(model, adapter, 0.7), referring(words(model), adapter, seen))
    assert far(got, run(model, words(model))) > 0.05
    assert far(got, run(shown(model, adapter, 0.7), referring(words(model), adapter, pictures(count, 9)))) > 0.005
    assert far(got, expected) <= EXACT


def test_xl_sees_reference_pictures_as_in_diffusers(xl_folder, xl, files):
    expected = theirs(StableDiffusionXLPipeline, xl_folder, files["xl"], pictures(1), 0.6)
    adapter = load_ip_adapter(files["xl"], xl)
    got = run(shown(xl, adapter, 0.6), referring(words(xl), adapter, pictures(1)))
    assert far(got, run(xl, words(xl))) > 0.05
    assert far(got, expected) <= EXACT


def state_of(model: LatentDiffusion) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """All that the UNet is made of, and by what it attends."""
    unet = unet_of(model).unet
    return {key: value.clone() for key, value in unet.state_dict().items()}, [
        site.module.processor for site in sites(unet)
    ]


def assert_untouched(model: LatentDiffusion, before: tuple[dict[str, torch.Tensor], list[Any]]) -> None:
    state, processors = state_of(model)
    assert state.keys() == before[0].keys()
    assert all(torch.equal(state[key], before[0][key]) for key in state)
    assert all(one is other for one, other in zip(processors, before[1], strict=True))


def shifted(plain, hidden, context, call, site):
    """An attention adapter that changes something."""
    return plain(hidden, context) + 0.1 * hidden


def test_the_model_is_the_same_afterwards_alone_and_nested(model, files):
    before, alone = state_of(model), run(model, words(model))
    adapter = load_ip_adapter(files["plain"], model)
    seeing, cond = shown(model, adapter), referring(words(model), adapter, pictures(1))
    pictured = run(seeing, cond)
    assert_untouched(model, before)
    within = [site for site in sites(unet_of(model).unet) if site.kind == "self"]
    every = sites(unet_of(model).unet)
    for places in (within, every):
        with attached(places, shifted):
            inside = state_of(model)
            both = run(seeing, cond)
            assert_untouched(model, inside)
            changed = run(model, words(model))
        assert_untouched(model, before)
        # The other way round: the model that sees is made while others have stepped in, and used when they are gone.
        with attached(places, shifted):
            made = shown(model, adapter)
            assert torch.equal(run(made, cond), both)
        assert torch.equal(run(made, cond), pictured)
        assert len({float(one.sum()) for one in (alone, pictured, both, changed)}) == 4
    assert torch.equal(run(model, words(model)), alone)
    with pytest.raises(ValueError, match="one row"), attached(every, refusing):
        run(seeing, cond)
    assert_untouched(model, before)


def refusing(plain, hidden, context, call, site):
    raise ValueError("one row too many")


def test_a_processor_of_diffusers_stays_below(folder, model, files):
    """An IP-Adapter that diffusers put into a UNet answers below an attention adapter of ours, and survives it."""
    with quiet():
        made: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        made.load_ip_adapter(str(files["plain"].parent), subfolder=".", weight_name="ip.safetensors")
    before = [site.module.processor for site in sites(made.unet)]
    with attached([site for site in sites(made.unet) if site.kind == "self"], shifted):
        assert [site.module.processor for site in sites(made.unet)] != before
    assert all(a is b.module.processor for a, b in zip(before, sites(made.unet), strict=True))
    assert "IPAdapterAttnProcessor2_0" in {type(one).__name__ for one in before}


def test_rows_of_one_batch_see_each_their_own(model, files):
    adapter = load_ip_adapter(files["plain"], model)
    seeing = shown(model, adapter, 0.8)
    blank, seen = adapter.blank(), torch.cat([adapter.tokens(pictures(1, seed)) for seed in range(3)])
    assert seen.shape == (3, TOKENS, 32)
    cond: Any = words(model, 3)
    negative, positive = cond.terms
    scales = torch.tensor([1.0, 0.5, 0.0])
    terms = [with_tokens(negative, blank), with_tokens(positive, seen)]
    mixed = replace(cond, terms=tuple(replace(t, extra={**t.extra, IMAGE_SCALE: scales}) for t in terms))
    together = run(seeing, mixed)
    for row in range(3):
        assert far(together[[row]], run(seeing, mixed[[row]])) < EXACT
    assert far(together[2:], run(model, words(model))) < EXACT
    alone = run(shown(model, adapter, 0.4), referring(words(model), adapter, pictures(1, 1)))
    assert far(together[1:2], alone) < EXACT
    assert far(together[:1], together[1:2]) > 0.01


def test_at_scale_0_nothing_is_looked_at(model, files):
    adapter = load_ip_adapter(files["plain"], model)
    seeing = shown(model, adapter, 0.0)
    assert torch.equal(run(seeing, referring(words(model), adapter, pictures(1))), run(model, words(model)))


def test_reference_pictures_and_controls_act_at_once(folder, model, files, tmp_path):
    net = load_control(write_controlnet(tmp_path / "net", folder, seed=1), model)
    adapter = load_ip_adapter(files["plain"], model)
    hint = {"edges": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))}
    cond: Any = referring(words(model), adapter, pictures(1))
    both = replace(cond, terms=tuple(replace(term, residual_inputs=hint) for term in cond.terms))
    control = [Control("edges", net)]
    one, other = controlled(shown(model, adapter), control), shown(controlled(model, control), adapter)
    assert torch.equal(run(one, both), run(other, both))
    assert far(run(one, both), run(shown(model, adapter), cond)) > 0.1


def test_pictures_of_any_size_are_looked_at_in_the_middle(model, files):
    adapter = load_ip_adapter(files["plain"], model)
    wide = torch.rand(1, 3, SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(0))
    middle = wide[..., SIDE // 2 : SIDE // 2 + SIDE]
    assert torch.equal(adapter.tokens(wide), adapter.tokens(middle))
    assert far(adapter.tokens(wide), adapter.tokens(wide[..., :SIDE])) > 0.01
    large = middle.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert far(adapter.tokens(large), adapter.tokens(middle)) < 0.5 * far(adapter.tokens(middle), adapter.blank())
    assert far(adapter.tokens(wide), adapter.blank()) > 0.1
    assert adapter.encoder.device.type == "cpu"


def test_the_fingerprint_follows_the_adapter(model, files):
    plain, plus = (load_ip_adapter(files[kind], model) for kind in ("plain", "plus"))
    found = {shown(model, one, scale).fingerprint for one, scale in ((plain, 1.0), (plain, 0.5), (plus, 1.0))}
    assert len({*found, model.fingerprint}) == 4


def test_what_cannot_be_is_refused(model, files, tmp_path):
    adapter = load_ip_adapter(files["plain"], model)
    with pytest.raises(TaskError, match="the scale of reference pictures must be a number, got inf"):
        shown(model, adapter, float("inf"))
    with pytest.raises(ModelError, match="has an IP-Adapter already"):
        shown(shown(model, adapter), adapter)
    with pytest.raises(TaskError, match="looks at reference pictures, and was given none"):
        run(shown(model, adapter), words(model))
    with pytest.raises(ModelError, match="is an upscaler: controls and reference pictures work with"):
        shown(load_model(write_upscaler(tmp_path / "upscaler"), device="cpu"), adapter)
    compiled = replace(model, placement=replace(model.placement, compile="blocks"))
    with pytest.raises(ModelError, match="is compiled"):
        shown(compiled, adapter)


def test_adapters_of_other_models_are_named(folder, model, xl, files, tmp_path):
    with pytest.raises(CheckpointError, match=r"is no IP-Adapter for .*, which is of models of text width 80: for"):
        load_ip_adapter(files["plain"], xl)
    more = load_file(files["plain"])
    extra = {f"ip_adapter.99.to_{name}_ip.weight": torch.zeros(32, 32) for name in "kv"}
    save_file({**more, **extra}, tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match="places that attend to pictures, and the UNet of"):
        load_ip_adapter(tmp_path / "more.safetensors", model)
    with pytest.raises(CheckpointError, match=r"takes 24 numbers from its encoder of pictures, and that of .* says 20"):
        load_ip_adapter(files["plain"], model, encoder=write_encoder(tmp_path / "other", said=20))
    with pytest.raises(CheckpointError, match=r"is a UNet.*; expected an IP-Adapter"):
        load_ip_adapter(folder / "unet" / "diffusion_pytorch_model.safetensors", model)
    faces = {f"image_proj.{key}": torch.zeros(4, 4) for key in ("proj.0.weight", "proj.2.weight", "norm.weight")}
    save_file(faces, tmp_path / "faces.safetensors")
    with pytest.raises(CheckpointError, match="told of faces by a recogniser"):
        load_ip_adapter(tmp_path / "faces.safetensors", model)
    short = {key: value for key, value in more.items() if key != "image_proj.norm.bias"}
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(CheckpointError, match=r"short.safetensors is a damaged IP-Adapter: .*norm.bias"):
        load_ip_adapter(tmp_path / "short.safetensors", model)


def test_what_is_not_there_is_said(model, files, tmp_path):
    with pytest.raises(ModelNotFoundError, match="no IP-Adapter is usual with models of text width 32"):
        load_ip_adapter(None, model)
    with pytest.raises(
        ModelNotFoundError, match=r"expected a .safetensors file, or one in a hub repository such as h94"
    ):
        load_ip_adapter(tmp_path, model)
    alone = tmp_path / "ip.safetensors"
    alone.write_bytes(files["plain"].read_bytes())
    with pytest.raises(ModelNotFoundError, match=r"there is no encoder of pictures at .*image_encoder"):
        load_ip_adapter(alone, model)
    beside = files["plain"].parent / "image_encoder"
    for encoder in (beside, beside / "model.safetensors"):
        assert load_ip_adapter(alone, model, encoder=encoder).weights[0] == alone


def test_a_repository_may_hold_several(model, files, monkeypatch):
    asked: list[str] = []

    def found(repository: Repository) -> Path:
        assert repository.file is not None
        asked.append(f"{repository.id}/{repository.file}@{repository.revision}")
        return files["plain"].parent / Path(repository.file).relative_to("models")

    monkeypatch.setattr(ip_adapter_files, "download", found)
    load_ip_adapter("h94/IP-Adapter/models/ip.safetensors@main", model)
    beside = [f"h94/IP-Adapter/models/image_encoder/{name}@main" for name in ("config.json", "model.safetensors")]
    assert asked == ["h94/IP-Adapter/models/ip.safetensors@main", *beside]


def test_frames_look_at_each_other_while_pictures_and_controls_act(folder, model, files, tmp_path):
    """All three that step into attention at once: however calls are cut the same, and nothing is left behind."""
    net = load_control(write_controlnet(tmp_path / "net", folder, seed=1), model)
    adapter = load_ip_adapter(files["plus"], model)
    full = controlled(shown(model, adapter), [Control("edges", net, stop=0.5)])
    hints = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    cond: Any = referring(words(model, 3), adapter, pictures(1))
    cond = replace(cond, terms=tuple(replace(term, residual_inputs={"edges": hints}) for term in cond.terms))
    frames, before = [RowId("a", i) for i in range(3)], state_of(model)
    found = []
    for most in (6, 2):
        cut = full.batched(most)
        with frame_attention(cut.denoiser, model_sites(cut), "first, previous, self", frames) as denoiser:
            found.append(run(replace(cut, denoiser=denoiser), cond))
    assert far(found[0], found[1]) < EXACT
    assert far(found[0], run(full, cond)) > 0.01
    assert_untouched(model, before)
