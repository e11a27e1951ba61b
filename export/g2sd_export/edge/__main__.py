"""``python -m edge``: prove the bundle on this machine, answer for images with it, and time it.

Exit status: 0 done or passed; 1 the self-test failed, an image could not be read, or nothing could be timed; 2 a mistake in what was
asked (one line on stderr). Latencies that are not to be believed are marked ``invalid``, and are no failure.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .command_line import Parser, complain, refuse
from .errors import UserError

if TYPE_CHECKING:
    from .manifest import Bundle

_PROGRAM = "edge"
_FROM_STDIN = "-"
_PROGRESS_WIDTH = 40
_TOP_K = 5


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
        sys.stdout.flush()
    except UserError as error:
        return refuse(_PROGRAM, str(error))
    except ModuleNotFoundError as error:
        return refuse(
            _PROGRAM,
            f"the Python package {error.name} is not installed; install what is needed with: pip install numpy pillow onnxruntime",
        )
    except BrokenPipeError:  # whoever read the answers has seen enough, as `head` does; Python would complain once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=_PROGRAM, description="Prove this bundle on this machine, answer for images with it, and time it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add_selftest(commands)
    _add_predict(commands)
    _add_bench(commands)
    return parser


def _add_selftest(commands: Any) -> None:
    selftest = commands.add_parser(
        "selftest", help="verify every file's digest, run the stored sample and compare with its expected answers"
    )
    selftest.add_argument("--variant", metavar="NAME", help="which variant to run (default: the bundle's default)")
    selftest.add_argument("--all", action="store_true", help="run every variant; with --json, one object per line")
    _add_threads(selftest)
    _add_common(selftest, _selftest)


def _add_predict(commands: Any) -> None:
    predict = commands.add_parser("predict", help="classify images, or tell what is where in them")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="an image file, a folder of them, or - for an image on standard input")
    predict.add_argument("--list", action="store_true", help="- is a list of image files, one per line, instead of an image")
    predict.add_argument("--top-k", type=int, metavar="K", help="of a classifier: how many classes to show (default 5)")
    predict.add_argument(
        "--min-score",
        type=float,
        metavar="S",
        help="of detection: tell and draw objects of this score or more (default: tell all that the bundle gives, draw those from 0.3)",
    )
    predict.add_argument("--out", type=Path, metavar="DIR", help="of segmentation and detection: a folder that takes the drawn images")
    predict.add_argument("--variant", metavar="NAME", help="which variant to run (default: the bundle's default)")
    _add_threads(predict)
    _add_common(predict, _predict)


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser("bench", help="time the network, and tell whether to believe the numbers")
    bench.add_argument("--variant", metavar="NAME", action="append", help="which variant; may be repeated (default: all that run here)")
    bench.add_argument("--reference", metavar="NAME", help="also give the ratio of each variant's latency to this one's, timed in turn")
    bench.add_argument("--batch", type=_numbers, default=(1,), metavar="N,...", help="images per call (default 1)")
    bench.add_argument("--scenario", default="single_stream", metavar="NAME", help="single_stream (the default), offline or server")
    bench.add_argument("--rate", type=float, metavar="N", help="calls per second, on average, of --scenario server")
    bench.add_argument("--streams", type=int, metavar="N", help="calls at once, of --scenario offline and server (default 1)")
    bench.add_argument("--percentile", type=float, default=99.0, metavar="P", help="the highest that is wanted (default 99)")
    bench.add_argument("--seconds", type=float, default=30.0, metavar="S", help="the most time for each variant (default 30)")
    bench.add_argument("--threads", type=_numbers, default=(None,), metavar="N,...", help="threads of the runtime (default: one per CPU)")
    _add_common(bench, _bench)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"wanted numbers with commas between them, as 1,8, not {text!r}") from None


def _add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=int, default=None, metavar="N", help="threads of the runtime (default: one per CPU)")


def _add_common(command: argparse.ArgumentParser, function: Any) -> None:
    command.set_defaults(command=function)
    command.add_argument("--json", action="store_true", help="write JSON instead of text")
    command.add_argument("--bundle", type=Path, default=Path(__file__).resolve().parent.parent, metavar="DIR", help="another bundle folder")


def _selftest(arguments: argparse.Namespace) -> int:
    from .selftest import run_selftest, run_selftests

    if arguments.all and arguments.variant is not None:
        raise UserError("--all and --variant exclude each other; give one of them")
    if arguments.all:
        results = run_selftests(arguments.bundle, threads=arguments.threads)
    else:
        results = [run_selftest(arguments.bundle, threads=arguments.threads, variant=arguments.variant)]
    for result in results:
        _write(result.to_dict(), _lines_of(result), as_json=arguments.json)
    verdicts = {result.verdict for result in results}
    return 0 if "passed" in verdicts and "failed" not in verdicts else 1


def _lines_of(result: Any) -> list[str]:
    lines = [f"selftest {result.verdict}" + (f": {result.reason}" if result.reason else "")]
    if result.bundle:
        lines.append(f"bundle   sha256 {result.bundle}")
        lines.append(f"variant  {result.variant}" + (f" on {result.runtime}" if result.runtime else ""))
    for against, agreement in (("the trained model's", result.agreement), ("its own at export", result.device_agreement)):
        if agreement:
            lines.append(f"sample   {agreement.num_images} answers against {against}: {agreement.told()}")
    return lines


def _predict(arguments: argparse.Namespace) -> int:
    from .manifest import open_bundle
    from .predict import Classifier, images_below

    top_k = _TOP_K if arguments.top_k is None else arguments.top_k
    if top_k < 1:
        raise UserError(f"--top-k is {top_k}; it must be at least 1")
    if arguments.list and _FROM_STDIN not in arguments.images:
        raise UserError("--list says that standard input holds paths, and it is not asked for; give - as an image")
    for image in arguments.images:
        next(images_below(image))  # an empty folder is refused before any image is classified
    bundle = open_bundle(arguments.bundle)
    if bundle.task is not None:
        return _observe(arguments, bundle)
    if arguments.out is not None:
        raise UserError("--out is for segmentation and detection, and this bundle classifies: there is nothing to draw; leave it out")
    if arguments.min_score is not None:
        raise UserError("--min-score is for detection, and this bundle classifies; leave it out")
    classifier = Classifier(bundle, threads=arguments.threads, variant=arguments.variant)
    alone = len(arguments.images) == 1 and not arguments.list and not Path(arguments.images[0]).is_dir()
    num_bad = total = 0
    for answer in classifier.answers(_sources(arguments.images, is_list=arguments.list), top_k=top_k):
        total, num_bad = total + 1, num_bad + bool(answer.error)
        if answer.error and not arguments.json:
            complain(_PROGRAM, answer.error)
            continue
        shares = [f"{item.probability:.2%} {item.name}" for item in answer.predictions]
        lines = [f"{share:>7} {name}" for share, _, name in (item.partition(" ") for item in shares)]
        _write(answer.to_dict(), lines if alone else [f"{answer.image}\t{', '.join(shares)}"], as_json=arguments.json)
    if num_bad and total > 1:
        complain(_PROGRAM, f"{num_bad} of {total} images could not be classified")
    return 1 if num_bad else 0


def _observe(arguments: argparse.Namespace, bundle: Bundle) -> int:
    """The same for a bundle that has a task: pixels or objects."""
    from .dense.answering import Album, Observer

    if arguments.top_k is not None:
        raise UserError("--top-k is for classifiers, and this bundle is none; leave it out")
    observer = Observer(bundle, threads=arguments.threads, variant=arguments.variant, min_score=arguments.min_score)
    album = Album(arguments.out) if arguments.out is not None else None
    num_bad = total = 0
    for answer in observer.answers(_sources(arguments.images, is_list=arguments.list)):
        total, num_bad = total + 1, num_bad + bool(answer.error)
        if answer.seen is None:
            if arguments.json:
                _write({"image": answer.image, "error": answer.error}, (), as_json=True)
            else:
                complain(_PROGRAM, answer.error)
            continue
        kept = {} if album is None else album.keep(answer.image, answer.seen)
        values = {"image": answer.image, **answer.seen.to_dict(), **kept} if arguments.json else {}
        lines = [answer.image, *(f"  {line}" for line in answer.seen.lines()), *(f"  {path}" for path in kept.values())]
        _write(values, lines, as_json=arguments.json)
    if num_bad and total > 1:
        complain(_PROGRAM, f"{num_bad} of {total} images could not be read")
    return 1 if num_bad else 0


def _sources(images: Sequence[str], *, is_list: bool) -> Iterator[tuple[str, str | bytes]]:
    from .predict import images_below

    for image in images:
        if image != _FROM_STDIN:
            yield from ((path, path) for path in images_below(image))
        elif is_list:
            paths = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
            yield from ((path, path) for path in paths if path)
        else:
            yield _FROM_STDIN, sys.stdin.buffer.read()


def _bench(arguments: argparse.Namespace) -> int:
    from .bench import BenchSettings, run_bench
    from .bench_text import lines_of
    from .manifest import open_bundle
    from .measuring import MeasureSettings

    wanted = MeasureSettings(percentile=arguments.percentile, seconds=arguments.seconds, reference=arguments.reference)
    settings = BenchSettings(arguments.batch, arguments.threads, arguments.scenario, arguments.rate, arguments.streams, wanted)
    profile = run_bench(open_bundle(arguments.bundle), settings, variants=arguments.variant or (), tick=_progress(sys.stderr))
    _write(profile, lines_of(profile), as_json=arguments.json)
    return 0 if any(row["verdict"] != "not_run" for row in profile["rows"]) else 1


def _progress(stream: TextIO) -> Callable[[int, int], None] | None:
    """A line that is written over, for a person who waits; nothing for a file or a pipe."""
    return (lambda done, total: _over(stream, f"{done} of {total} undisturbed rounds" if done < total else "")) if stream.isatty() else None


def _over(stream: TextIO, text: str) -> None:
    stream.write(f"\r{text:{_PROGRESS_WIDTH}}\r")
    stream.flush()


def _write(values: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    sys.stdout.write(json.dumps(values) + "\n" if as_json else "\n".join(lines) + "\n")
    sys.stdout.flush()  # an answer is of use when it is ready, not when a buffer is full


if __name__ == "__main__":
    raise SystemExit(main())
