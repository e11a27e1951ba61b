"""One connection to a device: the user's own ssh program, and the agent that answers at its other end.

A single ssh process carries everything, so that there is one login however many requests follow, whether or not connections can be shared.
"""

import contextlib
import json
import os
import queue
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from g2sd_deploy.devices.agent import MARK
from g2sd_deploy.devices.device import Device
from g2sd_deploy.devices.ssh_errors import cannot_connect, lost
from g2sd_deploy.errors import UserError

OLDEST_PYTHON = (3, 8)
_HELLO_S = 60.0
_END_S = 5.0
_MOST_LINES = 200
# Works in any Python, so that one that is too old says so itself; then runs what comes on standard input.
_BOOT = f"""import sys, json
if sys.version_info < {OLDEST_PYTHON}:
    sys.stdout.write("{MARK.decode()}" + json.dumps(dict(old="%d.%d" % sys.version_info[:2])) + "\\n")
    sys.exit(3)
b = sys.stdin.buffer
exec(compile(b.read(int(b.readline())), "agent.py", "exec"), dict(__name__="g2sd_agent"))
"""


class LostConnection(UserError):  # noqa: N818 (as the exceptions of g2sd_deploy.errors)
    """A connection that worked ended before its answer came."""


class Connection:
    """Requests to one device; use it in a `with`.

    Attributes:
        device: Whom it leads to.
        facts: What the device said of itself.
    """

    def __init__(self, device: Device, *, connect_timeout_s: float) -> None:
        """Connect.

        Raises:
            UserError: There is no ssh program, the device cannot be reached or refuses, or its Python is missing or too old.
        """
        self.device = device
        self._errors: deque[str] = deque(maxlen=_MOST_LINES)
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ssh = self._start(connect_timeout_s)
        try:
            self.facts = self._hello(connect_timeout_s)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self,
        do: str,
        *,
        body: Iterable[bytes] = (),
        progress: Callable[[str], None] = lambda line: None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Ask for something and wait for the answer.

        Args:
            do: Name of the request.
            body: Bytes that follow it.
            progress: Told each line of progress that comes before the answer.
            timeout_s: How long to wait for each line; None leaves it to ssh to find that nobody is there.
            fields: The request's own.

        Raises:
            LostConnection: The connection ended first.
            UserError: The device says in one line why it cannot.
        """
        with contextlib.suppress(BrokenPipeError):  # nobody reads any more: the answer says why, or there is none
            self._stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            for block in body:
                self._stdin.write(block)
            self._stdin.flush()
        while True:
            answer = self._next(timeout_s)
            if "progress" in answer:
                progress(answer["progress"])
            elif "error" in answer:
                raise UserError(answer["error"])
            elif "beat" not in answer:
                return answer

    def close(self) -> None:
        """Hang up; what was started on the device goes on there."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._ssh.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._ssh.wait()
        for thread in self._threads:
            thread.join(_END_S)

    def kill(self) -> None:
        """End ssh at once, from any thread."""
        self._ssh.kill()

    def _start(self, connect_timeout_s: float) -> "subprocess.Popen[bytes]":
        command = ssh_command(self.device, connect_timeout_s)
        try:
            started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise UserError(
                f"{command[0]}: cannot be started ({error.strerror}); devices are reached with OpenSSH's client: install it (Debian, "
                "Ubuntu: apt install openssh-client), or name another in G2SD_SSH"
            ) from error
        assert started.stdin and started.stdout and started.stderr
        self._stdin = started.stdin
        self._threads = [
            threading.Thread(target=self._read, args=(started.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(started.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return started

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                if line.startswith(MARK) and line.endswith(b"\n"):
                    self._answers.put(line[len(MARK) :])
        self._answers.put(b"")

    def _read_errors(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._errors.append(line.decode(errors="replace").rstrip())

    def _hello(self, connect_timeout_s: float) -> dict[str, Any]:
        here = Path(__file__).parent
        code = (here / "agent.py").read_bytes()
        try:
            self._stdin.write(b"%d\n" % len(code) + code)
            answer = self.request(
                "hello",
                root=self.device.target.folder,
                job_code=(here / "job.py").read_text(encoding="utf-8"),
                timeout_s=connect_timeout_s + _HELLO_S,
            )
        except (OSError, LostConnection):
            raise UserError(cannot_connect(self.device, self._last_words(), self._status())) from None
        if "old" in answer:
            wanted = ".".join(map(str, OLDEST_PYTHON))
            raise UserError(
                f"{self.device.interpreter} there is Python {answer['old']}; {wanted} or newer is needed: name another with --python PATH"
            )
        return answer

    def _next(self, timeout_s: float | None) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self.kill()
            line = b""
        if not line:
            raise LostConnection(f"the connection was lost ({lost(self._last_words(), self._status())})")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> list[str]:
        self._status()
        self._threads[1].join(_END_S)
        return list(self._errors)

    def _status(self) -> int | None:
        try:
            return self._ssh.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


def ssh_command(device: Device, connect_timeout_s: float) -> list[str]:
    """The user's ssh with the user's configuration, made so that it never waits for a person or for a device that is gone."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(max(1, round(connect_timeout_s))),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "ControlMaster": "no",  # a connection that the user holds open is used; none is left open
        "ForwardX11": "no",
        "RequestTTY": "no",
    }
    target = device.target
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    words += ["-p", str(target.port)] if target.port else []
    python = device.interpreter
    shown = f'"$HOME"{shlex.quote(python[1:])}' if python.startswith("~/") else shlex.quote(python)
    boot = shlex.quote(f"exec({json.dumps(_BOOT)})")  # one line, which every login shell understands
    return [*shlex.split(os.environ.get("G2SD_SSH") or "ssh"), *words, target.login, f"{shown} -c {boot}"]
