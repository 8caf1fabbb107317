"""The benchmarks run, and what they count is exact."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from benchmarked import BENCHMARKS, benchmark, run
from models.tiny import write_model
from models.tiny_upscaler import write_upscaler

SHORT = ["--frames", "4", "--repeat", "1", "--json"]


def test_a_tree_by_levels_takes_fewer_calls_for_the_same_rows() -> None:
    small = ["--branches", "3", "--steps", "5", "--depth", "0.4", "--batch", "4", "--json"]
    table = json.loads(run("batching", *small))
    single, levels = table["branch_by_branch"], table["by_levels"]
    assert table["frames"] == 5
    assert table["every_frame_alone_calls"] == 25
    # Two keys of 5 steps, one branch from step 2 on and two from step 3 on; each row is evaluated with both prompts,
    # but for the first two steps of the keys, in which the model has no guidance.
    assert single["calls"] == 2 * 5 + 3 + 2 * 2
    assert levels["calls"] == 5 + 3 + 2
    assert single["rows"] == levels["rows"] == 2 * single["calls"] - 2 * 2


def test_the_embedded_model_is_there_sooner_than_the_libraries_that_it_needs() -> None:
    """In a process of its own, which imports them anew. A machine that is busy is so for both."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "load.py"), "--repeat", "3", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    parts = json.loads(done.stdout)
    assert parts["import torch"] > 0
    imported = sum(took for name, took in parts.items() if name.startswith("import "))
    assert 0 < parts["segue.load, quickest"] < imported / 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 64 pixels, which is drawn with in three steps."""
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny", vae="tiny", length=24)
    card = 'name = "tiny"\nsummary = "Noise"\nlicence = "MIT"\n[defaults]\nsteps = 3\n'
    (folder / "card.toml").write_text(card, "utf-8")
    return folder


def test_a_picture_and_a_film_are_timed_as_a_user_makes_them(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that does not come with this installation is passed over in a line."""
    with benchmark("speed", *SHORT) as speed:
        speed.MODELS = (str(tiny), "nothing")
        speed.main()
    said = capsys.readouterr()
    assert said.err == "nothing is passed over: it does not come with this installation\n"
    (table,) = json.loads(said.out)
    picture, film = table["picture"], table["film"]
    assert (picture["frames"], picture["calls"], picture["rows"]) == (1, table["steps"], 2 * table["steps"])
    assert (film["frames"], film["native"]) == (4, 4)
    assert 2 * picture["rows"] < film["rows"] <= 4 * picture["rows"]
    assert min(film[part] for part in ("draw", "decode", "write")) > 0


@pytest.mark.parametrize(
    ("size", "reference", "ours"),
    [
        # 4 steps, 10 branches: each is begun at step 2, and its first call thrown away.
        ("sdxl-turbo", (2 * 4 + 10 * 2, 28, 10), (4 + 1, 18, 0)),
        # 30 steps with guidance, 13 branches on 5 levels: 4, 3, 3, 2 and 1 that run 15, 12, 9, 6 and 3 steps.
        ("sd15", (2 * 30 + 60 + 36 + 27 + 12 + 3, 2 * 198, 0), (30 + 15 + 12 + 9 + 6 + 3, 2 * 198, 0)),
    ],
)
def test_the_reference_is_counted_as_its_authors_run_it(
    size: str, reference: tuple[int, int, int], ours: tuple[int, int, int]
) -> None:
    """Nothing is computed; the sizes are those of the real models."""
    table = json.loads(run("speed", "--size", size, "--count", "--json"))
    assert table["parameters"] == {"sdxl-turbo": 2_567_463_684, "sd15": 859_520_964}[size]
    for name, expected in (("reference", reference), ("segue", ours)):
        counted = table[name]
        assert (counted["calls"], counted["rows"], counted["unused"]) == expected
        assert counted["decoded"] == counted["pictures"] == table["branches"] + 2, "no picture is decoded twice"
    assert "times_faster" not in table


def test_a_lever_repeats_the_film_of_the_first(tiny: Path) -> None:
    table = json.loads(run("speed", "--levers", "--model", tiny, "--frames", "6", "--repeat", "1", "--json"))
    found = {row["name"]: row for row in table["levers"]}
    before, now = found["before"], found["default now"]
    assert before["psnr"] is None
    assert len({(row["native"], row["rows"]) for row in found.values()}) == 1
    assert now["decoded"] < before["decoded"], "each picture once, where it was twice"
    assert found["decoded once"]["psnr"] > 60 and now["psnr"] > 60
    assert 20 < found["bfloat16, channels last"]["psnr"] < now["psnr"]
    assert all(min(row["draw"], row["decode"]) > 0 for row in found.values())


def test_transitions_are_drawn_a_row_each(tiny: Path, tmp_path: Path) -> None:
    run("sheets", "--model", tiny, "--transitions", "--first", "2", "-o", tmp_path / "sheets")
    with Image.open(tmp_path / "sheets" / "transitions.png") as sheet:
        assert sheet.size == (12 * 64, 2 * 64)


@pytest.mark.parametrize(
    ("bench", "ways"), [("structure", ["whole", "one-early-all"]), ("texts", ["early-lengths", "film-tokens"])]
)
def test_ways_of_aligning_keys_and_mixing_texts_are_drawn_a_row_each(
    bench: str, ways: list[str], tiny: Path, tmp_path: Path
) -> None:
    run(bench, "--model", tiny, "--pairs", "1", "--sheet", *ways, "-o", tmp_path)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (17 * 64, 2 * 64)


def test_ways_of_agreeing_inside_the_loop_are_measured_once(tiny: Path, tmp_path: Path) -> None:
    asked = ["--model", tiny, "--cases", "1", "--frames", "10", "-o", tmp_path, "--ways"]
    said = [run("inloop", *asked, *["shared", "inside", "after"][:n]) for n in (1, 3)]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["way"] for row in rows] == ["shared", "inside", "after"], "the second run went on where the first ended"
    assert rows[0]["moved"] == 0
    assert rows[2]["moved"] > 0
    assert "".join(said).count("inside") == 1


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Discs of different sizes and colours, under the names of things, in the middle and beside it."""
    folder, lines, pictures = tmp_path / "corpus", list[dict[str, object]](), list[np.ndarray]()
    y, x = np.mgrid[0:128, 0:128] / 63.5 - 1
    for number, noun in enumerate(("apple", "car", "octopus", "star")):
        for style in ("3d", "flat", "line art"):
            for dx in (0.0, 0.0, 0.0, 0.1, -0.1, 0.2):
                inside = ((x - 2 * dx) ** 2 + y**2 < 0.1 + 0.1 * number)[..., None]
                pictures.append(np.where(inside, (200 - 60 * number, 30, 60 * number), 255).astype(np.uint8))
                placement = {"scale": 0.9, "dx": dx, "dy": 0.0, "angle": 0.0, "flip": False}
                known = {"concept": noun, "noun": noun, "colour": "red", "background": "white", "style": style}
                lines.append({**known, "placement": placement, "weight": 1.0, "captions": [noun]})
    folder.mkdir()
    np.save(folder / "pictures.npy", np.stack(pictures))
    (folder / "manifest.jsonl").write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    (folder / "sources.json").write_text('{"pictures_sha256": "of this test"}', "utf-8")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where weights of perceptual nets are looked for; none is there."""
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "perceptual"


def untrained(cache: Path) -> None:
    """The features that judges are made of, from random weights."""
    from segue.models.perceptual import EfficientNetFeatures

    cache.mkdir(parents=True)
    save_file(EfficientNetFeatures().state_dict(), cache / "efficientnet-lite0.safetensors")


@pytest.mark.usefixtures("cache")
def test_models_are_measured_as_far_as_it_goes_without_downloaded_weights(corpus: Path) -> None:
    table = json.loads(run("models", "--quick", "--json", "--held-out", corpus, "--judge-corpus", corpus))
    assert "segue models --fetch efficientnet-lite0" in table["missing"]
    assert "\n" not in table["missing"]
    (found,) = table["models"].values()
    assert 15 < found["codec"]["psnr"] < 60
    by_style = found["codec"]["psnr_by_style"].values()
    assert min(by_style) <= found["codec"]["psnr"] <= max(by_style)
    assert found["codec"]["distances"] == {}
    assert "judge" not in table
    assert "nouns" not in found


def test_models_are_judged_by_what_their_pictures_show(cache: Path, corpus: Path) -> None:
    """On random weights, which cannot see much: that all is measured, and within its bounds."""
    untrained(cache)
    table = json.loads(run("models", "--quick", "--json", "--judge-corpus", corpus))
    assert table["judge"]["nouns"] == 4
    assert set(table["judge"]["renders"]) == {"3d", "flat", "line art"}
    (found,) = table["models"].values()
    assert found["nouns"]["pictures"] == 4
    assert found["nouns"]["top1"] <= found["nouns"]["top5"] <= 1
    assert found["combinations"]["combinations"] > 0
    assert found["combinations"]["both"] <= min(found["combinations"]["noun"], found["combinations"]["colour"])
    assert (found["nouns"]["nouns"], found["nouns"]["of"], found["nouns"]["not_asked"]) == (4, 4, [])
    assert set(found["styles"]) == {"3d", "flat", "gradient", "line art"}
    assert found["frechet"]["distance"] > 0
    assert found["diversity"]["within"] > 0
    kept = list(corpus.glob("judge-*.safetensors"))
    assert len(kept) == 1, "the judge is kept beside its corpus"


def test_upscalers_are_held_against_plain_enlargement(tmp_path: Path, corpus: Path) -> None:
    model = write_upscaler(tmp_path / "x4", vae="tiny")
    few = ["--steps", "1", "2", "--count", "3", "--shown", "2"]
    said = run("upscaling", corpus, "--model", model, *few, "-o", tmp_path)
    assert "1 steps" in said and "PSNR" in said
    table = json.loads((tmp_path / f"{corpus.name}.json").read_text("utf-8"))
    every = table["all"]["ways"]
    assert set(every) == {"bicubic", "Lanczos", "1 steps", "2 steps", "2 steps, pixels", "codec"}
    assert table["all"]["pictures"] == 3
    assert every["bicubic"]["PSNR"][2:] == [0, 0], "the difference to itself"
    assert every["2 steps"]["PSNR"][2] < 0, "random weights"
    assert every["2 steps, pixels"]["PSNR"][0] > every["2 steps"]["PSNR"][0], "means are put right"
    with Image.open(tmp_path / f"{corpus.name}.png") as image:
        assert image.width == 2 * 7 * 128


def test_a_small_decoder_that_is_the_own_one_changes_nothing(tiny: Path, tmp_path: Path, corpus: Path) -> None:
    few = ["--preview", tiny / "vae", "--count", "4", "--films", "1", "--frames", "6"]
    said = run("preview", corpus, "--model", tiny, *few, "-o", tmp_path / "sheet.png")
    first, own, small, _, film = said.splitlines()
    assert first == "4 pictures   to own 100.00 dB", "as near as is told apart"
    assert own.split()[1:3] == small.split()[1:3]
    assert film.startswith("a lion to a tiger") and film.split()[-1] == "0.00"
    assert (tmp_path / "sheet.png").is_file()


def test_depth_is_swept_where_it_stopped_and_drawn(tmp_path: Path) -> None:
    asked = ["--pairs", "2", "--steps", "4", "--model", "emoji-fast"]
    asked += ["-o", str(tmp_path), "--plot", str(tmp_path / "depth.svg")]
    few: dict[str, Any] = {"DEPTHS": (0.1, 0.4, 0.95), "FRAMES": 5}
    run("depth", *asked, **few)
    first = (tmp_path / "rows.jsonl").read_text("utf-8")
    said = run("depth", *asked, **few)
    assert (tmp_path / "rows.jsonl").read_text("utf-8") == first
    assert len(first.splitlines()) == 2 * (3 + 1), "three depths, and the one that previews choose"
    means = [json.loads(line) for line in said.splitlines() if line.startswith('{"depth"')]
    assert [row["depth"] for row in means] == [0.1, 0.4, 0.95, "auto"]
    assert means[0]["novelty"] > means[-2]["novelty"]
    assert "ghosting: auto - 0.4 =" in said
    assert (tmp_path / "depth.svg").read_text("utf-8").count("<polyline") == 3


def test_methods_are_compared_on_the_same_keys_within_a_budget_and_go_on(
    tiny: Path, corpus: Path, cache: Path, tmp_path: Path
) -> None:
    untrained(cache)
    out = tmp_path / "out"
    asked = ["--model", tiny, "--corpus", corpus, "-o", out, "--pairs"]
    said = "".join(run("transition", *asked, pairs) for pairs in "12")
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]
    assert {row["number"] for row in rows[:10]} == {0}, "the second run went on where the first ended"
    assert len({(row["number"], row["method"], row["table"]) for row in rows}) == len(rows) == 2 * 5 * 2
    for row in rows:
        if row["table"] == "rows":
            assert row["budget"] == 17 * 3 * 2
            assert row["rows"] <= row["budget"], f"{row['method']} took more than it was given"
    taken = {row["method"]: (row["native"], row["rows"]) for row in rows[:5]}
    assert taken["cross-fade"] == (2, 2 * 3 * 2)
    assert taken["walk"] == (17, 17 * 3 * 2)
    films = [np.asarray(Image.open(out / "films" / f"{row['film']}.png")).astype(int) for row in rows[:5]]
    for film in films[1:]:
        assert np.abs(film[:, :64] - films[0][:, :64]).max() <= 2
        assert np.abs(film[:, -64:] - films[0][:, -64:]).max() <= 2
    assert sum(said.count(f": {verdict}.") for verdict in ("holds", "not shown", "DOES NOT HOLD")) == 2 * 5 + 2 * 3
    assert said.count("fidelity") >= 2 * 3
