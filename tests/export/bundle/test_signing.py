"""A signature holds for the bundle that was signed, by the key that signed it, and for nothing else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.bundle import seal, signing
from g2sd_export.bundle.verifying import verify
from g2sd_export.edge.errors import IntegrityError, UserError
from g2sd_export.edge.manifest import open_bundle

pytest.importorskip("cryptography", reason="needs the package cryptography")
try:
    signing._package()
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_pair(folder: Path, *, curve: ec.EllipticCurve | None = None, password: bytes | None = None) -> tuple[Path, Path]:
    """Private and public PEM files."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "keys"
    folder.mkdir()
    return make_pair(folder)


@pytest.fixture
def signed(bundle: Path, pair: tuple[Path, Path]) -> Path:
    assert signing.sign_with_key(bundle, pair[0]) == bundle / "manifest.sig"
    return bundle


def test_a_signed_bundle_is_still_the_bundle_and_its_signature_holds(signed: Path, pair: tuple[Path, Path], pristine_bundle: Path) -> None:
    signing.check_key_signature(signed, pair[1])
    verified = verify(signed)
    assert verified.signed and verified.deviations == ()
    assert open_bundle(signed).digest == open_bundle(pristine_bundle).digest
    assert [path.name for path in signed.parent.iterdir() if path.name.startswith(".")] == []


def test_it_holds_wherever_the_folder_lies_and_whatever_python_left_in_it(signed: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.move(signed, moved)
    (moved / "edge" / "__pycache__").mkdir()
    (moved / "edge" / "__pycache__" / "runner.cpython-312.pyc").write_bytes(b"code")
    signing.check_key_signature(moved, pair[1])
    assert signing.sign_with_key(moved, pair[0]).is_file()  # again, over the first
    signing.check_key_signature(moved, pair[1])


@pytest.mark.parametrize("name", ["models/fp32.onnx", "manifest.json", "manifest.sha256", "edge/runner.py"])
def test_a_change_of_any_file_breaks_it(name: str, signed: Path, pair: tuple[Path, Path]) -> None:
    content = (signed / name).read_bytes()
    (signed / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=f"is no signature of the key .* for what lies in this folder .*Hash mismatch for .*{name}"):
        signing.check_key_signature(signed, pair[1])


def test_a_bundle_that_was_written_anew_around_it_breaks_it(signed: Path, pair: tuple[Path, Path], manifest: dict[str, Any]) -> None:
    signature = (signed / "manifest.sig").read_bytes()
    (signed / "labels.txt").write_text("a\nb\nc\nd\ne\nf\n")
    seal(signed, manifest)
    (signed / "manifest.sig").write_bytes(signature)
    assert verify(signed).deviations == ()  # by itself it is a proper bundle: only the signature tells
    with pytest.raises(IntegrityError, match=r"Hash mismatch for .*labels.txt"):
        signing.check_key_signature(signed, pair[1])


def test_files_that_came_or_went_break_it(signed: Path, pair: tuple[Path, Path]) -> None:
    (signed / "extra.txt").write_text("x")
    with pytest.raises(IntegrityError, match=r"Extra files found.*extra.txt"):
        signing.check_key_signature(signed, pair[1])
    (signed / "extra.txt").rename(signed.parent / "extra.txt")
    (signed / "sample.png").unlink()
    with pytest.raises(IntegrityError, match=r"Missing files.*sample.png"):
        signing.check_key_signature(signed, pair[1])


def test_another_key_or_no_signature_fails(signed: Path, tmp_path: Path) -> None:
    _, other = make_pair(tmp_path)
    with pytest.raises(IntegrityError, match="Key mismatch"):
        signing.check_key_signature(signed, other)
    (signed / "manifest.sig").unlink()
    with pytest.raises(IntegrityError, match=r"manifest.sig: missing, so nobody vouches for this bundle; sign it with: g2sd bundle sign"):
        signing.check_key_signature(signed, other)


def test_a_signature_that_was_tampered_with_fails(signed: Path, pair: tuple[Path, Path]) -> None:
    path = signed / "manifest.sig"
    held = json.loads(path.read_text())
    signature = held["dsseEnvelope"]["signatures"][0]
    signature["sig"] = ("A" if signature["sig"][20] != "A" else "B").join((signature["sig"][:20], signature["sig"][21:]))
    path.write_text(json.dumps(held))
    with pytest.raises(IntegrityError, match=r"manifest.sig: is no signature of the key"):
        signing.check_key_signature(signed, pair[1])
    path.write_text("nonsense")
    with pytest.raises(IntegrityError, match=r"manifest.sig: is no signature of the key"):
        signing.check_key_signature(signed, pair[1])


def test_a_damaged_bundle_is_not_signed(bundle: Path, pair: tuple[Path, Path]) -> None:
    (bundle / "labels.txt").write_text("x\n")
    with pytest.raises(UserError, match=r"labels.txt: holds 2 bytes.*1 in all, and only a bundle that verifies is signed"):
        signing.sign_with_key(bundle, pair[0])
    assert not (bundle / "manifest.sig").exists()


def test_an_encrypted_key_needs_its_password(bundle: Path, tmp_path: Path) -> None:
    private, public = make_pair(tmp_path, curve=ec.SECP384R1(), password=b"sesame")
    for password in (None, "wrong"):
        with pytest.raises(UserError, match=r"private.pem: cannot be used as a private key on P-256, P-384 or P-521; make a pair with"):
            signing.sign_with_key(bundle, private, password=password)
    signing.sign_with_key(bundle, private, password="sesame")
    signing.check_key_signature(bundle, public)


def test_a_key_that_is_none_and_a_curve_that_is_not_taken_are_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no key")
    private, public = make_pair(tmp_path, curve=ec.SECP256K1())
    for path in (tmp_path / "text.pem", private):
        with pytest.raises(UserError, match=f"{path.name}: cannot be used as a private key"):
            signing.sign_with_key(bundle, path)
    with pytest.raises(UserError, match=r"public.pem: cannot be used as a public key"):
        signing.check_key_signature(bundle, public)
    with pytest.raises(UserError, match=r"absent.pem: no such private key; make a pair with: openssl ecparam"):
        signing.sign_with_key(bundle, tmp_path / "absent.pem")


def test_the_tool_of_model_signing_reads_it(signed: Path, pair: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(signed)]
    options = ["--signature", str(signed / "manifest.sig"), "--public_key", str(pair[1])]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (signed / "labels.txt").write_text("x\n")
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0


@pytest.mark.parametrize("broken", ["use_sigstore_signer", "sign"])
def test_sigstore_out_of_reach_is_one_line(
    broken: str, bundle: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    config = signing._package().signing.Config
    asked: dict[str, object] = {}

    def no_network(*_: object, **settings: object) -> None:
        asked.update(settings)
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(config, "use_sigstore_signer", lambda self, **settings: asked.update(settings))
    monkeypatch.setattr(config, broken, no_network)
    with pytest.raises(UserError, match=r"\(ConnectionError: name resolution failed\)"):
        signing.sign_with_sigstore(bundle, identity_token="token", staging=True)
    assert asked["identity_token"] == "token" and asked["use_staging"] is True and asked["use_ambient_credentials"] is False
    assert not (bundle / "manifest.sig").exists()


def test_whom_sigstore_has_to_name_is_passed_on(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = signing._package().verifying.Config
    asked: list[Callable[..., object] | dict[str, object]] = []
    monkeypatch.setattr(config, "use_sigstore_verifier", lambda self, **settings: asked.append(settings))
    monkeypatch.setattr(config, "verify", lambda self, folder, signature: asked.append({"folder": folder, "signature": signature}))
    signing.check_sigstore_signature(signed, signing.Identity("me@example.org", "https://accounts.example.org"))
    assert asked == [
        {"identity": "me@example.org", "oidc_issuer": "https://accounts.example.org", "use_staging": False},
        {"folder": signed, "signature": signed / "manifest.sig"},
    ]


def test_without_the_package_one_line_says_what_to_install(bundle: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(
        UserError, match=r"signatures need the package model-signing .*; install it with: pip install model-signing pyOpenSSL"
    ):
        signing.sign_with_key(bundle, pair[0])
