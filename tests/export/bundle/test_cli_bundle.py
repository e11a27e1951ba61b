"""`g2sd bundle`: exit codes, what is printed where, and its refusals."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import g2sd_deploy
import g2sd_export
from g2sd_deploy.cli_bundle import bundle_app


@dataclass(frozen=True)
class Answer:
    """What a command left: exit status, and what it wrote where."""

    code: int
    out: str
    err: str


def command(*arguments: object) -> Answer:
    result = CliRunner().invoke(bundle_app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    pytest.importorskip("OpenSSL", reason="needs the packages model-signing and pyOpenSSL")
    pytest.importorskip("model_signing", reason="needs the package model-signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"sesame")
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "private.pem").write_bytes(secret)
    (tmp_path / "public.pem").write_bytes(public)
    (tmp_path / "password").write_text("sesame\n")
    return tmp_path / "private.pem", tmp_path / "public.pem"


def test_verify_says_that_all_is_well(pristine_bundle: Path, manifest: dict[str, Any]) -> None:
    answer = command("verify", pristine_bundle)
    assert (answer.code, answer.err) == (0, "")
    first, second, third = answer.out.splitlines()
    assert first == f"{pristine_bundle}: {len(manifest['files'])} files listed; every file is the one that was written"
    assert second == "signature not_run: the bundle is not signed"
    assert re.fullmatch("bundle sha256 [0-9a-f]{64}", third)


def test_verify_names_every_deviation_and_exits_1(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("[red]x[/]\n")
    (bundle / "sample.png").unlink()
    (bundle / "[bold]extra").write_text("")
    answer = command("verify", bundle)
    assert answer.code == 1 and "not the bundle that was written: 3 deviations" in answer.out
    for name, problem in (("labels.txt", "changed"), ("sample.png", "missing"), (r"\[bold\]extra", "extra")):
        assert re.search(rf"^{name} +{problem} ", answer.out, re.MULTILINE), name
    found = json.loads(command("verify", bundle, "--json").out)
    named = [(one["file"], one["problem"]) for one in found["deviations"]]
    assert named == [("labels.txt", "changed"), ("sample.png", "missing"), ("[bold]extra", "extra")]
    assert found["signature"] == {"verdict": "not_run", "reason": "the bundle is not signed"}


def test_signing_and_checking(bundle: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    answer = command("sign", bundle, "--key", pair[0], "--password-file", tmp_path / "password")
    assert (answer.code, answer.out, answer.err) == (0, f"{bundle / 'manifest.sig'}\n", "")
    assert "signature not_run: give --key, or --identity and --issuer, to check it" in command("verify", bundle).out
    answer = command("verify", bundle, "--key", pair[1], "--json")
    assert answer.code == 0 and json.loads(answer.out)["signature"] == {"verdict": "passed", "reason": ""}
    (bundle / "labels.txt").write_text("x\n")
    answer = command("verify", bundle, "--key", pair[1])
    assert answer.code == 1 and "signature failed: " in answer.out and "Hash mismatch for 'labels.txt'" in answer.out


def test_a_bundle_that_is_not_signed_fails_where_a_key_is_given(pristine_bundle: Path, pair: tuple[Path, Path]) -> None:
    answer = command("verify", pristine_bundle, "--key", pair[1])
    assert answer.code == 1 and "manifest.sig: missing, so nobody vouches for this bundle" in answer.out


def test_diff_is_0_for_the_same_and_1_for_others(
    pristine_bundle: Path, bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    answer = command("diff", pristine_bundle, bundle)
    assert (answer.code, answer.out) == (0, "the two bundles are the same to the byte\n")
    assert json.loads(command("diff", pristine_bundle, bundle, "--json").out) == {"same": True, "differences": []}
    other = make_bundle(tmp_path / "other", name="[red]other[/]")
    answer = command("diff", pristine_bundle, other)
    assert answer.code == 1 and re.search(r"^other +name +tiny +\[red\]other\[/\]", answer.out, re.MULTILINE)
    found = json.loads(command("diff", pristine_bundle, other, "--json").out)
    assert found["same"] is False and {"section": "other", "what": "name", "left": "tiny", "right": "[red]other[/]"} in found["differences"]


def test_show_lists_variants_and_licences(pristine_bundle: Path) -> None:
    answer = command("show", pristine_bundle)
    assert answer.code == 0 and answer.out.startswith("tiny, 6 classes, for cpu-x86; by g2sd-deploy 1.2.3\nproof passed\n")
    assert re.search(r"^fp32-onnxruntime \* +models/fp32.onnx +0\.1 +81.00% +passed", answer.out, re.MULTILINE)
    assert "licences: model CC-BY-NC-4.0, code Apache-2.0 AND MIT, teacher unknown, data MIT" in answer.out
    told = json.loads(command("show", pristine_bundle, "--json").out)
    assert told["num_classes"] == 6 and told["manifest"]["default"] == "fp32-onnxruntime" and len(told["digest"]) == 64


def test_show_exits_1_where_the_proof_failed(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    answer = command("show", make_bundle(tmp_path / "b", verdict="failed", reason="3 decisions flip"))
    assert answer.code == 1 and "proof failed: 3 decisions flip" in answer.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "nowhere"), "nowhere: holds neither manifest.json nor manifest.sha256, so it is no bundle"),
        (("verify", "nowhere", "--identity", "me"), "--identity and --issuer belong together; give both"),
        (("verify", "nowhere", "--key", "k", "--identity", "me", "--issuer", "u"), "--key and --identity are two kinds of signature"),
        (("sign", "nowhere"), "sign with --key PEM or with --sigstore; give one of the two"),
        (("sign", "nowhere", "--key", "k", "--sigstore"), "give one of the two"),
        (("sign", "nowhere", "--key", "k", "--staging"), "--token-file and --staging belong to --sigstore"),
        (("sign", "nowhere", "--sigstore", "--password-file", "k"), "--password-file belongs to --key"),
        (("sign", "nowhere", "--key", "k", "--password-file", "absent"), "absent: cannot be read"),
        (("sign", "nowhere", "--key", "absent.pem"), "absent.pem: no such private key"),
        (("diff", "nowhere", "nowhere"), "manifest.json: missing, so this is no bundle"),
        (("show", "nowhere"), "manifest.json: missing, so this is no bundle"),
        (("serve-sample", "nowhere"), "manifest.json: missing, so this is no bundle"),
    ],
)
def test_what_is_refused_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = command(*arguments)
    assert (answer.code, answer.out) == (2, "") and words in answer.err
    assert answer.err.startswith("error: ") and answer.err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_page_is_served_until_ctrl_c(pristine_bundle: Path) -> None:
    roots = {str(Path(str(package.__file__)).parent.parent) for package in (g2sd_deploy, g2sd_export)}
    arguments = ["serve-sample", str(pristine_bundle), "--port", "0", "--threads", "1"]
    # A shell that starts tests in the background makes its children ignore SIGINT.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from g2sd_deploy.cli_bundle import bundle_app; bundle_app({arguments!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(roots)), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().strip()
        try:
            with urllib.request.urlopen(f"{address}facts", timeout=30) as reply:
                assert json.load(reply)["name"] == "tiny"
        finally:
            process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=30) == 130
        finally:
            process.kill()
        assert process.stderr.read() == "error: stopped; the page is gone\n"


@pytest.mark.parametrize("name", ["verify", "sign", "diff", "show", "serve-sample"])
def test_help_imports_nothing_slow(name: str) -> None:
    code = f"""
import sys, contextlib, io
from g2sd_deploy.cli_bundle import bundle_app
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    bundle_app([{name!r}, "--help"])
print(sorted({{"torch", "numpy", "PIL", "onnxruntime", "rich", "jaxtyping", "model_signing", "g2sd_export.bundle"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
