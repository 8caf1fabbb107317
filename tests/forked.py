"""Python, in processes that are forked from one which has imported torch, diffusers and transformers.

That takes longer than most of what tests ask of a command. Each has a process of its own nevertheless, with its own
folder, environment and streams, which can be interrupted, and which dies as it does. Whether processes that import all
by themselves begin and end well is tested elsewhere (`cli/test_command`, `training/test_cut`).
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import sleep

SEGUE = "import sys; from segue.cli.main import main; sys.exit(main())"
"""The command, as a program."""
IMPORTED = ("segue.cli.main", "segue.models.families.sd", "segue.tasks.stylize_run", "segue.zoo.load")
"""What takes longest to import of what most commands need."""
CLIENT = """#!{python} -SE
import json, os, signal, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
    answers = server.makefile("r")
    process = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(process, number))
    code = int(answers.readline())
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
CHECKED = 5.0
"""Seconds after which it is found out whether anybody may still ask."""


@cache
def python() -> str:
    """The path of a program that does what `python -c PROGRAM ARGUMENT...` does, and no more."""
    folder = Path(mkdtemp(prefix="segue-forked-"))
    address, log, program = folder / "address", folder / "log", folder / "python"
    program.write_text(CLIENT.format(python=sys.executable, address=str(address)), "utf-8")
    program.chmod(0o755)
    with log.open("wb") as said:
        server = subprocess.Popen(
            [sys.executable, __file__, str(address)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    atexit.register(server.kill)
    atexit.register(rmtree, folder, ignore_errors=True)
    while not address.exists():
        assert server.poll() is None, log.read_text("utf-8")
        sleep(0.05)
    return str(program)


def command(folder: Path) -> Path:
    """A folder for PATH, made in this one, which holds the command `segue`."""
    inside = folder / "bin"
    inside.mkdir()
    script = inside / "segue"
    script.write_text(f'#!/bin/sh\nexec {python()} -c "{SEGUE}" "$@"\n', "utf-8")
    script.chmod(0o755)
    return inside


def serve(address: Path) -> None:
    """Run each program that is asked for, in a process of its own, as long as the process lives that wants them."""
    for name in IMPORTED:
        import_module(name)
    parent = os.getppid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    # It is found under its name once it listens.
    listener.bind(f"{address}-")
    listener.listen()
    listener.settimeout(CHECKED)
    Path(f"{address}-").rename(address)
    while os.getppid() == parent:
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        client.settimeout(None)
        if os.fork() == 0:
            listener.close()
            _run(client)
            return
        client.close()
    rmtree(address.parent, ignore_errors=True)


def _run(client: socket.socket) -> None:
    """In a process of its own: another one runs the program; this one says which that is, and how it ended."""
    said, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = os.fork()
    if process:
        client.sendall(f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    client.close()
    asked = json.loads(said)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    _become(streams, asked["arguments"])


def _become(streams: Sequence[int], arguments: Sequence[str]) -> None:
    """The program itself; it ends as any does, with what is to be done at an exit."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    flag, program, *rest = arguments
    assert flag == "-c", f"expected -c PROGRAM, got {flag}"
    sys.argv[:] = ["-c", *rest]
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
