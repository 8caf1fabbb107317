"""`segue evaluate`: numbers that are explained, of any kind of film, and one line where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cli.conftest import Run, interrupted
from footage import moving, real_clip
from models.perceptual.tiny_clip import WIDTH, write_clip
from segue.evaluation import distances, judge_file, report
from segue.evaluation.judge_file import write_judge
from segue.evaluation.recognition import Judge
from segue.media import Clip, TensorFrames, read
from toy import RmsDistance


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No perceptual network is here."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SEGUE_CACHE", str(folder))
    return folder


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return Clip(TensorFrames(moving(10)), 20).save(tmp_path / "film.mp4", crf=10)


NAMES = {
    "path length",
    "step variance",
    "evenness",
    "largest step",
    "directness",
    "ghosting",
    "worst ghosting",
    "mix",
    "sag",
    "motion",
    "peak motion",
    "flicker",
    "brightness flicker",
    "loop ratio",
    "warp error",
    "warp error at 8",
    "warp error to the first",
    "Pixel-MSE",
    "steadiness",
    "motion smoothness",
    "dynamic degree",
    "drift from start",
    "worst seam",
    "sharpness",
    "colourfulness",
}
AGAINST_A_SOURCE = {
    "sharpness kept",
    "finest kept",
    "detail shared",
    "PSNR",
    "SSIM",
    "distance",
    "colour drift",
    "structure drift",
}
WIDEST = len("warp error to the first")


def table(out: str) -> dict[str, list[str]]:
    """The lines of a report by the names of numbers: value, direction and meaning."""
    lines = out.splitlines()
    rows = [line for line in lines[lines.index("") + 2 :] if line[:WIDEST].strip()]
    return {line[:WIDEST].strip(): line[WIDEST:].split(maxsplit=1) for line in rows}


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_every_number_is_explained(run: Run, film: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    answer = run("evaluate", film)
    assert answer.code == 0
    about, *lines = answer.out.splitlines()
    assert about == f"{film}  96x64, 10 frames at 20 per second"
    assert all(len(line) <= columns for line in lines)
    said = table(answer.out)
    assert set(said) == NAMES
    for value, meaning in said.values():
        assert value == "none" or float(value) >= 0
        assert meaning.startswith(("lower ", "higher ", "near 1 ", "neither "))


def test_movement_is_held_against_a_caption(run: Run, tmp_path: Path) -> None:
    frames = torch.full((8, 3, 48, 64), 220, dtype=torch.uint8)
    for number in range(8):
        frames[number, 0, 16:32, 8 + 4 * number : 24 + 4 * number] = 40
    film = Clip(TensorFrames(frames), 8).save(tmp_path / "film.apng")
    right = run("evaluate", film, "--caption", "a square that slides to the right")
    assert right.code == 0, right.err
    assert "segue: following the thing" in right.err
    assert float(table(right.out)["motion match"][0]) == 1
    assert "slide right; seen: slide right" in " ".join(right.out.split())
    left = run("evaluate", film, "--caption", "a square moving to the left", "--json").json["motion"]
    assert (left["asked"], left["seen"], left["matches"]) == (["slide left"], "slide right", False)
    assert left["shift"][0] == pytest.approx(28 / 64, abs=0.05)
    silent = run("evaluate", film, "--caption", "a square")
    assert table(silent.out)["motion match"][0] == "none" and "nothing of movement" in " ".join(silent.out.split())
    refused = run("evaluate", film, "--caption", " ")
    assert refused.code == 2 and "--caption must be words" in refused.err


def test_the_distance_is_named_and_so_is_what_is_missing(run: Run, film: Path) -> None:
    answer = run("evaluate", film)
    assert "A step is the root mean square pixel difference between neighbouring frames" in answer.out
    *stages, note = answer.err.splitlines()
    said = ["measuring steps", "looking for ghosts", "following movement", "warping", "measuring sharpness"]
    said += ["looking for drift", "foretelling frames", "looking at colours"]
    assert stages == [f"segue: {stage}" for stage in said]
    assert note.startswith("segue: no perceptual network is here")
    assert "segue models --fetch lpips-alex" in note
    assert run("evaluate", film, "--json").json["smoothness"]["distance"] == "root mean square pixel difference"


@pytest.mark.parametrize(
    ("here", "chosen"),
    [
        (["efficientnet-lite0", "lpips-alex", "lpips-vgg"], "Lpips alex"),
        (["efficientnet-lite0", "lpips-vgg"], "EfficientNetDistance"),
        (["lpips-vgg"], "pixels"),
    ],
)
def test_the_best_network_that_is_here_is_taken(
    here: list[str], chosen: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "perceptual").mkdir()
    for name in here:
        (cache / "perceptual" / f"{name}.safetensors").touch()

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self, *arguments: str) -> RmsDistance:
            return RmsDistance(" ".join([self.name, *arguments]), "frames")

    for name in ("Lpips", "EfficientNetDistance"):
        monkeypatch.setattr(distances.perceptual, name, Named(name), raising=False)
    found = distances.best_distance()
    assert found.name == (chosen if chosen != "pixels" else distances.PixelDistance().name)
    assert found.domain == "frames"


def test_machines_get_all_of_it(run: Run, film: Path) -> None:
    found = run("evaluate", film, "--json", "--seam", "3", "--seam", "7").json
    assert (found["path"], found["size"], found["fps"], found["likeness"]) == (str(film), [96, 64], 20.0, None)
    smooth = found["smoothness"]
    assert (smooth["frames"], len(smooth["steps"]), len(smooth["ghosts"])) == (10, 9, 10)
    assert smooth["path_length"] == pytest.approx(sum(smooth["steps"]))
    assert list(smooth["seam_ratios"]) == ["3", "7"]
    assert len(found["notes"]) == 1
    assert "seam at 7" in run("evaluate", film, "--seam", "7").out


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.png", "x.webm", "folder"])
def test_every_kind_of_film_is_read(name: str, run: Run, tmp_path: Path) -> None:
    frames = moving(4)
    if name == "x.png":
        Clip(TensorFrames(frames[:1]), 10).save(tmp_path / name)
        assert "expected a film of 2 frames or more, and x.png has 1" in run("evaluate", name).err
        return
    Clip(TensorFrames(frames), 10).save(tmp_path / name)
    answer = run("evaluate", name, "--json")
    assert (answer.code, answer.json["smoothness"]["frames"]) == (0, 4)


def test_two_frames_are_enough_for_some_numbers(run: Run, tmp_path: Path) -> None:
    Clip(TensorFrames(moving(2)), 10).save(tmp_path / "two.mp4")
    answer = run("evaluate", "two.mp4")
    assert answer.code == 0
    unknown = {name for name, (value, _) in table(answer.out).items() if value == "none"}
    assert unknown >= {"ghosting", "worst ghosting", "mix", "sag", "flicker", "brightness flicker", "warp error at 8"}
    assert not unknown & {"path length", "step variance", "evenness", "largest step", "directness", "loop ratio"}
    assert run("evaluate", "two.mp4", "--json").json["smoothness"]["flicker"] is None


def test_a_film_is_held_against_its_source(run: Run, film: Path, tmp_path: Path) -> None:
    copy = Clip(TensorFrames(moving(10)), 20).save(tmp_path / "copy.mp4", crf=40)
    found = run("evaluate", copy, "--source", film, "--json").json["likeness"]
    assert found["source"] == str(film)
    assert 20 < found["psnr"] < 50
    assert 0.5 < found["ssim"] < 1
    assert found["distance"] == pytest.approx(sum(found["distances"]) / 10)
    assert found["distances"][found["worst"]] == max(found["distances"])
    text = run("evaluate", copy, "--source", film).out
    assert set(table(text)) == NAMES | AGAINST_A_SOURCE
    assert f"against {film.name}" in text
    assert "the source's flow" in " ".join(text.split())
    same = run("evaluate", film, "--source", film, "--json").json["likeness"]
    assert (same["psnr"], same["ssim"], same["distance"]) == (None, pytest.approx(1), 0)


def test_machines_get_what_changes_and_how_sharp_it_is(run: Run, film: Path, tmp_path: Path) -> None:
    copy = Clip(TensorFrames(moving(10)), 20).save(tmp_path / "copy.mp4", crf=40)
    found = run("evaluate", copy, "--source", film, "--column", "32", "--row", "16", "--row", "40", "--json").json
    warped, pixels = found["warp_error"], found["pixel_mse"]
    assert warped["matcher"].startswith("dis-medium-2 alike=False opencv=")
    assert (warped["of_source"], warped["compared_at"]) == (True, [96, 64])
    assert [(span["interval"], len(span["pairs"])) for span in warped["spans"]] == [(1, 9), (8, 1), (None, 3)]
    assert pixels["value"] == warped["spans"][0]["squared"]
    assert 0 < pixels["sharpness"]["kept"]["shared"] < 1
    assert len(pixels["sharpness"]["kept"]["frames"]) == len(found["likeness"]["drift"]["departures"]) == 10
    assert [(seam["axis"], seam["at"]) for seam in found["seams"]] == [("column", 32), ("row", 16), ("row", 40)]
    assert all(seam["source"] > 0 for seam in found["seams"])
    alone = run("evaluate", film, "--json").json
    assert not alone["warp_error"]["of_source"]
    assert alone["pixel_mse"]["sharpness"]["kept"] is None


def test_pixel_mse_is_never_told_without_sharpness(run: Run, film: Path) -> None:
    for arguments in ([], ["--source", film]):
        names = [*table(run("evaluate", film, *arguments).out)]
        assert names[names.index("Pixel-MSE") + 1] == "sharpness"
        assert ("sharpness kept" in names) == bool(arguments)


def test_lines_where_parts_meet_are_told(run: Run, tmp_path: Path) -> None:
    frames = moving(4).clone()
    frames[..., 40:] = (frames[..., 40:] // 2) + 100
    tiled = Clip(TensorFrames(frames), 10).save(tmp_path / "tiled.mp4", crf=5)
    found = table(run("evaluate", tiled, "--column", "40", "--column", "70").out)
    assert float(found["seam at column 40"][0]) > 3 * float(found["seam at column 70"][0])


@pytest.mark.parametrize("wrong", [["--column", "20", "--column", "95"], ["--row", "9", "--row", "9"]])
def test_lines_are_checked_before_anything_is_measured(wrong: list[str], run: Run, film: Path) -> None:
    answer = run("evaluate", film, "--source", film, *wrong)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()  # stages would be said
    assert "got 95" in line or "row 9 is given twice" in line


def test_pairs_that_a_short_film_lacks_are_said_to_be_lacking(run: Run, film: Path, tmp_path: Path) -> None:
    for count, lacks in ((8, True), (9, False)):
        clip = Clip(TensorFrames(moving(count)), 10).save(tmp_path / f"{count}.mp4")
        said = " ".join(run("evaluate", clip).out.split())
        assert ("in 8 frames along its own flow; the film has no frames so far apart" in said) == lacks
        assert " 0% is followed" not in said


def test_a_source_of_another_rate_is_told(run: Run, film: Path, tmp_path: Path) -> None:
    slow = Clip(TensorFrames(moving(10)), 12.5).save(tmp_path / "slow.mp4", crf=10)
    note = "film.mp4 plays at 20 frames a second and slow.mp4 plays at 12.5: frames are compared one for one"
    answer = run("evaluate", "film.mp4", "--source", "slow.mp4", "--json")
    assert note in answer.err
    assert note in answer.json["notes"]
    assert slow.exists()
    assert "a second" not in run("evaluate", film, "--source", film).err


def test_two_frames_have_a_source_and_no_drift(run: Run, tmp_path: Path) -> None:
    two = Clip(TensorFrames(moving(2)), 10).save(tmp_path / "two.mp4")
    found = run("evaluate", two, "--source", two, "--json").json
    assert found["likeness"]["drift"] is None
    assert found["warp_error"]["spans"][1]["absolute"] is None


def test_the_psnr_of_a_film_is_of_its_mean_error(tmp_path: Path) -> None:
    """One frame that is equal must not hide the others."""
    frames = TensorFrames(moving(4))
    changed = frames.pixels.clone()
    changed[1:] = changed[1:] // 2
    error = float((frames[0:4] - TensorFrames(changed)[0:4]).double().square().mean())
    found = report.likeness_of(TensorFrames(changed), frames, tmp_path, distances.PixelDistance())
    assert found.psnr == pytest.approx(-10 * torch.tensor(error).log10().item(), rel=1e-5)
    assert found.distances[0] == 0


def other_size(frames: Tensor) -> Tensor:
    return frames[..., :48]


def shorter(frames: Tensor) -> Tensor:
    return frames[:7]


@pytest.mark.parametrize(("change", "expected"), [(other_size, "has 48x64"), (shorter, "has 10 frames")])
def test_a_source_that_is_no_match(
    change: Callable[[Tensor], Tensor], expected: str, run: Run, film: Path, tmp_path: Path
) -> None:
    other = Clip(TensorFrames(change(moving(10)).contiguous()), 20).save(tmp_path / "other.mp4")
    answer = run("evaluate", film, "--source", other)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert "pixel by pixel" in line
    assert expected in line


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ([], 2, "VIDEO is missing"),
        (["nope.mp4"], 1, "there is no such file"),
        (["garbage.mp4"], 1, "cannot read garbage.mp4"),
        (["empty"], 1, "there are no pictures in this folder"),
        (["film.mp4", "--source", "nope.mp4"], 1, "there is no such file"),
        (["film.mp4", "--seam", "10"], 2, "a seam is one of the frames 0 to 9, got 10"),
        (["film.mp4", "--seam", "x"], 2, "for --seam: expected a whole number"),
        (["film.mp4", "--column", "95"], 2, "at a column from 2 to 94, as there are 96, got 95"),
        (["film.mp4", "--row", "1"], 2, "at a row from 2 to 62"),
        (["film.mp4", "--says", "a cat"], 2, "unknown option"),
        (["tiny.gif"], 2, "both sides must be 32 or more"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], code: int, expected: str, run: Run, film: Path, tmp_path: Path
) -> None:
    (tmp_path / "garbage.mp4").write_bytes(b"\xff" * 5000)
    (tmp_path / "empty").mkdir()
    Clip(TensorFrames(moving(3, (32, 16))), 10).save(tmp_path / "tiny.gif")
    answer = run("evaluate", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert "Traceback" not in answer.err
    assert expected.lower() in answer.err.splitlines()[-1].lower()


def test_it_can_be_interrupted(film: Path, tmp_path: Path) -> None:
    long = Clip(TensorFrames(moving(400)), 20).save(tmp_path / "long.mp4")
    code, out, err = interrupted(["evaluate", str(long)], tmp_path, "measuring steps")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "segue: interrupted; nothing was written"


def test_real_footage(run: Run, tmp_path: Path) -> None:
    start = read(real_clip("wolf.mp4")).cut(0, 16).save(tmp_path / "start.mp4", crf=5)
    report = run("evaluate", start, "--json").json
    found = report["smoothness"]
    assert found["frames"] == 16
    assert found["brightness_flicker"] < 0.002
    assert 0 < report["pixel_mse"]["value"] < 0.001
    assert 0 < report["warp_error"]["spans"][0]["absolute"] < report["warp_error"]["spans"][1]["absolute"] < 0.03
    assert found["worst_ghosting"] < 0.1
    assert found["flicker"] < 0.01
    assert found["motion"] > 0.001


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


def test_prompts_looks_and_sets_are_told_by_the_clip_that_is_given(
    run: Run, film: Path, clip_model: Path, tmp_path: Path
) -> None:
    save_file({"weight": torch.full((1, WIDTH), 0.5), "bias": torch.tensor([4.0])}, tmp_path / "head.safetensors")
    other = Clip(TensorFrames(moving(6)), 20).save(tmp_path / "other.mp4", crf=10)
    asked = ["--prompt", "a red apple", "--source-prompt", "a cat", "--clip-model", clip_model]
    asked += ["--aesthetic", tmp_path / "head.safetensors", "--against", other]
    answer = run("evaluate", film, *asked)
    assert answer.code == 0, answer.err
    said = {name: " ".join(" ".join(cells).split()) for name, cells in table(answer.out).items()}
    new = {"CLIP score", "consistency", "edited frames", "Fréchet distance", "aesthetic score"}
    assert set(said) == NAMES | new
    whole = " ".join(answer.out.split())
    assert whole.count("CLIP tiny (") == 4 and "FID" not in whole
    found = run("evaluate", film, *asked, "--json").json["answers"]
    assert found["against"]["distance"]["pictures"] == [6, 6]
    assert found["looks"]["head"].startswith("head (")
    assert len(found["prompt"]["frames"]) == 10
    assert found["prompt"]["score"] == pytest.approx(sum(found["prompt"]["frames"]) / 10)


def test_a_judge_of_a_corpus_is_named_for_what_it_is(
    run: Run, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = Means()
    heads = (torch.zeros(6), torch.ones(6), torch.randn(2, 7, generator=generator), torch.zeros(1, 7))
    write_judge(Judge(features, ("apple", "cat face"), ("flat",), *heads), tmp_path / "judge.safetensors")
    monkeypatch.setattr(judge_file, "EfficientNetFeatures", Loaded())
    asked = ["--prompt", "line art of a cat", "--judge", tmp_path / "judge.safetensors"]
    answer = run("evaluate", film, *asked)
    assert answer.code == 0, answer.err
    assert "corpus classifier of 2 nouns" in " ".join(answer.out.split())
    assert "CLIP" not in answer.out
    assert 0 < float(table(answer.out)["noun probability"][0]) < 1
    refused = run("evaluate", film, "--prompt", "a boat", *asked[2:])
    assert (refused.code, refused.out) == (2, "")
    assert "names none of the 2 things that the corpus classifier knows" in refused.err


def test_what_was_repaired_is_held_against_what_it_was(run: Run, film: Path, tmp_path: Path) -> None:
    worse = Clip(TensorFrames(moving(10)), 20).save(tmp_path / "worse.mp4", crf=45)
    better = Clip(TensorFrames(moving(10)), 20).save(tmp_path / "better.mp4", crf=28)
    found = run("evaluate", better, "--source", film, "--before", worse, "--json").json
    assert found["before"]["psnr"] < found["likeness"]["psnr"]
    assert found["before"]["distance"] > found["likeness"]["distance"]
    named = table(run("evaluate", better, "--source", film, "--before", worse).out)
    assert {"PSNR before", "SSIM before", "distance before"} <= set(named)
    short = Clip(TensorFrames(moving(9)), 20).save(tmp_path / "short.mp4")
    assert "short.mp4 has 9;" in run("evaluate", better, "--source", film, "--before", short).err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--prompt", "a cat"], "--prompt is scored by --clip-model or by --judge"),
        (["--prompt", "a cat", "--clip-model", "x", "--judge", "y"], "both score prompts"),
        (["--source-prompt", "a cat"], "--source-prompt is compared with --prompt"),
        (["--judge", "y"], "--judge scores --prompt"),
        (["--aesthetic", "y"], "--aesthetic is a head on the features of --clip-model"),
        (["--clip-model", "x"], "--clip-model is for --prompt"),
        (["--before", "film.mp4"], "--before is held against --source"),
        (["--prompt", "a cat", "--judge", "nowhere.safetensors"], "there is no file nowhere.safetensors"),
        (["--prompt", "a cat", "--clip-model", "nowhere"], "there is no CLIP at nowhere"),
        (["--against", "film.mp4"], "segue models --fetch efficientnet-lite0"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused_first(asked: list[str], said: str, run: Run, film: Path) -> None:
    answer = run("evaluate", film, *asked)
    assert answer.code in (1, 2)
    (line,) = [line for line in answer.err.splitlines() if "no perceptual network" not in line]  # stages would be said
    assert said in line


class Means:
    """The means of the colours at the left and at the right."""

    name = "efficientnet-lite0 stage statistics (64 px)"

    def __call__(self, pictures: Tensor) -> Tensor:
        half = pictures.shape[3] // 2
        return torch.cat([pictures[..., :half].mean((2, 3)), pictures[..., half:].mean((2, 3))], 1)


class Loaded:
    def load(self, *, side: int) -> Means:
        assert side == 64
        return Means()


def test_an_edit_is_held_against_its_source(run: Run, tmp_path: Path) -> None:
    frames = moving(1)
    changed, mask = frames.clone(), frames * 0
    changed[..., :16, :16], mask[..., :16, :16] = 255 - changed[..., :16, :16], 255
    for name, pictures in (("a.png", frames), ("b.png", changed), ("m.png", mask)):
        Clip(TensorFrames(pictures), 1).save(tmp_path / name)
    found = run("evaluate", "b.png", "--source", "a.png", "--mask", "m.png", "--json").json["edited"]
    assert found["outside"] == 0 and found["outside_psnr"] is None and found["inside"] > 10
    text = run("evaluate", "b.png", "--source", "a.png").out
    assert "PSNR" in text and "kept outside" not in text
    assert "give that, too (--source)" in run("evaluate", "b.png", "--mask", "m.png").err
