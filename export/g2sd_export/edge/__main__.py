"""``python -m edge``: prove the bundle on this machine, and classify an image with it.

Exit status: 0 done or passed, 1 the self-test failed, 2 a mistake in what was asked (one line on stderr).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line in place of argparse's usage and message."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call one function, write its result to stdout.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit status.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # class names on a terminal that is not UTF-8
    warnings.filterwarnings("ignore", module="PIL")  # remarks on odd metadata; what makes an image unusable is raised
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
    except UserError as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        return _refuse(
            f"the Python package {error.name} is not installed; install what is needed with: pip install numpy pillow onnxruntime"
        )
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="edge", description="Prove this bundle on this machine, and classify images with it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    selftest = commands.add_parser(
        "selftest", help="verify every file's digest, run the stored sample and compare with its expected logits"
    )
    selftest.set_defaults(command=_selftest)

    predict = commands.add_parser("predict", help="classify one image")
    predict.add_argument("image", metavar="IMAGE", type=Path, help="a JPEG, PNG or other image file")
    predict.add_argument("--top-k", type=int, default=5, metavar="K", help="how many classes to show (default 5)")
    predict.set_defaults(command=_predict)

    for command in (selftest, predict):
        command.add_argument("--json", action="store_true", help="write one JSON object instead of text")
        command.add_argument("--threads", type=int, default=None, metavar="N", help="threads of the runtime (default: one per CPU)")
        command.add_argument(
            "--bundle", type=Path, default=Path(__file__).resolve().parent.parent, metavar="DIR", help="another bundle folder"
        )
    return parser


def _selftest(arguments: argparse.Namespace) -> int:
    from .selftest import run_selftest

    result = run_selftest(arguments.bundle, threads=arguments.threads)
    lines = [f"selftest {result.verdict}" + (f": {result.reason}" if result.reason else "")]
    if result.bundle:
        lines.append(f"bundle   sha256 {result.bundle}")
        lines.append(f"runtime  {result.runtime}")
    if result.agreement:
        agreement = result.agreement
        flips = f"{agreement.flipped} decisions flipped"
        lines.append(f"sample   {agreement.num_images} answers, largest logit difference {agreement.max_abs_logit_diff:.2g}, {flips}")
    _write(result.to_dict(), lines, as_json=arguments.json)
    return 0 if result.verdict == "passed" else 1


def _predict(arguments: argparse.Namespace) -> int:
    from .predict import predict_image

    predictions = predict_image(arguments.bundle, arguments.image, top_k=arguments.top_k, threads=arguments.threads)
    lines = [f"{item.probability:7.2%}  {item.name}" for item in predictions]
    _write({"image": str(arguments.image), "predictions": [item.to_dict() for item in predictions]}, lines, as_json=arguments.json)
    return 0


def _write(values: dict[str, object], lines: Sequence[str], *, as_json: bool) -> None:
    sys.stdout.write(json.dumps(values) + "\n" if as_json else "\n".join(lines) + "\n")


def _refuse(message: str) -> int:
    sys.stderr.write(f"edge: error: {' '.join(message.split())}\n")
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
