# pyright: basic
"""A hub on 127.0.0.1: what works, and one quick clear line for everything that does not."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from ldm_layout import to_ldm
from tiny_xl import write_xl

from segue.errors import CheckpointError, ModelAccessError, ModelNotFoundError, UnsafeFileError
from segue.models.families import FAMILIES
from segue.models.hub import Repository, download_network, needed_files, parse_repository, stem_of
from segue.models.loading import load_model
from segue.models.skeleton import skeleton

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories are folders: owner/name/file. Some are gated or broken; every request is counted."""

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), Answer)
        self.root, self.gated, self.broken = root, {"some/gated"}, {"some/broken"}
        self.asked: list[str] = []
        self.agents: set[str] = set()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def log_message(self, format, *args):
        pass

    def answer(self, body: bool):
        self.server.asked.append(self.path)
        self.server.agents.add(self.headers["User-Agent"])
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        repository = f"{owner}/{name}"
        file = self.server.root / repository / "/".join(rest[2:])
        if repository in self.server.broken:
            self.send(503, b"{}")
        elif not (self.server.root / repository).is_dir():
            self.send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif api:
            self.about(repository, rest)
        elif repository in self.server.gated:
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif not file.is_file():
            self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        else:
            content = file.read_bytes()
            self.send(200, content, {"X-Repo-Commit": SHA, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, body)

    def about(self, repository: str, rest: list[str]):
        folder = self.server.root / repository
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        if rest[:1] == ["revision"] and rest[1] not in (SHA, "main"):
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            found = [{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": SHA} for f in files]
            self.send(200, json.dumps(found).encode())
        else:
            said = {"id": repository, "sha": SHA, "siblings": [{"rfilename": f} for f in files]}
            self.send(200, json.dumps(said).encode())

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None, body: bool = True):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body and self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub(tmp_path / "hub")
    server.root.mkdir()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    huggingface_hub.close_session()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    huggingface_hub.close_session()


@pytest.fixture
def published(hub, folder) -> str:
    shutil.copytree(folder, hub.root / "some/model")
    (hub.root / "some/model/README.md").write_text("a model")
    (hub.root / "some/model/unet/diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (hub.root / "some/model/safety_checker").mkdir()
    (hub.root / "some/model/safety_checker/model.safetensors").write_bytes(b"not needed")
    return "some/model"


def close(hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    huggingface_hub.close_session()


@pytest.fixture
def quick():
    """Refusals come in seconds."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 5


def test_a_model_is_fetched_and_only_what_it_needs(hub, published, folder):
    model = load_model(published)
    assert model.name == published
    assert model.fingerprint == load_model(folder).fingerprint
    fetched = {path.split("/resolve/")[1].split("/", 1)[1] for path in hub.asked if "/resolve/" in path}
    assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"} <= fetched
    assert not [name for name in fetched if name.endswith((".bin", ".md")) or "safety" in name]
    assert not [agent for agent in hub.agents if "torch/" in agent]
    assert not constants.HF_HUB_DISABLE_TELEMETRY


def test_a_revision_can_be_named(hub, published):
    assert load_model(f"{published}@{SHA}").name == f"{published}@{SHA}"
    with pytest.raises(ModelNotFoundError, match="some/model has no revision nowhere"):
        load_model(f"{published}@nowhere")


def test_a_single_file_of_a_repository(hub, folder, published):
    to_ldm(folder, hub.root / "some/model/whole.safetensors")
    model = load_model("some/model/whole.safetensors", config=folder)
    assert model.name == "some/model/whole.safetensors"
    with pytest.raises(ModelNotFoundError, match=r"some/model has no file other\.safetensors"):
        load_model("some/model/other.safetensors")
    with pytest.raises(UnsafeFileError, match="pickle"):
        load_model("some/model/whole.ckpt")


def test_cached_models_work_offline(hub, published, monkeypatch):
    expected = load_model(published).fingerprint
    close(hub)
    assert load_model(published).fingerprint == expected
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_model(published).fingerprint == expected
    next(Path(constants.HF_HUB_CACHE).glob("*/snapshots/*/unet/*.safetensors")).unlink()
    with pytest.raises(ModelAccessError, match="or not all of it"):
        load_model(published)


def test_uncached_models_offline_say_so(quick, hub, published, monkeypatch):
    close(hub)
    with pytest.raises(ModelAccessError, match=r"some/model is not on this machine.*it does not answer"):
        load_model(published)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelAccessError, match=r"some/model is not on this machine.*offline mode is on"):
        load_model(published)


def test_a_hub_that_never_answers_is_not_waited_for(quick, monkeypatch, hub):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("segue.models.hub.PATIENCE", 0.2)
        with pytest.raises(ModelAccessError, match="it does not answer"):
            load_model("some/model")


def test_missing_gated_and_broken_are_told_apart(quick, hub, published):
    shutil.copytree(hub.root / "some/model", hub.root / "some/gated")
    with pytest.raises(ModelNotFoundError, match="the hub has no model some/thing, or it is private"):
        load_model("some/thing")
    with pytest.raises(ModelAccessError, match="some/gated is gated: accept its terms"):
        load_model("some/gated")
    with pytest.raises(ModelAccessError, match="the hub answered 503"):
        load_model("some/broken")
    assert not torch.is_grad_enabled()


def test_repositories_of_other_layouts(quick, hub, published):
    for name in ("pickles", "single"):
        shutil.copytree(hub.root / "some/model", hub.root / f"some/{name}")
    (hub.root / "some/pickles/unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UnsafeFileError, match="has its unet as a pickle only"):
        load_model("some/pickles")
    (hub.root / "some/single/model_index.json").rename(hub.root / "some/single/v1.safetensors")
    with pytest.raises(CheckpointError, match=r"no model_index\.json.*try some/single/v1\.safetensors"):
        load_model("some/single")


SD = {"_class_name": "StableDiffusionPipeline"}


def test_a_repository_of_one_network_is_fetched_without_the_rest(quick, hub, folder, monkeypatch):
    """Small decoders are published so, beside pickles and files of other layouts."""
    shutil.copytree(folder / "vae", hub.root / "some/tiny")
    (hub.root / "some/tiny/tiny_decoder.safetensors").write_bytes(b"of another layout")
    for name in ("gated", "pickle"):
        shutil.copytree(hub.root / "some/tiny", hub.root / "some" / name)
    (hub.root / "some/pickle/diffusion_pytorch_model.safetensors").rename(
        hub.root / "some/pickle/diffusion_pytorch_model.bin"
    )
    local = download_network(Repository("some/tiny"))
    assert {path.name for path in local.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    with pytest.raises(ModelAccessError, match="some/gated is gated"):
        download_network(Repository("some/gated"))
    with pytest.raises(UnsafeFileError, match="as a pickle only"):
        download_network(Repository("some/pickle"))
    with pytest.raises(ModelNotFoundError, match="the hub has no model some/thing"):
        download_network(Repository("some/thing"))
    close(hub)
    assert download_network(Repository("some/tiny")) == local
    (local / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelAccessError, match="some/tiny is not on this machine, or not all of it"):
        download_network(Repository("some/tiny"))


def test_networks_of_other_layouts_bring_their_small_files(quick, hub, folder):
    shutil.copytree(folder / "text_encoder", hub.root / "some/clip")
    shutil.copytree(folder / "tokenizer", hub.root / "some/clip", dirs_exist_ok=True)
    local = download_network(Repository("some/clip"), "model", ["vocab.json", "merges.txt", "nowhere.json"])
    found = {path.name for path in local.iterdir()}
    assert found == {"config.json", "model.safetensors", "vocab.json", "merges.txt"}
    close(hub)
    assert download_network(Repository("some/clip"), "model", ["vocab.json"]) == local
    with pytest.raises(ModelAccessError):
        download_network(Repository("some/clip"))


def test_which_files_are_needed():
    base = {"model_index.json", "unet/config.json", "tokenizer/vocab.json", "vae/diffusion_pytorch_model.safetensors"}
    halves = {"unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.safetensors"}
    assert needed_files("x", base | halves | {"x.ckpt", "tokenizer_2/vocab.json"}, SD) == base | halves
    shards = {"text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors.index.json"}
    shards |= {f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert needed_files("x", base | shards | halves, SD) == base | shards
    with pytest.raises(ModelNotFoundError, match="no weights for its text_encoder"):
        needed_files("x", base | {"unet/diffusion_pytorch_model.safetensors"}, SD)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_gets_all_of_its_parts_and_no_more(family):
    parts = {f"{part}/{stem_of(part)}.safetensors" for part in family.parts}
    parts |= {f"{part}/config.json" for part in family.parts}
    words = {f"{part}/vocab.json".replace("text_encoder", "tokenizer") for part in family.parts if "text" in part}
    small = {"model_index.json", "scheduler/scheduler_config.json"}
    other = {"safety_checker/model.safetensors", "vae_1_0/diffusion_pytorch_model.safetensors", "text_encoder_9/x"}
    index = {"_class_name": family.pipelines[0]}
    assert needed_files("x", parts | words | small | other, index) == parts | words | small
    for part in family.parts:
        fewer = {file for file in parts if not file.startswith(f"{part}/")}
        if part in family.optional:
            assert needed_files("x", fewer | small, {**index, part: [None, None]}) == fewer | small
            continue
        with pytest.raises(ModelNotFoundError, match=f"no weights for its {part};"):
            needed_files("x", fewer | small, index)
        with pytest.raises(CheckpointError, match=f"has no {part}, which {family.name} needs"):
            needed_files("x", fewer | small, {**index, part: [None, None]})


def test_a_refiner_and_unknown_families_are_refused_before_anything_large_is_fetched(quick, hub, published):
    for name, index in [
        ("refiner", {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]}),
        ("sana", {"_class_name": "SanaPipeline"}),
    ]:
        shutil.copytree(hub.root / published, hub.root / "some" / name)
        (hub.root / "some" / name / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="some/refiner has no text_encoder, which Stable Diffusion XL needs"):
        load_model("some/refiner")
    with pytest.raises(CheckpointError, match="some/sana is made for SanaPipeline; Segue reads Stable Diffusion, "):
        load_model("some/sana")
    assert not [path for path in hub.asked if path.endswith(".safetensors")]


def test_xl_is_fetched_with_both_of_its_encoders(hub, tmp_path):
    folder = write_xl(hub.root / "some" / "xl")
    assert load_model("some/xl").fingerprint == load_model(folder).fingerprint
    fetched = {path.split("/resolve/")[1].split("/", 1)[1] for path in hub.asked if "/resolve/" in path}
    assert {"text_encoder_2/model.safetensors", "tokenizer_2/merges.txt"} <= fetched


def test_the_names_of_repositories():
    assert parse_repository("some/model") == Repository("some/model")
    assert parse_repository("some/model@v1.0") == Repository("some/model", "v1.0")
    assert parse_repository("some/model/a/b.safetensors") == Repository("some/model", None, "a/b.safetensors")
    for name in ("model", "./some/model", "~/some/model", "/some/model", "folder/x.safetensors", "a/b/c"):
        assert parse_repository(name) is None


def test_a_forecast_fetches_configurations_alone(hub, published, folder):
    found = skeleton(published, torch.float32)
    fetched = {path.split("/resolve/")[1].split("/", 1)[1] for path in hub.asked if "/resolve/" in path}
    assert "unet/config.json" in fetched
    assert not [name for name in fetched if name.endswith((".safetensors", ".bin"))]
    assert found.call(2, (64, 64)) == skeleton(folder, torch.float32).call(2, (64, 64))
    close(hub)
    assert skeleton(published, torch.float32).size == found.size
    with pytest.raises(ModelAccessError):
        skeleton("some/other", torch.float32)
    with pytest.raises(ModelNotFoundError, match="is not on this machine"):
        skeleton("some/model/whole.safetensors", torch.float32)
