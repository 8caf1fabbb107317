"""The player: what it shows and when, who may look, and that a film that is watched is the film."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Generator
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from threading import Thread
from threading import enumerate as enumerate_threads
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from PIL import Image
from torch import Tensor

from cli.conftest import SHORT, Run, interrupted
from segue.cli import player as module
from segue.cli.player import Player, Playing
from segue.errors import TaskError


def grey(level: int) -> Tensor:
    return torch.full((3, 8, 12), level, dtype=torch.uint8)


@pytest.fixture
def player() -> Generator[Player]:
    with Player("one → two", fps=10, seconds=2.0, keys=3) as shown:
        yield shown


def asked(player: Player, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    place = urlsplit(player.url)
    connection = HTTPConnection(str(place.hostname), place.port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}


def inside(player: Player, name: str) -> tuple[int, bytes, dict[str, str]]:
    return asked(player, urlsplit(player.url).path + name)


def state(player: Player) -> Any:
    return json.loads(inside(player, "state")[1])


def level(player: Player, name: int) -> int:
    """The grey of a picture that was fetched."""
    picture = Image.open(BytesIO(inside(player, f"{name}.jpg")[1]))
    assert picture.size == (12, 8)
    return int(torch.tensor(list(picture.convert("L").tobytes())).float().mean().round())


def levels(player: Player) -> list[int]:
    return [level(player, name) for name, _ in state(player)["shots"]]


def test_glimpses_lie_in_order_and_fill_the_length_of_the_film(player: Player) -> None:
    for position, shade in ((0.0, 10), (2.0, 90), (1.0, 50), (0.5, 30)):
        player.glimpse(position, grey(shade))
    assert levels(player) == pytest.approx([10, 30, 50, 90], abs=2)
    assert [length for _, length in state(player)["shots"]] == pytest.approx([0.5, 0.5, 1.0, 0.1])


def test_frames_take_the_place_of_glimpses(player: Player) -> None:
    for position, shade in ((0.0, 10), (1.0, 50), (2.0, 90)):
        player.glimpse(position, grey(shade))
    gone = state(player)["shots"][0][0]
    for position, shade in ((0.0, 200), (0.7, 210), (1.2, 220)):
        player.frame(position, grey(shade))
    assert levels(player) == pytest.approx([200, 210, 220, 90], abs=2)
    assert inside(player, f"{gone}.jpg")[0] == 404
    assert not state(player)["over"]
    player.end("the film is whole")
    found = state(player)
    assert (found["over"], found["note"], found["title"]) == (True, "the film is whole", "one → two")


def test_a_way_back_keeps_its_order(player: Player) -> None:
    for position in (0.0, 1.0, 2.0, 1.0):
        player.frame(position, grey(int(100 * position)))
    assert levels(player) == pytest.approx([0, 100, 200, 100], abs=2)


def test_a_stream_keeps_its_last_pictures() -> None:
    with Player("live", fps=10, live=3) as player:
        for shade in range(0, 250, 10):
            player.frame(0.0, grey(shade))
        assert levels(player) == pytest.approx([220, 230, 240], abs=2)
        assert state(player)["live"]


def test_what_does_not_fit_is_left_out_and_said(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    player.frame(0.0, grey(1))
    monkeypatch.setattr(module, "MOST_BYTES", 2 * len(inside(player, "1.jpg")[1]))
    for _ in range(4):
        player.frame(1.0, grey(1))
    player.end("whole")
    assert len(state(player)["shots"]) == 2
    assert state(player)["note"] == "whole; the last 3 are in the file"


def test_the_page_is_whole_and_may_load_nothing_from_elsewhere(player: Player) -> None:
    status, body, headers = inside(player, "")
    page = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "http" not in page and "//" not in page
    policy = headers["content-security-policy"]
    nonce = re.findall(r"nonce-([\w-]+)'", policy)
    assert len(set(nonce)) == 1 and page.count(f'nonce="{nonce[0]}"') == 2
    assert policy.startswith("default-src 'none'; frame-ancestors 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert "{{" not in page and "${id}.jpg" in page
    assert nonce[0] != re.findall(r"nonce-([\w-]+)'", inside(player, "")[2]["content-security-policy"])[0]


def test_who_does_not_know_the_address_sees_nothing(player: Player) -> None:
    player.frame(0.0, grey(1))
    token = urlsplit(player.url).path.strip("/")
    assert len(token) >= 20
    for path in (
        "/",
        "/state",
        "/1.jpg",
        f"/{token[:-1]}/state",
        f"/{token}x/1.jpg",
        f"/x/{token}/state",
    ):
        assert asked(player, path)[0] == 404, path


OTHERS = "../pyproject.toml %2e%2e/x 1.png -1.jpg 1e1.jpg 99.jpg 1.jpg?x=1 1.jpg/ 0x1.jpg state/ /etc/passwd %31.jpg"


@pytest.mark.parametrize("name", [*OTHERS.split(), "1" * 30 + ".jpg"])
def test_nothing_that_is_asked_names_a_file(player: Player, name: str) -> None:
    player.frame(0.0, grey(1))
    assert inside(player, "1.jpg")[0] == 200
    assert inside(player, name)[0] == 404


@pytest.mark.parametrize("host", ["example.com", "evil.127.0.0.1.example.com", "127.0.0.1", "localhost:1"])
def test_a_page_of_another_name_sees_nothing(player: Player, host: str) -> None:
    assert asked(player, urlsplit(player.url).path, host=host)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_it_hears_get_alone(player: Player, method: str) -> None:
    assert asked(player, urlsplit(player.url).path, method)[0] == 501


def test_it_listens_on_loopback_and_only_while_it_is_open() -> None:
    with Player("x", fps=10) as player:
        place = urlsplit(player.url)
        assert place.hostname == "127.0.0.1"
        assert player._server.server_address[0] == "127.0.0.1"  # pyright: ignore[reportPrivateUsage]
        port = place.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0), timeout=2)


def reset(player: Player, said: bytes) -> None:
    """Say something, and go away without a word."""
    place = urlsplit(player.url)
    with socket.create_connection((place.hostname, place.port or 0), timeout=5) as asking:
        asking.sendall(said)
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_who_goes_away_in_the_middle_is_no_news(player: Player, capfd: pytest.CaptureFixture[str]) -> None:
    place = urlsplit(player.url)
    whole = f"GET {place.path} HTTP/1.0\r\nHost: {place.netloc}\r\n\r\n".encode()
    for said in (b"", b"GE", whole[:-2], *[whole] * 20):
        reset(player, said)
    assert state(player)["title"] == "one → two"
    for thread in enumerate_threads():
        if "process_request" in thread.name:
            thread.join(timeout=10)
    assert capfd.readouterr().err == ""


def test_a_page_that_is_open_gets_the_end() -> None:
    """The player waits for one that has just looked, and not for one that never came."""
    seen: list[bool] = []

    def look(player: Player) -> None:
        while not state(player)["over"]:
            pass
        seen.append(True)
        inside(player, "seen")

    with Player("x", fps=10) as player:
        player.frame(0.0, grey(1))
        looking = Thread(target=look, args=(player,))
        looking.start()
        while not state(player)["shots"]:
            pass
        player.end("whole")
    looking.join(timeout=10)
    assert seen == [True]


@pytest.mark.parametrize("tree", [[], ["--smoothness", "0.2"]])
def test_a_film_that_is_watched_has_the_same_bytes(tree: list[str], run: Run, film: list[str], tmp_path: Path) -> None:
    assert run(*film, *SHORT, *tree, "-o", "x.mp4").code == 0
    answer = run(*film, *SHORT, *tree, "-o", "y.mp4", "--play")
    assert answer.code == 0
    assert re.search(r"segue: watch it at http://127\.0\.0\.1:\d+/[\w-]{20,}/\n", answer.err)
    for suffix in (".mp4", ".json"):
        assert (tmp_path / f"x{suffix}").read_bytes() == (tmp_path / f"y{suffix}").read_bytes()


def test_the_browser_is_opened_if_that_is_asked_for(run: Run, film: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(module.webbrowser, "open", opened.append)
    assert run(*film, *SHORT, "-o", "x.mp4", "--play").code == 0
    assert opened == []
    assert run(*film, *SHORT, "-o", "x.mp4", "--play", "--open").code == 0
    assert len(opened) == 1 and opened[0].startswith("http://127.0.0.1:")
    with pytest.raises(TaskError, match="--open opens the page of --play"):
        Playing(open=True)


def test_ctrl_c_keeps_what_is_finished_of_a_film_that_is_watched(film: list[str], tmp_path: Path) -> None:
    words = [*film, "--seconds", "20", "--fps", "60", "-o", "x.mp4", "--json", "--play"]
    code, out, err = interrupted(words, tmp_path, "rendering frames")
    assert code == 130, err
    assert "Traceback" not in err
    assert json.loads(out)["frames"] >= 2
    assert (tmp_path / "x.mp4").stat().st_size > 0
