"""A process that has loaded the libraries and forks itself into real `g2sd` commands: each begins at once, not after seconds of imports.

Reads one JSON object a line: {"start": arguments, "log": file without suffix, "folder": ..., "environment": {...}, "first": Python to run
before} answers with a process id; {"poll": process id} with its wait status, or null while it runs.
"""

import json
import os
import sys
import traceback
from typing import Any, NoReturn

import torch

from g2sd_deploy.cli import main
from g2sd_deploy.stages import data, evaluate, finetune, generic, pretrain, report, specific  # noqa: F401 (loaded once, for all commands)


def become(request: dict[str, Any]) -> NoReturn:
    """The command, in a process group and with output files of its own."""
    os.setpgid(0, 0)
    for stream, suffix in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['log']}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    code = 1
    try:
        exec(request["first"], {"__name__": "first"})
        sys.argv = ["g2sd", *request["start"]]
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            found, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = status if found else None
        else:
            answer = os.fork() or become(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
