"""A player for films that are being made: one page, for this machine alone."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
import webbrowser
from bisect import insort
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from segue.cli.page import PAGE
from segue.cli.progress import Meter
from segue.errors import TaskError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from segue.media.clip import Clip
    from segue.tasks.transition_stream import TransitionStream

LOOPBACK = "127.0.0.1"
MOST_BYTES = 256 * 2**20
"""Of pictures that wait to be looked at; beyond, new ones are left out of the player, not of the film."""
LAST_LOOK = 5.0
"""Seconds that a page which is being looked at has to fetch the end of a film."""
_PICTURE = re.compile(r"([0-9]{1,9})\.jpg")


@dataclass(frozen=True)
class Playing:
    """Looking at a film while it is made.

    Args:
        play: show it in a page of this machine, whose address is printed: what there is of it, in a loop, coarse to
            fine. The film is the same.
        open: open the page in the browser.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    play: bool = False
    open: bool = False

    def __post_init__(self) -> None:
        if self.open and not self.play:
            raise TaskError("--open opens the page of --play: give both")

    def told(self, player: Player, meter: Meter) -> None:
        """Say where the player is, and open it if that is asked for."""
        meter.note(f"watch it at {player.url}")
        if self.open:
            webbrowser.open(player.url)


@dataclass(frozen=True, order=True)
class _Glimpse:
    position: float
    id: int


class Player:
    """Serves one page and its pictures on 127.0.0.1, at a port that is free and an address that cannot be guessed.

    It hears GET alone, and knows only the addresses that it hands out; nothing that a client sends names a file. A
    context manager: at its end nothing listens any more.

    Args:
        title: what the page is called.
        fps: of the film.
        seconds: how long it will be, by which glimpses are placed in time.
        keys: how many keys it has, likewise.
        live: whether it is a stream, of which only the last pictures are kept: so many.
    """

    def __init__(self, title: str, fps: float, seconds: float = 0.0, keys: int = 2, live: int = 0) -> None:
        self.title, self.fps, self.seconds, self.keys, self.live = title, fps, seconds, keys, live
        self.note = "the first pictures are on their way"
        self._pictures: dict[int, bytes] = {}
        self._glimpses: list[_Glimpse] = []
        self._frames: list[int] = []
        self._passed = float("-inf")
        self._count = self._bytes = self._dropped = 0
        self._over = self._seen = False
        self._looked = float("-inf")
        self._changed = Condition()
        self._token = secrets.token_urlsafe(18)
        self._server = _Server((LOOPBACK, 0), _Answer)
        self._server.player = self
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self._server.server_port}/{self._token}/"

    def __enter__(self) -> Player:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self._wait_for_looks()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def glimpse(self, position: float, picture: UInt8[Tensor, "3 h w"]) -> None:
        """A picture that lies somewhere on the line of the keys; frames take its place."""
        with self._changed:
            if (name := self._kept(picture)) is not None:
                insort(self._glimpses, _Glimpse(position, name))
            self.note = f"{len(self._glimpses)} pictures so far"

    def frame(self, position: float, picture: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"]) -> None:
        """The next frame."""
        with self._changed:
            while self.live and len(self._frames) >= self.live:
                self._forget(self._frames.pop(0))
            if (name := self._kept(picture)) is not None:
                self._frames.append(name)
            self._passed = max(self._passed, position)
            passed = [glimpse for glimpse in self._glimpses if glimpse.position <= self._passed]
            self._glimpses = self._glimpses[len(passed) :]
            for glimpse in passed:
                self._forget(glimpse.id)
            if not self.live:
                self.note = f"{len(self._frames)} frames so far"

    def end(self, note: str) -> None:
        """It is whole."""
        with self._changed:
            self._over, self.note = (
                True,
                note + (f"; the last {self._dropped} are in the file" if self._dropped else ""),
            )

    def state(self) -> dict[str, Any]:
        """What the page shows: ids of pictures, each with the seconds for which it is shown."""
        with self._changed:
            self._looked = time.monotonic()
            shots = [(name, 1 / self.fps) for name in self._frames] + self._placed()
            return {"title": self.title, "note": self.note, "live": bool(self.live), "over": self._over, "shots": shots}

    def picture(self, name: int) -> bytes | None:
        """A picture by its id."""
        with self._changed:
            self._looked = time.monotonic()
            return self._pictures.get(name)

    def seen(self) -> None:
        """A page has everything."""
        with self._changed:
            self._seen = True
            self._changed.notify_all()

    def is_address(self, path: str) -> str | None:
        """What is asked for behind the token; None if the token is not ours."""
        parts = path.split("/")
        if len(parts) != 3 or parts[0] or not secrets.compare_digest(parts[1].encode(), self._token.encode()):
            return None
        return parts[2]

    def is_host(self, host: str | None) -> bool:
        """Whether a page of ours asks: another site that lets its name point here says its own name."""
        return host in (f"{LOOPBACK}:{self._server.server_port}", f"localhost:{self._server.server_port}")

    def _placed(self) -> list[tuple[int, float]]:
        """Glimpses as long as the way to the next is, if the film went evenly from key to key."""
        places = [glimpse.position for glimpse in self._glimpses] + [float(self.keys - 1)]
        second = self.seconds / max(self.keys - 1, 1)
        return [
            (glimpse.id, max((after - glimpse.position) * second, 1 / self.fps))
            for glimpse, after in zip(self._glimpses, places[1:], strict=True)
        ]

    def _kept(self, picture: Tensor) -> int | None:
        from segue.media.jpeg import jpeg

        packed = jpeg(picture)
        if self._bytes + len(packed) > MOST_BYTES:
            self._dropped += 1
            return None
        self._count += 1
        self._pictures[self._count] = packed
        self._bytes += len(packed)
        return self._count

    def _forget(self, name: int) -> None:
        self._bytes -= len(self._pictures.pop(name))

    def _wait_for_looks(self) -> None:
        """Let a page that is open fetch the rest."""
        with self._changed:
            if time.monotonic() - self._looked < 2.0 and self._over:
                self._changed.wait_for(lambda: self._seen, LAST_LOOK)


def watched(stream: TransitionStream, player: Player) -> Clip:
    """A transition, shown while it is made.

    Raises:
        InterruptedRunError: on Ctrl-C, with the pictures that are finished.
    """
    try:
        for part in stream:
            if part.number is None:
                player.glimpse(part.position, part.picture)
            else:
                player.frame(part.position, part.picture)
    except KeyboardInterrupt:
        stream.stop()
    player.end(f"the film is whole: {len(stream.clip)} frames")
    return stream.clip


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    player: Player

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who goes away in the middle of asking is no news: the terminal belongs to the film."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Answer(BaseHTTPRequestHandler):
    server_version, sys_version = "segue", ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer with the page, what there is to show, or a picture of it."""
        server = self.server
        assert isinstance(server, _Server)
        player = server.player
        asked = player.is_address(self.path) if player.is_host(self.headers.get("Host")) else None
        if asked == "":
            nonce = secrets.token_urlsafe(12)
            self._send(
                PAGE.format(nonce=nonce, late=max(1, player.live // 2)).encode(), "text/html; charset=utf-8", nonce
            )
        elif asked == "state":
            self._send(json.dumps(player.state()).encode(), "application/json")
        elif asked == "seen":
            player.seen()
            self._send(b"", "text/plain")
        else:
            match = _PICTURE.fullmatch(asked or "")
            packed = player.picture(int(match[1])) if match else None
            if packed is None:
                self._send(b"there is nothing here\n", "text/plain", status=404)
            else:
                self._send(packed, "image/jpeg")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said: the terminal belongs to the film."""

    def _send(self, body: bytes, kind: str, nonce: str = "", status: int = 200) -> None:
        self.send_response(status)
        policy = "default-src 'none'; frame-ancestors 'none'"
        if nonce:
            policy += f"; img-src blob:; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Content-Security-Policy", policy),
        ):
            self.send_header(name, value)
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # Who asked has gone.
