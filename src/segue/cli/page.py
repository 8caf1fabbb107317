"""The page that shows a film while it is made."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Segue</title>
<style nonce="{nonce}">
  body {{ margin: 0; min-height: 100vh; display: grid; place-content: center; justify-items: center; gap: 1rem;
         background: #16161a; color: #9a9aa5; font: 15px/1.4 system-ui, sans-serif; }}
  img {{ width: min(88vw, 78vh); image-rendering: auto; border-radius: 6px; background: #222; }}
  p {{ margin: 0; }}
</style>
<img alt="">
<p></p>
<script nonce="{nonce}">
"use strict";
const img = document.querySelector("img"), line = document.querySelector("p");
const pictures = new Map();
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
let shots = [], live = false, over = false;

async function fetched(id) {{
  const answer = await fetch(`${{id}}.jpg`);
  return answer.ok ? URL.createObjectURL(await answer.blob()) : null;
}}

async function look() {{
  const state = await (await fetch("state")).json();
  const asked = new Set(state.shots.map(([id]) => id));
  for (const id of asked) if (!pictures.has(id)) pictures.set(id, await fetched(id));
  for (const [id, url] of pictures) if (!asked.has(id)) {{ URL.revokeObjectURL(url); pictures.delete(id); }}
  shots = state.shots.filter(([id]) => pictures.get(id));
  [live, over, document.title, line.textContent] = [state.live, state.over, state.title, state.note];
}}

async function listen() {{
  while (!over) {{
    try {{ await look(); }} catch {{ line.textContent += " · it has stopped"; return; }}
    await wait(live ? 100 : 400);
  }}
  fetch("seen").catch(() => null);
}}

function next(number, last) {{
  if (!live) return shots[number % Math.max(shots.length, 1)];
  const fresh = shots.filter(([id]) => id > last);
  return fresh[fresh.length > {late} ? fresh.length - 1 : 0];
}}

async function play() {{
  for (let number = 0, last = 0; ; number++) {{
    const shot = next(number, last);
    if (!shot) {{ await wait(20); continue; }}
    img.src = pictures.get(shot[0]);
    await wait(1000 * shot[1]);
    last = shot[0];
  }}
}}

listen();
play();
</script>
</html>
"""
"""Everything comes from the server that sends it. `{nonce}` is what its policy allows to run, and `{late}` how many
pictures of a stream may wait before it jumps to the last."""
