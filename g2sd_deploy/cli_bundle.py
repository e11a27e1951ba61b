"""`g2sd bundle`: verify, sign, compare and look at bundles."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from g2sd_deploy import cli_output
from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.errors import EXIT_FAILED, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from g2sd_export.bundle.verifying import Verified
    from g2sd_export.edge.manifest import Bundle, Variant

bundle_app = typer.Typer(help="Verify, sign, compare and look at bundles.", no_args_is_help=True, rich_markup_mode=None)

_MIB = 1 << 20
_MOST_ROWS = 40
_MOST_CHARACTERS = 60

BundleArg = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
StagingOpt = Annotated[bool, typer.Option("--staging", help="Sigstore's test instance.")]


@bundle_app.command("verify")
@tell_errors
def verify_bundle(
    bundle: BundleArg,
    key: Annotated[Path | None, typer.Option("--key", metavar="PEM", help="Public key that the signature has to fit.")] = None,
    identity: Annotated[str | None, typer.Option("--identity", help="Who has to have signed with Sigstore; needs --issuer.")] = None,
    issuer: Annotated[str | None, typer.Option("--issuer", metavar="URL", help="Who vouches for the identity.")] = None,
    staging: StagingOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Compare every file with the manifest, and name each that is changed, missing or not listed; exit status 1 if there is any.

    A bundle that is intact may still hold a model whose proof failed: see `g2sd bundle show`.
    """
    from g2sd_export.bundle.verifying import verify

    _refuse_mixed_signers(key, identity, issuer)
    verified = verify(bundle)
    verdict, reason = _signature_verdict(bundle, verified, key, identity, issuer, staging)
    if as_json:
        typer.echo(json.dumps({**verified.to_dict(), "signature": {"verdict": verdict, "reason": reason}}))
    else:
        _print_verified(bundle, verified, f"signature {verdict}" + (f": {reason}" if reason else ""))
    if verified.deviations or verdict == "failed":
        raise typer.Exit(EXIT_FAILED)


@bundle_app.command("sign")
@tell_errors
def sign_bundle(
    bundle: BundleArg,
    key: Annotated[Path | None, typer.Option("--key", metavar="PEM", help="Private key on P-256, P-384 or P-521; no network.")] = None,
    password_file: Annotated[Path | None, typer.Option("--password-file", help="First line: the password of the key.")] = None,
    sigstore: Annotated[bool, typer.Option("--sigstore", help="Sign with your identity through Sigstore; needs a network.")] = False,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="First line: the identity token for Sigstore.")] = None,
    staging: StagingOpt = False,
) -> None:
    """Sign a bundle with a key of yours or with your identity; prints the signature's path."""
    from g2sd_export.bundle import signing

    if (key is None) == (not sigstore):
        raise UserError("sign with --key PEM or with --sigstore; give one of the two")
    if key is not None:
        if token_file or staging:
            raise UserError("--token-file and --staging belong to --sigstore; leave them out with --key")
        typer.echo(str(signing.sign_with_key(bundle, key, password=_first_line(password_file))))
        return
    if password_file:
        raise UserError("--password-file belongs to --key; leave it out with --sigstore")
    typer.echo(str(signing.sign_with_sigstore(bundle, identity_token=_first_line(token_file), staging=staging)))


@bundle_app.command("diff")
@tell_errors
def diff_bundle(
    left: Annotated[Path, typer.Argument(metavar="LEFT", help="Folder of a bundle.")],
    right: Annotated[Path, typer.Argument(metavar="RIGHT", help="Folder of another bundle.")],
    as_json: JsonOpt = False,
) -> None:
    """Show what differs between two bundles: classes, preparation, verdicts, numbers, files; exit status 1 if anything does."""
    from g2sd_export.bundle.diffing import diff_bundles

    found = diff_bundles(left, right)
    if as_json:
        typer.echo(json.dumps({"same": not found, "differences": [difference.to_dict() for difference in found]}))
    elif not found:
        typer.echo("the two bundles are the same to the byte")
    else:
        table = cli_output.new_table("", "what", str(left), str(right))
        for one in found[:_MOST_ROWS]:
            table.add_row(*cli_output.texts(one.section, one.what, _cut(one.left), _cut(one.right)))
        printed = cli_output.console(stderr=False)
        printed.print(table)
        rest = f"; --json lists the other {len(found) - _MOST_ROWS}" if len(found) > _MOST_ROWS else ""
        printed.print(f"{len(found)} differences{rest}", highlight=False)
    if found:
        raise typer.Exit(EXIT_FAILED)


@bundle_app.command("show")
@tell_errors
def show_bundle(bundle: BundleArg, as_json: JsonOpt = False) -> None:
    """Show what a bundle holds: its variants, verdicts, numbers and licences; exit status 1 if its proof failed."""
    from g2sd_export.edge.manifest import open_bundle, read_manifest

    opened = open_bundle(bundle)
    if as_json:
        manifest, digest = read_manifest(bundle)
        typer.echo(json.dumps({"digest": digest, "num_classes": len(opened.class_names), "manifest": manifest}))
    else:
        _print_shown(opened)
    if opened.verdict == "failed":
        raise typer.Exit(EXIT_FAILED)


@bundle_app.command("serve-sample")
@tell_errors
def serve_sample(
    bundle: BundleArg,
    variant: Annotated[str | None, typer.Option("--variant", help="Variant that answers; the bundle's default by default.")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of 127.0.0.1; 0 takes a free one.")] = 8000,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; one per core by default.")] = None,
) -> None:
    """Show the sample with this machine's answers on a page at 127.0.0.1, and take images of yours; for a look, not for production.

    Prints the address; Ctrl-C ends it.
    """
    from g2sd_export.bundle.serving import HOST, make_server, show

    with cli_output.interrupted("the page is gone"), make_server(show(bundle, variant=variant, threads=threads), port=port) as server:
        typer.echo(f"http://{HOST}:{server.server_port}/")
        server.serve_forever()


def _refuse_mixed_signers(key: Path | None, identity: str | None, issuer: str | None) -> None:
    if (identity is None) != (issuer is None):
        raise UserError("--identity and --issuer belong together; give both")
    if key is not None and identity is not None:
        raise UserError("--key and --identity are two kinds of signature; give one of them")


def _signature_verdict(
    bundle: Path, verified: "Verified", key: Path | None, identity: str | None, issuer: str | None, staging: bool
) -> tuple[str, str]:
    from g2sd_export.bundle import signing
    from g2sd_export.edge.errors import IntegrityError

    if key is None and identity is None:
        reason = "give --key, or --identity and --issuer, to check it" if verified.signed else "the bundle is not signed"
        return "not_run", reason
    try:
        if key is not None:
            signing.check_key_signature(bundle, key)
        elif identity is not None and issuer is not None:
            signing.check_sigstore_signature(bundle, signing.Identity(identity, issuer), staging=staging)
    except IntegrityError as error:
        return "failed", str(error)
    return "passed", ""


def _print_verified(bundle: Path, verified: "Verified", signature: str) -> None:
    printed = cli_output.console(stderr=False)
    if verified.deviations:
        table = cli_output.new_table("file", "problem", "detail")
        for one in verified.deviations:
            table.add_row(*cli_output.texts(cli_output.shown(one.file), one.problem, one.detail, style="bold red"))
        printed.print(table)
    num = len(verified.deviations)
    verdict = f"not the bundle that was written: {num} deviation{'s' * (num != 1)}" if num else "every file is the one that was written"
    unchecked = f"; {len(verified.unchecked)} files of Python's byte code were not looked at" if verified.unchecked else ""
    printed.print(f"{bundle}: {verified.num_files} files listed; {verdict}{unchecked}", soft_wrap=True, highlight=False, markup=False)
    printed.print(signature, soft_wrap=True, highlight=False, markup=False)
    printed.print(f"bundle sha256 {verified.digest or 'unknown'}", soft_wrap=True, highlight=False)


def _print_shown(bundle: "Bundle") -> None:
    table = cli_output.new_table("variant", "file", "MiB", "top-1" if bundle.task is None else "measured", "p50 ms", "verdict")
    for variant in bundle.variants:
        name = f"{variant.name} *" if variant.name == bundle.default else variant.name
        verdict = f"{variant.verdict}: {variant.reason}" if variant.reason else variant.verdict
        size = f"{bundle.files[variant.file].bytes / _MIB:.1f}"
        table.add_row(*cli_output.texts(name, variant.file, size, *_numbers(variant), verdict))
    printed = cli_output.console(stderr=False)
    for line in _facts(bundle):
        printed.print(line, soft_wrap=True, highlight=False, markup=False)
    printed.print(table)
    printed.print("* is the default", highlight=False)


def _facts(bundle: "Bundle") -> "Iterable[str]":
    yield f"{bundle.name}, {len(bundle.class_names)} classes, for {bundle.target.get('name', 'no target')}; by g2sd-deploy {bundle.version}"
    yield f"proof {bundle.verdict}" + (f": {bundle.reason}" if bundle.reason else "")
    yield f"licences: {', '.join(f'{key} {value}' for key, value in bundle.licences.items())}"
    yield f"sha256 {bundle.digest}"


def _numbers(variant: "Variant") -> tuple[str, str]:
    """Accuracy and latency as far as they are known."""
    from g2sd_export.bundle.dense_words import metrics_of
    from g2sd_export.bundle.model_card import top1_of

    top1, (metrics, _) = top1_of(variant.to_dict()), metrics_of(variant.to_dict())
    shares = [f"{top1[0]:.2%}"] if top1 else [f"{name} {share:.2%}" for name, share in metrics.items()]
    p50_ms = (variant.latency or {}).get("p50_ms")
    return ", ".join(shares), f"{p50_ms:.2f}" if p50_ms is not None else ""


def _first_line(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a text file") from error


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
