"""The page of a study: one file that holds the films, asks no network for anything, and does not say who made what."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import random
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from segue.errors import TaskError
from segue.evaluation.study import QUESTIONS, Film, Key, Trial, identity, plan, read_alike
from segue.media.clip import Clip
from segue.media.disk import written_whole
from segue.types import Progress, silent

MOST_BYTES = 256 * 2**20
"""Of films in a page; what is larger, browsers open slowly or not at all."""
CRF = 12


def write_page(
    films: Sequence[Film], path: Path, *, seed: int | None = None, most: int | None = None, progress: Progress = silent
) -> tuple[Path, Key]:
    """Write the page of a study, and its key beside it; both whole or not at all.

    Every film is encoded anew, in one way, without sound: what its file was like would tell who made it.

    Args:
        films: to be compared.
        path: of the page, such as study.html.
        seed: of order and sides; drawn, if left out: from one that is known it can be found out who is who.
        most: pairs that are shown, besides those that are shown twice; all, if left out.
        progress: told of every film.

    Returns:
        The path of the key, which is not to be given to raters, and the key.

    Raises:
        TaskError: the films of one name differ in more than who made them, or they are too large for a page.
        MediaError: one cannot be read.
        DiskError: the page cannot be written.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise TaskError(f"a study is a page: expected a name such as study.html, got {path}")
    seed = secrets.randbits(63) if seed is None else seed
    methods, trials = plan(films, seed, most)
    encoded, seconds = _encoded(films, methods, trials, progress)
    asked = tuple(tuple(q for q in QUESTIONS if q != "text" or film.prompt) for film in films)
    # Names in the page are places in an order that is drawn: that of the files would tell who made what.
    order = sorted(encoded, key=lambda part: (part[0], -1 if part[1] is None else part[1]))
    random.Random(f"names {seed}").shuffle(order)
    shown = [
        {
            "left": order.index((trial.film, trial.left)),
            "right": order.index((trial.film, trial.right)),
            "source": order.index((trial.film, None)) if (trial.film, None) in encoded else None,
            "prompt": films[trial.film].prompt,
            "asked": asked[trial.film],
        }
        for trial in trials
    ]
    page = identity([json.dumps(shown).encode(), *(encoded[part] for part in order)])
    key = Key(page, seed, tuple(film.name for film in films), asked, methods, trials, seconds)
    key_path = path.with_suffix(".key.json")
    about = {"id": page, "questions": QUESTIONS, "trials": shown}
    with written_whole(path) as part:
        part.write_text(_filled(about, [encoded[each] for each in order]), encoding="utf-8")
    key.save(key_path)
    return key_path, key


def _encoded(
    films: Sequence[Film], methods: Sequence[str], trials: Sequence[Trial], progress: Progress
) -> tuple[dict[tuple[int, int | None], bytes], float]:
    """What is shown, by the numbers of film and method, None for what they were made from; and the longest's seconds.

    Raises:
        TaskError: the films of one name differ in more than who made them, or all are too large for a page.
        MediaError: one cannot be read.
    """
    wanted = {(trial.film, place) for trial in trials for place in (trial.left, trial.right)}
    found: dict[tuple[int, int | None], bytes] = {}
    seconds = 0.0
    for i, film in enumerate(films):
        clips, source = read_alike(film)
        parts: list[tuple[int | None, Clip]] = [(methods.index(name), clip) for name, clip in clips.items()]
        parts += [] if source is None else [(None, source)]
        for place, clip in parts:
            if place is None or (i, place) in wanted:
                found[i, place] = as_mp4(clip)
                seconds = max(seconds, len(clip) / float(clip.fps))
        progress("encoding films", i + 1, len(films))
    if (size := sum(map(len, found.values()))) > MOST_BYTES:
        raise TaskError(
            f"the films take {size / 2**20:.0f} MB, and a page holds {MOST_BYTES // 2**20}: make them smaller or "
            "shorter, or make several studies"
        )
    return found, seconds


def as_mp4(clip: Clip) -> bytes:
    """A clip as H.264 in an MP4, without sound and without a word of how it was made."""
    with tempfile.TemporaryDirectory() as folder:
        return Clip(clip.frames, clip.fps).save(Path(folder) / "clip.mp4", crf=CRF).read_bytes()


def _filled(about: object, films: Sequence[bytes]) -> str:
    """The template with everything in it. What comes from outside goes in as JSON, and is only ever shown as text."""
    data = json.dumps(about).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    held = "\n".join(
        f'<script type="text/plain" id="film-{number}">{base64.b64encode(film).decode()}</script>'
        for number, film in enumerate(films)
    )
    policy = (
        f"default-src 'none'; script-src '{_allowed(SCRIPT)}'; style-src '{_allowed(STYLE)}'; media-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
    data_held = f'<script type="application/json" id="study">{data}</script>'
    return "\n".join(
        [START, head, f"<title>Study</title>\n<style>{STYLE}</style>", BODY, data_held, held,
         f"<script>{SCRIPT}</script>", "</html>", ""]
    )  # fmt: skip


def _allowed(inside: str) -> str:
    """How a page's policy names the one script or style that may be in it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()


START = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">"""

STYLE = """
  body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: #16161a; color: #d5d5dc;
         font: 16px/1.45 system-ui, sans-serif; }
  main { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
  video { width: 100%; max-height: 56vh; background: #000; border-radius: 4px; }
  figure { margin: 0; } figcaption, header, footer { color: #9a9aa5; }
  #source { max-width: 24rem; margin: 0 auto 1rem; }
  fieldset { border: 0; margin: 0.5rem 0; padding: 0.5rem; border-radius: 4px; }
  fieldset.now { outline: 2px solid #6aa5ff; }
  button { font: inherit; padding: 0.4rem 1rem; margin-right: 0.5rem; border: 1px solid #555; border-radius: 4px;
           background: #26262c; color: inherit; cursor: pointer; }
  button:disabled { opacity: 0.4; cursor: default; } button[aria-pressed=true] { background: #2b5ea8; }
  [hidden] { display: none; }
"""

BODY = """<header><p id="place" role="status"></p></header>
<figure id="source" hidden><video muted loop playsinline></video>
<figcaption>what both were made from</figcaption></figure>
<main>
  <figure><video muted loop playsinline></video><figcaption>left</figcaption></figure>
  <figure><video muted loop playsinline></video><figcaption>right</figcaption></figure>
</main>
<p id="prompt" hidden></p>
<div id="questions"></div>
<p><button id="back" type="button">Back</button><button id="next" type="button" disabled>Next</button>
<button id="save" type="button">Save answers</button></p>
<footer><p>Keys: left and right arrow choose a side, down arrow says that there is no difference, Enter goes on,
Backspace goes back, the space bar stops and plays. Answers are kept in this browser until they are saved as a file;
nothing is sent anywhere.</p></footer>"""

SCRIPT = """
"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const place = "segue-study-" + study.id, CHOICES = [["left", "Left"], ["tie", "No difference"], ["right", "Right"]];
const at = (id) => document.getElementById(id), videos = [...document.querySelectorAll("video")];
let kept = {rater: "", answers: {}}, trial = 0, begun = 0, seen = false, waiting = 0, turn = 0;

function load() {
  try { kept = JSON.parse(localStorage.getItem(place)) || kept; } catch { /* a browser that keeps nothing */ }
  if (!kept.rater)
    kept.rater = [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

function keep() {
  try { localStorage.setItem(place, JSON.stringify(kept)); } catch { /* then answers live as long as the page */ }
}

function film(number) {
  const bytes = Uint8Array.from(atob(at("film-" + number).textContent), (c) => c.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], {type: "video/mp4"}));
}

const shown = () => study.trials[trial];
const answer = (question) => kept.answers[trial + " " + question];
const missing = () => shown().asked.find((question) => !answer(question));
const done = () => study.trials.filter((each, i) => each.asked.every((q) => kept.answers[i + " " + q])).length;

function show(number) {
  trial = number; seen = false; begun = performance.now();
  const {left, right, source, prompt} = shown();
  [source, left, right].forEach((each, i) => {
    if (videos[i].src) URL.revokeObjectURL(videos[i].src);
    videos[i].removeAttribute("src");
    if (each !== null) videos[i].src = film(each);
  });
  at("source").hidden = source === null;
  at("prompt").hidden = !prompt;
  at("prompt").textContent = "\\u201c" + prompt + "\\u201d";
  together();
  draw();
}

function together() {
  const playing = videos.filter((video) => video.src), mine = ++turn;
  clearTimeout(waiting);
  Promise.all(playing.map((video) => new Promise((ready, failed) => {
    if (video.readyState > 3) ready(); else video.addEventListener("canplaythrough", ready, {once: true});
    video.addEventListener("error", failed, {once: true});
  }))).then(() => {
    if (mine !== turn) return;  // of a pair that was left before it was there
    playing.forEach((video) => { video.currentTime = 0; Promise.resolve(video.play()).catch(() => null); });
    // An answer to what was not seen to its end would be none.
    waiting = setTimeout(() => { seen = true; draw(); }, 1000 * Math.max(...playing.map((video) => video.duration)));
  }, () => { if (mine === turn) at("place").textContent = "This browser cannot show these films: try another one."; });
}

function choose(question, choice) {
  if (!question || !(seen || answer(question))) return;
  kept.answers[trial + " " + question] = {trial, question, answer: choice, ms: Math.round(performance.now() - begun)};
  keep();
  draw();
}

function draw() {
  const next = missing();
  at("place").textContent = `Pair ${trial + 1} of ${study.trials.length}; ${done()} answered` + (seen ? "" :
    "; please look at both to the end");
  at("questions").replaceChildren(...shown().asked.map((question) => {
    const box = document.createElement("fieldset"), legend = document.createElement("legend");
    legend.textContent = study.questions[question];
    box.append(legend, ...CHOICES.map(([choice, text]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.disabled = !(seen || answer(question));
      button.setAttribute("aria-pressed", String((answer(question) || {}).answer === choice));
      button.addEventListener("click", () => choose(question, choice));
      return button;
    }));
    if (question === next) box.className = "now";
    return box;
  }));
  at("back").disabled = trial === 0;
  at("next").disabled = Boolean(next) || trial + 1 === study.trials.length;
}

function save() {
  const said = {study: study.id, rater: kept.rater, answers: Object.values(kept.answers)};
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(said)], {type: "application/json"}));
  link.download = `answers-${study.id}-${kept.rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const KEYS = {
  ArrowLeft: () => choose(missing(), "left"), ArrowRight: () => choose(missing(), "right"),
  ArrowDown: () => choose(missing(), "tie"), Backspace: () => at("back").disabled || show(trial - 1),
  Enter: () => at("next").disabled || show(trial + 1),
  " ": () => videos.filter((video) => video.src).forEach((video) => video.paused ? video.play() : video.pause()),
};
document.addEventListener("keydown", (event) => {
  const pressing = event.target.tagName === "BUTTON" && [" ", "Enter"].includes(event.key);
  if (pressing || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});
at("back").addEventListener("click", () => show(trial - 1));
at("next").addEventListener("click", () => show(trial + 1));
at("save").addEventListener("click", save);
load();
show(Math.max(0, Math.min(study.trials.length - 1, done())));
"""
