"""Do the gates work? False alarms and misses of `g2sd check`, counted on real models and on a real clock.

    g2sd run quickstart --out runs/quickstart
    python benchmarks/gate_study.py --run runs/quickstart --out gate_study.json

Accuracy: the quickstart's student against its exported files, retrained models, and itself with damaged weights. Latency: a model against
itself and against one with a tenth more blocks, in sessions of the measuring core beside the reference. Both parts can be run apart
(--only), and both go on from the file that --work names. About 40 minutes on two idle cores.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gating import accuracy, latency
from rich.console import Console
from rich.table import Table

from g2sd_deploy.evaluation.intervals import wilson_interval

CONSOLE = Console(width=None if sys.stdout.isatty() else 140)


def main() -> None:
    """Run the parts that are asked for, print tables, and write JSON."""
    asked = _arguments()
    asked.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    if asked.only in (None, "accuracy"):
        results["accuracy"] = _accuracy(asked)
        _show_accuracy(results["accuracy"])
    if asked.only in (None, "latency"):
        name = "latency under load" if asked.load else "latency"
        results[name] = latency.study(asked.work, sessions=asked.sessions, load=asked.load, seconds=asked.seconds, say=_say)
        _show_latency(name, results[name])
    asked.out.write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="finished run of the quickstart")
    parser.add_argument("--work", type=Path, default=Path("gate_study"), help="folder for what was found so far")
    parser.add_argument("--out", type=Path, default=Path("gate_study.json"), help="results; parts that are there and not asked for stay")
    parser.add_argument("--only", choices=("accuracy", "latency"))
    parser.add_argument("--images", type=int, default=3925, help="images of a check")
    parser.add_argument("--repetitions", type=int, default=10_000, help="checks of each case")
    parser.add_argument("--noises", type=int, default=20, help="noisy copies at each strength")
    parser.add_argument("--seeds", type=int, default=5, help="retrained models")
    parser.add_argument("--epochs", type=float, default=3.0, help="length of each retraining")
    parser.add_argument("--sessions", type=int, default=40, help="sessions of the latency part; each pair of them is a repetition")
    parser.add_argument("--seconds", type=float, default=20.0, help="most time for each network of a session")
    parser.add_argument("--load", type=float, default=0.0, help="share of the time in which another process works, in bursts")
    return parser.parse_args()


def _say(text: str) -> None:
    CONSOLE.print(text, highlight=False, markup=False)


def _accuracy(asked: argparse.Namespace) -> dict[str, Any]:
    cache = asked.work / "answers.npz"
    found = accuracy.answers(asked.run, cache, num_noises=asked.noises, seeds=asked.seeds, epochs=asked.epochs, say=_say)
    return accuracy.study(accuracy.pairs_of(found), num_images=asked.images, repetitions=asked.repetitions, alpha=0.05)


def _show_accuracy(found: dict[str, Any]) -> None:
    titles = {
        "false_alarms": f"false alarms: pairs without a true drop, {found['num_images']:,} images",
        "false_alarms_swapped": "false alarms: sides swapped at random by image, so that no drop is true",
        "found": "drops found, by kind and true size",
        "found_by_change": "drops found, by the share of images that change sides",
    }
    for key, title in titles.items():
        table = _table(title, "case", "pairs", "true drop, points", "change sides, %", "smallest found in 95 of 100", "checks", "failed, %")
        for row in found[key]:
            case = [str(row["kind"])] if "kind" in row else ["{}-{} % change".format(*row["changed_percent"])]
            case += [f"{row['target_points']:g} points"] if "target_points" in row else []
            drop, changed = f"{row['mean_drop_points']:.2f}", f"{row['changed_percent_mean']:.2f}"
            smallest = f"{row['detectable_points']:.2f}"
            table.add_row(", ".join(case), str(row["num_pairs"]), drop, changed, smallest, str(row["repetitions"]), _share(row))
        CONSOLE.print(table)


def _show_latency(name: str, found: dict[str, Any]) -> None:
    table = _table(
        f"{name}: {found['num_sessions']} sessions of {found['session_s']:.1f} s, tolerance {found['max_slowdown']:.0%}",
        "more work",
        "checks",
        "not judged",
        "failed, %",
        "median slowdown",
        "spread between sessions",
        "smallest found in 95 of 100",
    )
    for row in found["rows"]:
        cells = [f"{row['slowdown']:.0%}", str(row["repetitions"]), str(row["not_judged"]), _share(row)]
        table.add_row(*cells, f"{row['median_slowdown']:+.1%}", f"{row['spread']:.1%}", f"{row['detectable_slowdown']:.1%}")
    CONSOLE.print(table)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _share(row: dict[str, Any]) -> str:
    """Failed checks of those that were judged, with the interval of that share."""
    num = row["repetitions"] - row.get("not_judged", 0)
    if not num:
        return "-"
    low, high = wilson_interval(row["failed"], num)
    return f"{100 * row['failed'] / num:.1f} ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    main()
