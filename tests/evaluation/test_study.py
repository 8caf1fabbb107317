"""A study: the page is blind and alone, its own code works, and answers are counted without being believed."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from footage import moving
from segue.errors import RecordError, TaskError
from segue.evaluation import study_page
from segue.evaluation.study import QUESTIONS, Film, Key, Trial, find_films, plan, read_key
from segue.evaluation.study_answers import CHOICES, attention, read_answers, result
from segue.evaluation.study_page import SCRIPT, STYLE, write_page
from segue.media import Clip, TensorFrames, read

Choose = Callable[[Trial], str]
METHODS = ("alpha-net", "betamax", "gammaray")
NASTY = "</script><script>alert(1)</script> & \"cats\" <!-- 'dogs'"


def write_films(folder: Path, films: int = 2, prompt: str = NASTY) -> Path:
    for i in range(films):
        for number, method in enumerate(METHODS):
            frames = moving(3, (32, 32)).roll(9 * number + 5 * i, 3)
            Clip(TensorFrames(frames), 10).save(folder / f"film{i}" / f"{method}.mp4")
    (folder / "film0" / "prompt.txt").write_text(prompt, "utf-8")
    Clip(TensorFrames(moving(5, (32, 32))), 10).save(folder / "film0" / "source.mp4")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    for i in range(2):
        (root / f"film{i}").mkdir()
    return write_films(root)


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Key]:
    page = tmp_path_factory.mktemp("page") / "study.html"
    key_path, key = write_page(find_films(folder), page, seed=3)
    assert read_key(key_path) == key
    assert sorted(path.name for path in page.parent.iterdir()) == ["study.html", "study.key.json"]
    return page.read_text("utf-8"), key


def test_the_page_is_blind(made: tuple[str, Key]) -> None:
    page, _ = made
    for word in (*METHODS, "film0", "film1", "source.mp4"):
        assert word not in page
    films = re.findall(r'id="film-(\d+)">([A-Za-z0-9+/=]+)<', page)
    assert [int(number) for number, _ in films] == list(range(7))
    for _, film in films:
        content = base64.b64decode(film)
        assert content[4:8] == b"ftyp"
        assert not any(method.encode() in content for method in METHODS)


def test_the_page_asks_no_network_for_anything(made: tuple[str, Key]) -> None:
    page, _ = made
    assert "default-src &#x27;none&#x27;" in page
    for inside in (SCRIPT, STYLE):
        assert base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() in page
    without_films = re.sub(r'id="film-\d+">[^<]+<', "<", page)
    assert not re.findall(r"(?:https?:)?//[\w.]+\.|\bsrc=|\bhref=|@import|url\(|\bon\w+=", without_films)


def test_words_from_outside_are_only_text(made: tuple[str, Key]) -> None:
    page, _ = made
    assert "alert(1)</script>" not in page
    assert page.count("<script") == 9  # seven films, what is shown, and the code
    data = json.loads(re.findall(r'id="study">(.*?)</script>', page, re.S)[0])
    assert {trial["prompt"] for trial in data["trials"]} == {" ".join(NASTY.split()), ""}
    assert "innerHTML" not in page and "eval(" not in page


def test_who_is_who_is_in_the_key_alone(made: tuple[str, Key], folder: Path) -> None:
    page, key = made
    data = json.loads(re.findall(r'id="study">(.*?)</script>', page, re.S)[0])
    films = {int(n): base64.b64decode(film) for n, film in re.findall(r'id="film-(\d+)">([A-Za-z0-9+/=]+)<', page)}
    for trial, shown in zip(key.trials, data["trials"], strict=True):
        for side in ("left", "right"):
            place = folder / key.films[trial.film] / f"{key.methods[getattr(trial, side)]}.mp4"
            assert films[shown[side]] == study_page.as_mp4(read(place))
        assert (shown["source"] is None) == (key.films[trial.film] == "film1")
    assert data["id"] == key.id
    assert set(data) == {"id", "questions", "trials"}
    assert key.asked == (("consistency", "text", "looks"), ("consistency", "looks"))


def test_pages_repeat_and_seeds_differ(made: tuple[str, Key], folder: Path, tmp_path: Path) -> None:
    page, key = made
    same, other = tmp_path / "a.html", tmp_path / "b.html"
    write_page(find_films(folder), same, seed=3)
    _, another = write_page(find_films(folder), other, seed=4)
    assert same.read_text("utf-8") == page
    assert another.id != key.id
    assert another.trials != key.trials


def named(count: int) -> list[Film]:
    return [Film(f"film {i}", "", None, dict.fromkeys("abcd", Path())) for i in range(count)]


def test_sides_and_pairs_are_balanced_and_some_come_twice() -> None:
    methods, trials = plan(named(10), 1)
    fresh = [trial for trial in trials if trial.repeats is None]
    assert len(fresh) == 10 * 6 and len(trials) == 67
    assert len({(trial.film, *sorted((trial.left, trial.right))) for trial in fresh}) == 60
    for a in range(4):
        for b in range(a + 1, 4):
            sides = Counter(t.left for t in fresh if {t.left, t.right} == {a, b})
            assert sides == {a: 5, b: 5}
    for number, trial in enumerate(trials):
        if trial.repeats is not None:
            first = trials[trial.repeats]
            assert (first.film, first.left, first.right) == (trial.film, trial.right, trial.left)
            assert number - trial.repeats > 20
    assert methods == ("a", "b", "c", "d")
    few = plan(named(10), 1, most=12)[1]
    pairs = Counter(frozenset((t.left, t.right)) for t in few if t.repeats is None)
    assert set(pairs.values()) == {2} and len(pairs) == 6
    with pytest.raises(TaskError, match="1 pair or more"):
        plan(named(1), 0, most=0)


def test_films_that_differ_in_more_than_their_makers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "film").mkdir()
    for name, frames in (("a", moving(3, (32, 32))), ("b", moving(4, (32, 32)))):
        Clip(TensorFrames(frames), 10).save(tmp_path / "film" / f"{name}.mp4")
    with pytest.raises(TaskError, match="a has 3 frames of 32x32 at 10; b has 4"):
        write_page(find_films(tmp_path), tmp_path / "page.html")
    with pytest.raises(TaskError, match=r"expected a name such as study\.html"):
        write_page([], tmp_path / "page.mp4")
    assert not (tmp_path / "page.html").exists()


def test_folders_without_films_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="there is no folder"):
        find_films(tmp_path / "none")
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "a.mp4").touch()
    with pytest.raises(TaskError, match=r"two films or more, FILM/METHOD\.mp4"):
        find_films(tmp_path)
    (tmp_path / "film" / "a.webm").touch()
    with pytest.raises(TaskError, match="have one name but for what follows the dot"):
        find_films(tmp_path)


def test_too_large_a_page_is_not_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_page, "MOST_BYTES", 100)
    with pytest.raises(TaskError, match="a page holds 0"):
        write_page(find_films(folder), tmp_path / "page.html")
    assert not [*tmp_path.iterdir()]


def a_key(films: int = 10) -> Key:
    methods, trials = plan(named(films), 1)
    asked = tuple(("consistency", "looks") for _ in range(films))
    return Key("feed", 1, tuple(f"film {i}" for i in range(films)), asked, methods, trials, 2.0)


def saved(path: Path, key: Key, rater: str, choose: Choose, ms: float = 4000, change: Any = None) -> Path:
    """A file as the page saves it, of someone who has a way of choosing."""
    rows = [
        {"trial": number, "question": question, "answer": choose(trial), "ms": ms}
        for number, trial in enumerate(key.trials)
        for question in key.asked[trial.film]
    ]
    path.write_text(json.dumps({"study": key.id, "rater": rater, "answers": rows} | (change or {})))
    return path


def always(choice: str) -> Choose:
    def choose(trial: Trial) -> str:
        return choice

    return choose


def unfaithful(trial: Trial) -> str:
    """Turns to the other one when a pair comes again."""
    return "left" if (trial.left < trial.right) == (trial.repeats is None) else "right"


def careful(seed: int) -> Choose:
    """Who prefers what comes first in the alphabet, mostly."""
    rng = random.Random(seed)

    def choose(trial: Trial) -> str:
        right = trial.left < trial.right if rng.random() < 0.9 else trial.left > trial.right
        return "left" if right else "right"

    return choose


def test_answers_are_counted_and_the_careless_are_left_out(tmp_path: Path) -> None:
    key = a_key()
    makers: dict[str, tuple[Choose, float]] = {f"{i:02x}": (careful(i), 4000) for i in range(6)}
    makers |= {"a0": (always("left"), 4000), "a1": (always("tie"), 4000), "a2": (careful(9), 300)}
    makers["a3"] = unfaithful, 4000
    files = [saved(tmp_path / f"{name}.json", key, name, *how) for name, how in makers.items()]
    raters = [read_answers(path, [key]) for path in files]
    found = result(raters, [key], resamples=100)
    assert set(found.left_out) == {"a0", "a1", "a2", "a3"}
    doubts = {about.name: about.doubts for about in found.raters}
    for name, said in (("a0", '"left" 134 times'), ("a1", "no difference"), ("a2", "0.3 s"), ("a3", "asked twice")):
        assert said in doubts[name]
    for question in ("consistency", "looks"):
        one = found.rankings[question]
        values = [strength.value for strength in one.strengths]
        assert values == sorted(values, reverse=True)
        assert one.side.sign == 0 and one.raters == 6
        assert sum(found.counts[question]) == 6 * 60  # pairs that came twice count once
    everyone = result(raters, [key], keep_all=True, resamples=100)
    assert everyone.left_out == () and everyone.rankings["looks"].raters == 10


def test_raters_of_one_side_are_seen_in_the_bias(tmp_path: Path) -> None:
    key, rng = a_key(), random.Random(1)

    def leaning(trial: Trial) -> str:
        return "left" if rng.random() < 0.75 else "right"

    lazy = [saved(tmp_path / f"{i}.json", key, f"{i}", leaning) for i in range(8)]
    found = result([read_answers(path, [key]) for path in lazy], [key], keep_all=True, resamples=100)
    assert found.rankings["looks"].side.sign == 1
    assert found.rankings["looks"].side.value == pytest.approx(1.1, abs=0.4)


def test_several_pages_of_the_same_methods_are_counted_together(tmp_path: Path) -> None:
    one = a_key()
    methods, trials = plan(named(10), 7)
    other = Key("beef", 7, one.films, one.asked, methods, trials, 2.0)
    files = [saved(tmp_path / "1.json", one, "01", careful(1)), saved(tmp_path / "2.json", other, "02", careful(2))]
    raters = [read_answers(path, [one, other]) for path in files]
    assert result(raters, [one, other], resamples=20).rankings["looks"].raters == 2
    with pytest.raises(TaskError, match="answers the page 'beef', and the keys are of feed"):
        read_answers(files[1], [one])
    with pytest.raises(TaskError, match="were given twice"):
        result([raters[0], raters[0]], [one, other])


def test_an_attentive_rater_is_not_doubted(tmp_path: Path) -> None:
    key = a_key()
    about = attention(read_answers(saved(tmp_path / "a.json", key, "ab", careful(3)), [key]), key)
    assert about.doubts == ""
    assert about.agreed is not None and about.agreed > 0.6
    assert about.left is not None and 0.35 < about.left < 0.65


@pytest.mark.parametrize(
    "change",
    [
        {"rater": "../../etc"},
        {"rater": "<script>"},
        {"study": ["feed"]},
        {"answers": "none"},
        {"answers": [{"trial": 0}]},
        {"answers": [{"trial": 999, "question": "looks", "answer": "left", "ms": 1}]},
        {"answers": [{"trial": True, "question": "looks", "answer": "left", "ms": 1}]},
        {"answers": [{"trial": 0, "question": "text", "answer": "left", "ms": 1}]},
        {"answers": [{"trial": 0, "question": ["looks"], "answer": "left", "ms": 1}]},
        {"answers": [{"trial": 0, "question": "looks", "answer": "up", "ms": 1}]},
        {"answers": [{"trial": 0, "question": "looks", "answer": "left", "ms": float("nan")}]},
        {"answers": [{"trial": 0, "question": "looks", "answer": "left", "ms": 1}] * 2},
    ],
)
def test_what_no_page_saves_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    key = a_key()
    with pytest.raises(RecordError, match="is not what a page saves"):
        read_answers(saved(tmp_path / "a.json", key, "ab", careful(1), change=change), [key])


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(RecordError, match="cannot be read"):
        read_answers(path, [a_key()])
    path.write_text("[" * 100_000)
    with pytest.raises(RecordError):
        read_answers(path, [a_key()])
    path.write_text(" " * (4 * 2**20 + 1))
    with pytest.raises(RecordError, match="too large"):
        read_answers(path, [a_key()])
    path.write_text("{}")
    with pytest.raises(RecordError, match="no key of a page"):
        read_key(path)


BROWSER = """
const fs = require("fs"), page = fs.readFileSync(process.argv[2], "utf8"), how = process.argv[3];
const texts = {}, saved = [];
for (const [, id, text] of page.matchAll(/<script type="[^"]*" id="([^"]*)">([^<]*)</g)) texts[id] = text;
class Element {
  constructor(id = "") { this.id = id; this.children = []; this.heard = {}; this.textContent = texts[id] || ""; }
  addEventListener(kind, what) { this.heard[kind] = what; }
  setAttribute(name, value) { this[name] = value; }
  removeAttribute(name) { delete this[name]; }
  replaceChildren(...given) { this.children = given; }
  append(...given) { this.children.push(...given); }
  click() { if (this.download) saved.push(this); else if (!this.disabled && this.heard.click) this.heard.click(); }
  play() { } pause() { }
}
const all = {}, heard = {}, blobs = {}, kept = {};
const videos = [0, 1, 2].map(() => Object.assign(new Element(), {readyState: 4, duration: 0.001}));
global.document = {
  getElementById: (id) => all[id] = all[id] || new Element(id), querySelectorAll: () => videos,
  createElement: () => new Element(), addEventListener: (kind, what) => heard[kind] = what,
};
global.localStorage = {getItem: (k) => k in kept ? kept[k] : null, setItem: (k, v) => kept[k] = v};
URL.createObjectURL = (blob) => { const name = "blob:" + Object.keys(blobs).length; blobs[name] = blob; return name; };
URL.revokeObjectURL = () => { };
const code = page.match(/<script>([^]*)<\\/script>/)[1], wait = () => new Promise((go) => setTimeout(go, 20));
const press = (key) => heard.keydown({key, target: {}, preventDefault() { }});
(async () => {
  new Function(code)();
  const study = JSON.parse(texts.study);
  for (let i = 0; i < study.trials.length; i++) {
    press("ArrowLeft");  // before both were seen to the end, nothing is taken
    await wait();
    if (i === 1) new Function(code)();  // the page is opened again
    if (i === 1) await wait();
    for (const _ of study.trials[i].asked) press(i % 3 === 0 ? "ArrowLeft" : i % 3 === 1 ? "ArrowDown" : "ArrowRight");
    press("Enter");
  }
  all.save.heard.click();
  console.log(JSON.stringify({name: saved[0].download, text: await blobs[saved[0].href].text()}));
  process.exit(0);
})();
"""


def test_what_the_page_saves_is_what_is_counted(made: tuple[str, Key], tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to run the page's code with")
    page, key = made
    (tmp_path / "study.html").write_text(page, "utf-8")
    (tmp_path / "browser.js").write_text(BROWSER)
    words = [node, "browser.js", "study.html", "keys"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert re.fullmatch(rf"answers-{key.id}-[0-9a-f]{{16}}\.json", said["name"])
    (tmp_path / "answers.json").write_text(said["text"])
    rater = read_answers(tmp_path / "answers.json", [key])
    expected = {
        (number, question): (0, 1, 2)[number % 3]
        for number, trial in enumerate(key.trials)
        for question in key.asked[trial.film]
    }
    assert rater.answers == expected
    assert [CHOICES[choice] for choice in (0, 1, 2)] == ["left", "tie", "right"]
    assert set(QUESTIONS) == {"consistency", "text", "looks"}
