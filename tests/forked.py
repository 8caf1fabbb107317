"""The command `segue` in processes that are forked from one which has imported it already.

Importing torch, diffusers and transformers takes longer than most of what tests ask of a command. Each command still
has a process of its own, with its own folder, environment and streams. That processes which import them begin and end
well is tested in `cli/`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from time import sleep
from typing import Any

CLIENT = """#!{python} -SE
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
    answer = server.recv(1)
sys.exit(answer[0] if answer else "the process that runs the command died")
"""
IMPORTED = ("segue.cli.main", "segue.models.families.sd", "segue.tasks.stylize_run", "segue.zoo.load")
"""What takes longest to import of what most commands need."""


@contextmanager
def forking(folder: Path, environment: dict[str, str]) -> Generator[Path]:
    """Within, the returned folder holds a command `segue`.

    Args:
        folder: an empty one, with a short name, as sockets have names of 107 bytes at most.
        environment: of the process that imports it.
    """
    address, log = folder / "s", folder / "log"
    command = folder / "segue"
    command.write_text(CLIENT.format(python=sys.executable, address=str(address)), "utf-8")
    command.chmod(0o755)
    with log.open("wb") as said:
        server = subprocess.Popen(
            [sys.executable, __file__, str(address)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        while not address.exists():
            assert server.poll() is None, log.read_text("utf-8")
            sleep(0.1)
        yield folder
    finally:
        server.kill()
        server.wait()


def serve(address: str) -> None:
    """Run each command that is asked for, in a process of its own, until this one is killed."""
    for name in IMPORTED:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        # It is found under its name once it listens.
        listener.bind(address + "-")
        listener.listen()
        Path(address + "-").rename(address)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                _run(client)
            client.close()


def _run(client: socket.socket) -> None:
    """What a command asks for, in a process that ends with it."""
    code = 70
    try:
        said, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
        asked: dict[str, Any] = json.loads(said)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        # What was a file may be a pipe now.
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[:] = ["segue", *asked["arguments"]]
        from segue.cli.main import main

        code = main()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        client.send(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
