"""Sign a bundle, and check a signature: who vouches for it, beside what it is; by the package ``model-signing``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..edge.errors import IntegrityError, UserError
from ..edge.manifest import SIGNATURE
from .verifying import verify

_MAKE_A_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out private.pem && openssl ec -in private.pem -pubout -out public.pem"


@dataclass(frozen=True)
class Identity:
    """Whom a Sigstore signature has to be of.

    Attributes:
        name: E-mail address, or the URI of a workflow.
        issuer: URL of who vouches for the name, such as https://accounts.google.com.
    """

    name: str
    issuer: str


def sign_with_key(folder: Path, private_key: Path, *, password: str | None = None) -> Path:
    """Sign a bundle with an elliptic-curve key of one's own; talks to no network.

    Args:
        folder: The bundle; has to verify. A signature that is there is replaced.
        private_key: PEM file of a key on P-256, P-384 or P-521.
        password: Of the key, where it is encrypted.

    Returns:
        The signature, ``manifest.sig`` inside the bundle: over every file but itself, as ``model_signing verify`` reads it.

    Raises:
        UserError: The key cannot be used, the package is absent, or the bundle is damaged.
    """
    _refuse_unless_file(private_key, "private key")
    with _explained(f"{private_key}: cannot be used as a private key on P-256, P-384 or P-521; make a pair with: {_MAKE_A_KEY}"):
        secret: Any = None if password is None else password.encode()
        config = _package().signing.Config().use_elliptic_key_signer(private_key=private_key, password=secret)
    return _sign(folder, config)


def sign_with_sigstore(folder: Path, *, identity_token: str | None = None, staging: bool = False) -> Path:
    """Sign a bundle with one's identity through Sigstore's public service; needs a network.

    Args:
        folder: The bundle; has to verify. A signature that is there is replaced.
        identity_token: OpenID Connect token; None takes the workflow's own where there is one, else a browser is opened.
        staging: Use the service's test instance.

    Returns:
        The signature, ``manifest.sig`` inside the bundle.

    Raises:
        UserError: The package is absent, the service cannot be reached, or the bundle is damaged.
    """
    with _explained("Sigstore cannot be used; it needs a network, or sign with --key"):
        config = _package().signing.Config()
        config.use_sigstore_signer(identity_token=identity_token, use_ambient_credentials=identity_token is None, use_staging=staging)
    return _sign(folder, config)


def check_key_signature(folder: Path, public_key: Path) -> None:
    """Check that a bundle is the one that the holder of a key signed.

    Args:
        folder: The bundle.
        public_key: PEM file.

    Raises:
        IntegrityError: There is no signature, it is another key's, or a file is not the one that was signed; the message names them.
        UserError: The key cannot be used, or the package is absent.
    """
    _refuse_unless_file(public_key, "public key")
    with _explained(f"{public_key}: cannot be used as a public key on P-256, P-384 or P-521; make a pair with: {_MAKE_A_KEY}"):
        config = _package().verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    _check(folder, config, f"the key {public_key}")


def check_sigstore_signature(folder: Path, identity: Identity, *, staging: bool = False) -> None:
    """Check that a bundle is the one that somebody signed through Sigstore; needs a network for the service's roots of trust.

    Args:
        folder: The bundle.
        identity: Of whom it has to be.
        staging: The service's test instance was used.

    Raises:
        IntegrityError: As of ``check_key_signature``.
        UserError: The package is absent, or the service cannot be reached.
    """
    with _explained("Sigstore cannot be used; its roots of trust are fetched from a network"):
        config = _package().verifying.Config()
        config.use_sigstore_verifier(identity=identity.name, oidc_issuer=identity.issuer, use_staging=staging)
    _check(folder, config, f"{identity.name} ({identity.issuer})")


def _sign(folder: Path, config: Any) -> Path:
    if deviations := verify(folder).deviations:
        first = deviations[0]
        raise UserError(f"{folder / first.file}: {first.detail}; {len(deviations)} in all, and only a bundle that verifies is signed")
    signature, part = folder / SIGNATURE, folder.parent / f".{folder.name}.{SIGNATURE}"
    with _explained(f"{folder}: cannot be signed"):
        # Python's own byte code is left out: it comes and goes, and what it is compiled from is signed.
        ignored = [SIGNATURE, *sorted({path.relative_to(folder).as_posix() for path in folder.rglob("__pycache__")} | {"edge/__pycache__"})]
        config.set_hashing_config(_package().hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=False))
        try:
            config.sign(folder, part)
            part.replace(signature)
        finally:
            part.unlink(missing_ok=True)
    return signature


def _check(folder: Path, config: Any, signer: str) -> None:
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise IntegrityError(f"{signature}: missing, so nobody vouches for this bundle; sign it with: g2sd bundle sign")
    with _explained(f"{signature}: is no signature of {signer} for what lies in this folder", IntegrityError):
        config.verify(folder, signature)


def _refuse_unless_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such {what}; make a pair with: {_MAKE_A_KEY}")


@contextmanager
def _explained(message: str, kind: Callable[[str], UserError] = UserError) -> Iterator[None]:
    """Tell what any error in the package or the service means; they share no base class."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        raise kind(f"{message} ({type(error).__name__}{f': {told}' if told else ''})") from error


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the cryptography under it, about what it does itself
            import model_signing
            import model_signing.hashing
            import model_signing.signing
            import model_signing.verifying
    except ImportError as error:
        raise UserError(
            f"signatures need the package model-signing ({error}); install it with: pip install model-signing pyOpenSSL"
        ) from error
    return model_signing
