"""`g2sd profile` from the command line: the profile's shape, exit codes, what is told below the table, and errors."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from g2sd_deploy import devices
from g2sd_deploy.devices import DeviceOptions, DeviceProfiles, store
from g2sd_deploy.profiling.profile import is_believed
from g2sd_deploy.profiling.table import notes_of, profile_table, short_names

G2sd = Callable[..., Any]
QUICK = ("--seconds", "0.1", "--threads", "1", "--percentile", "50")
UNBELIEVED = "error: no latency is valid: the reasons stand below the table; docs/latency.md tells how to get a quiet machine\n"
HEAD = [
    "model",
    "variant",
    "runtime",
    "version",
    "provider",
    "precision",
    "digest",
    "file_bytes",
    "batch",
    "threads",
    "scenario",
    "verdict",
    "reasons",
]


def error_of(answer: Any, code: int = 2) -> str:
    last = answer.err.splitlines()[-1]
    assert answer.code == code and last.startswith("error: ") and "Traceback" not in answer.err, answer.err
    return str(last.removeprefix("error: "))


@pytest.fixture(autouse=True)
def history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("G2SD_DEVICES", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def told(g2sd: G2sd, classifier: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any], Path]:
    """One profile of weights and a bundle: the command's answer, what it printed, and the file it wrote."""
    out = tmp_path_factory.mktemp("told") / "new" / "profile.json"
    models = ("--runtime", "torch,onnxruntime", "--runtime", "onnxruntime-cuda")
    answer = g2sd("profile", classifier, bundle, *models, *QUICK, "--batch", "1,2", "--layers", "--out", out, "--json")
    assert answer.code in (0, 1), answer.err
    return answer, json.loads(answer.out), out


def test_a_profile_holds_what_was_measured_and_where(told: tuple[Any, dict[str, Any], Path]) -> None:
    answer, profile, out = told
    assert answer.out.count("\n") == 1 and json.loads(out.read_text()) == profile
    assert list(profile) == ["format", "machine", "conditions", "reference", "rows", "layers"]
    assert (profile["format"], profile["reference"]) == (1, "reference")
    assert profile["machine"]["cpus"] >= 1 and profile["machine"]["libraries"]["onnxruntime"]
    assert profile["conditions"]["verdict"] in ("valid", "invalid", "not_run")
    assert profile["conditions"]["num_rounds"] >= 2


def test_every_model_has_a_row_on_every_runtime_asked_for(told: tuple[Any, dict[str, Any], Path], classifier: Path, bundle: Path) -> None:
    rows = told[1]["rows"]
    wanted = [
        (str(classifier), "", "torch"),
        (str(classifier), "", "onnxruntime"),
        (str(classifier), "", "onnxruntime-cuda"),
        (str(bundle), "fp32-onnxruntime", "onnxruntime"),
        (str(bundle), "int8-onnxruntime", "onnxruntime"),
        (str(bundle), "fp32-onnxruntime-cuda", "onnxruntime-cuda"),
        (str(bundle), "", "torch"),
        ("reference", "", "onnxruntime"),
    ]
    assert sorted((row["model"], row["variant"], row["runtime"], row["batch"]) for row in rows) == sorted(
        (*one, batch) for one in wanted for batch in (1, 2)
    )
    for row in rows:
        assert list(row)[:11] == HEAD[:11] and row["verdict"] in ("valid", "invalid", "not_run")
        if row["verdict"] == "not_run":
            assert list(row) == HEAD and row["reasons"]
        else:
            assert 0 < row["min_ms"] <= row["p50_ms"] and row["num_samples"] == sum(row["histogram"]["counts"])
            assert row["reasons"] if row["verdict"] == "invalid" else row["reasons"] == []
            assert row["ratio"] is None if row["model"] == "reference" else row["ratio"]["to"] == "reference"
            assert row["phases"]["verdict"] == "not_run" and row["energy"]["verdict"] in ("not_run", "measured")


def test_layers_are_told_of_what_runs(told: tuple[Any, dict[str, Any], Path], classifier: Path, bundle: Path) -> None:
    tables = told[1]["layers"]
    assert [(one["model"], one["variant"], one["runtime"], one["batch"]) for one in tables] == [
        (str(classifier), "", "onnxruntime", 1),
        (str(bundle), "fp32-onnxruntime", "onnxruntime", 1),
    ]
    assert all(one["verdict"] == "measured" for one in tables)


def test_the_exit_code_says_whether_any_latency_is_valid(told: tuple[Any, dict[str, Any], Path]) -> None:
    answer, profile, _ = told
    assert answer.code == (0 if is_believed(profile) else 1)
    assert answer.err.endswith(UNBELIEVED) == (answer.code == 1)
    row = {"model": "a", "verdict": "invalid"}
    valid_reference = {"model": "reference", "verdict": "valid"}
    assert not is_believed({"reference": "reference", "rows": [row, valid_reference]})
    assert is_believed({"reference": "reference", "rows": [row | {"verdict": "valid"}, valid_reference]})


def test_a_local_profile_is_kept_in_the_history(g2sd: G2sd, make_onnx: Callable[..., Path]) -> None:
    path = make_onnx()
    answer = g2sd("profile", path, "--runtime", "onnxruntime", "--no-reference", *QUICK, "--json")
    assert answer.code in (0, 1), answer.err
    profile = json.loads(answer.out)
    assert profile["reference"] is None and [row["model"] for row in profile["rows"]] == [str(path)]
    (entry,) = store.results("local", pytest.fail)
    assert entry.profile == profile


def test_a_foreign_file_whose_sizes_are_open_is_timed_once_they_are_said(g2sd: G2sd, make_onnx: Callable[..., Path]) -> None:
    path = make_onnx(inputs={"a": (TensorProto.UINT8, ["b", "h", "w", 3]), "n": (TensorProto.INT64, ["b"])})
    command = ("profile", path, "--runtime", "onnxruntime,openvino", "--no-reference", *QUICK)
    assert error_of(g2sd(*command)).endswith("leaves sizes open; say them with --shape a=1xSIZExSIZEx3")
    answer = g2sd(*command, "--shape", "a=1x8x9x3", "--json")
    assert answer.code in (0, 1), answer.err
    assert [row["verdict"] == "not_run" for row in json.loads(answer.out)["rows"]] == [False, False, _no_bfloat16()]
    assert "--shape image=...: no ONNX file has such an input; they have a, n" in error_of(
        g2sd(*command, "--shape", "a=1x8x9x3", "--shape", "image=1x3")
    )


def _no_bfloat16() -> bool:
    from g2sd_deploy.profiling.here import why_not

    return bool(why_not("openvino", "bf16"))


def test_what_was_not_run_is_told_below_the_table_once(g2sd: G2sd, bundle: Path) -> None:
    answer = g2sd("profile", bundle, *QUICK, "--no-reference")
    assert answer.code in (0, 1)
    lines = answer.out.splitlines()
    assert " ".join(lines[0].split()) == "model runtime batch threads p50 ms p90 ms p99 ms images/s verdict"
    assert lines[1].startswith("bundle fp32-onnxruntime") and max(map(len, lines)) <= 140
    text = " ".join(answer.out.split())
    assert text.count("3 of 100 decisions changed") == 1
    assert "not run: bundle int8-onnxruntime: variant int8-onnxruntime failed its proof" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch", "1;8"), "--batch 1;8: wanted whole numbers above 0 with commas between them, for example 1,8"),
        (("--batch", "1,1"), "--batch 1,1: wanted whole numbers above 0"),
        (("--threads", "0"), "--threads 0: wanted whole numbers above 0"),
        (("--runtime", "onnx"), "--runtime onnx: is none that is known; wanted one of torch, torch-compile, onnxruntime, "),
        (("--scenario", "multi_stream"), "--scenario multi_stream: wanted some of single_stream, offline, server"),
        (("--scenario", "server"), "--rate: belongs to the server scenario, which needs it"),
        (("--rate", "5"), "--rate: belongs to the server scenario"),
        (("--scenario", "server", "--rate", "-1"), "--rate -1: wanted queries per second, above 0"),
        (("--streams", "2"), "--streams 2: a single stream is one; add --scenario offline or server"),
        (("--seconds", "0"), "the seconds to measure are 0; they must be above 0"),
        (("--percentile", "100"), "100"),
        (("--shape", "x"), "--shape x: wanted NAME=SIZExSIZE"),
        (("--runtime", "torch", "--layers"), "--layers: no layers are told here by torch; add --runtime onnxruntime or openvino"),
    ],
)
def test_options_that_are_wrong_are_named(options: tuple[str, ...], message: str, g2sd: G2sd, classifier: Path) -> None:
    quick = [word for pair in zip(QUICK[::2], QUICK[1::2], strict=True) if pair[0] not in options for word in pair]
    assert message in error_of(g2sd("profile", classifier, *quick, *options))


def test_a_runtime_that_is_all_that_is_asked_for_and_is_not_here_is_an_error(g2sd: G2sd, classifier: Path, bundle: Path) -> None:
    assert error_of(g2sd("profile", bundle, "--runtime", "openvino", *QUICK)).startswith(
        f"nothing can be timed here: {bundle} on openvino: the bundle has no variant for it"
    )
    twice = error_of(g2sd("profile", classifier, classifier, "--runtime", "torch", *QUICK))
    assert twice == f"{classifier} torch fp32: is named twice; name each model once"


def test_an_output_that_cannot_be_written_is_named(g2sd: G2sd, make_onnx: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    command = ("profile", make_onnx(), "--runtime", "onnxruntime", "--no-reference", *QUICK, "--out", tmp_path / "file" / "p.json")
    assert str(tmp_path / "file") in error_of(g2sd(*command))


# Devices


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[Path], DeviceOptions]]:
    """Stands in for the devices: one answers, the other one named `gone` does not."""
    calls: list[tuple[list[str], list[Path], DeviceOptions]] = []

    def answer(places: Any, bundles: Any, options: DeviceOptions, *, tell: Callable[[str], None]) -> DeviceProfiles:
        names = [place.name for place in places]
        calls.append((names, list(bundles), options))
        tell(f"{names[0]}: answers")
        row = dict.fromkeys(HEAD, "") | {"verdict": "valid", "scenario": options.scenario, "reasons": [], "model": "m"}
        row |= dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "images_per_s"), 1.0)
        conditions = {"verdict": "valid", "reasons": [], "num_rounds": 1, "num_void": 0, "voids": {}}
        profile = {"format": 1, "machine": {}, "conditions": conditions, "reference": None, "rows": [row], "layers": []}
        good = {name: profile for name in names if "gone" not in name}
        return DeviceProfiles(good, {name: f"{name}: lost" for name in names if "gone" in name})

    monkeypatch.setattr(devices, "profile_on", answer)
    return calls


def test_devices_are_asked_for_what_was_asked_for(g2sd: G2sd, bundle: Path, asked: list[Any]) -> None:
    options = (
        "--batch",
        "1,8",
        "--threads",
        "2",
        "--scenario",
        "single_stream,offline",
        "--streams",
        "3",
        "--runtime",
        "onnxruntime-cuda,tensorrt-rtx",
    )
    answer = g2sd("profile", bundle, "--device", "ssh://me@pi", *options, "--seconds", "7", "--percentile", "90", "--json")
    assert answer.code == 0, answer.err
    assert answer.err == "me@pi: answers\n" * 2
    assert [(names, bundles) for names, bundles, _ in asked] == [(["me@pi"], [bundle])] * 2
    first = DeviceOptions(
        batches=(1, 8),
        threads=(2,),
        runtimes=("onnxruntime", "tensorrt_rtx"),
        scenario="single_stream",
        streams=3,
        percentile=90,
        seconds=7,
        keep=True,
    )
    assert [options for _, _, options in asked] == [first, replace(first, scenario="offline", keep=False)]
    found = json.loads(answer.out)
    assert [row["scenario"] for row in found["devices"]["me@pi"]["rows"]] == ["single_stream", "offline"] and found["failures"] == {}
    assert len(store.results("me@pi", pytest.fail)) == 2


def test_a_device_that_does_not_answer_fails_the_command_and_the_others_are_shown(g2sd: G2sd, bundle: Path, asked: list[Any]) -> None:
    answer = g2sd("profile", bundle, "--device", "ssh://pi", "--device", "ssh://gone")
    assert error_of(answer) == "gone: lost" and answer.out.splitlines()[0].strip() == "pi"


def test_only_bundles_go_to_devices(g2sd: G2sd, classifier: Path, bundle: Path, asked: list[Any]) -> None:
    there = ("--device", "ssh://pi")
    advice = f"make one of it first: g2sd export {classifier} --on IMAGES --out FOLDER"
    assert error_of(g2sd("profile", classifier, *there)) == f"{classifier}: is no bundle, and only bundles go to a device; {advice}"
    assert error_of(g2sd("profile", bundle, *there, "--runtime", "torch")).startswith("--runtime torch: bundles hold no weights for torch")
    assert error_of(g2sd("profile", bundle, *there, "--layers")).startswith("--layers: the time of layers is told on this machine alone")
    assert asked == []


# The table


def row(model: str, verdict: str = "valid", **changes: Any) -> dict[str, Any]:
    numbers = {"p50_ms": 1234.5, "p90_ms": 0.04567, "p99_ms": None, "images_per_s": 12.34, "ratio": None}
    head = {"variant": "", "runtime": "openvino", "precision": "fp32", "batch": 1, "threads": 2, "scenario": "single_stream"}
    return {"model": model, "verdict": verdict, "reasons": [], **head, **numbers, **changes}


def shown(*rows: dict[str, Any], **conditions: Any) -> tuple[str, list[str]]:
    from rich.console import Console

    told = {"verdict": "valid", "reasons": [], "num_rounds": 12, "num_void": 0, "voids": {}, **conditions}
    profile = {"rows": list(rows), "conditions": told}
    console = Console(width=140)
    with console.capture() as capture:
        console.print(profile_table(profile))
    return capture.get(), notes_of(profile)


def test_a_row_is_told_to_three_digits() -> None:
    text, notes = shown(row("a", ratio={"to": "reference", "value": 0.28123, "interval": [0.2712, 0.2899]}))
    assert " ".join(text.splitlines()[1].split()) == "a openvino 1 2 1,234 0.0457 - 12.3 0.281 (0.271 to 0.29) valid"
    assert notes == []


def test_a_reason_that_rows_share_is_told_once_and_marked_in_each() -> None:
    text, notes = shown(
        row("/x/a", "invalid", reasons=["drifted"]),
        row("/x/b", "invalid", reasons=["jumped", "drifted"]),
        row("/x/c", "not_run", reasons=["no GPU"], variant="int8-openvino"),
        row("/x/c", "not_run", reasons=["no GPU"], runtime="tensorrt"),
        num_void=2,
        voids={"other processes used 31 % of the processors": 2},
    )
    lines = [line.split() for line in text.splitlines()]
    assert (lines[1][-2:], lines[2][-3:]) == (["invalid", "[1]"], ["invalid", "[2]", "[1]"]) and len(lines) == 3
    assert notes == [
        "[1] drifted",
        "[2] jumped",
        "not run: c int8-openvino, c tensorrt: no GPU",
        "2 of 12 rounds were void: other processes used 31 % of the processors (2)",
    ]


def test_names_are_as_short_as_they_can_be_and_no_markup() -> None:
    assert short_names(iter(["/a/b.onnx", "/c/d.onnx", "/a/b.onnx"])) == {"/a/b.onnx": "b.onnx", "/c/d.onnx": "d.onnx"}
    assert short_names(iter(["/a/b.onnx", "/c/b.onnx"])) == {"/a/b.onnx": "/a/b.onnx", "/c/b.onnx": "/c/b.onnx"}
    assert "[red]x" in shown(row("[red]x"))[0]


def test_a_scenario_is_shown_where_it_is_no_matter_of_course() -> None:
    text, _ = shown(row("a", scenario="offline"))
    assert text.splitlines()[0].split()[-2:] == ["scenario", "verdict"] and " offline " in text
