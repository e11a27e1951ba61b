"""The bundle's README: what it is, how to run it, what was measured and what was not; its head is read by the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..edge.manifest import LABELS, MANIFEST, MANIFEST_DIGEST, SAMPLE_IMAGE, SBOM, SIGNATURE, FileRecord
from . import dense_words
from .licences import card_licence

_MIB = 1 << 20
_MOST_CLASSES = 20

_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}

_PAGE = """\
# {name}

{summary}

{verdict}

## Run it

Inside this folder, with Python 3.8 or newer; nothing is fetched from a network:

```sh
python -m pip install numpy pillow {packages}
python -m edge selftest
python -m edge predict {sample_image}
python -m edge bench
```

`selftest` compares every file with `{manifest}`, then runs the stored images and compares the answers with those of the model that was
trained: exit status 0 means that this machine reproduces them, 1 that it does not. `predict` takes image files and folders, and `--json`
makes every command write JSON. {others}

{use}

## Input and output

| | |
| --- | --- |
| preparation | {preparation} |
| normalisation | (pixel / 255 - mean) / std, mean {mean}, std {std}{folded} |
| input | {inputs} |
| output | {output} |
| classes | {num_classes}, in `{labels}`, one per line in the order of the output: {classes} |

## Variants

{variants}

The default is `{default}`. Latency was measured where the bundle was made; `python -m edge bench` measures it here.

## Proof

Each form of the model was run on the same real images as the one it is judged against.

{hops}
{candidates}
## Limits

{limits}

## Licences

{licences}

## Identity

`{manifest}` holds the SHA-256 of every file, and `{manifest_digest}` that of the manifest, which names this bundle. `{sbom}` lists its
parts (CycloneDX). Where there is a `{signature}`, it is a signature of the whole folder in the format of model-signing.
Made by g2sd-deploy {version}{made_from}.
"""


def model_card(facts: Mapping[str, Any], records: Mapping[str, FileRecord], class_names: Sequence[str]) -> str:
    """Markdown with a YAML head.

    Args:
        facts: The manifest, with or without its ``files``.
        records: Digest and size of the models, by path.
        class_names: In the order of the logits.

    Returns:
        The text of ``README.md``: the same for the same arguments.
    """
    pre, variants = facts["preprocessing"], facts["variants"]
    dense = "task" in facts
    packages = {variant["name"]: _package(variant) for variant in variants}
    inputs = dict.fromkeys(_tensor(variant["input"]) for variant in variants)
    page = _PAGE.format(
        **{key: facts[key] for key in ("name", "default", "version")},
        summary=_summary(facts, len(class_names)),
        verdict=_verdict(facts),
        packages=packages[facts["default"]],
        others=_others(packages, facts["default"]),
        use=dense_words.use_of(facts) if dense else _use(pre),
        preparation=dense_words.preparation_of(facts["task"]) if dense else _preparation(pre),
        mean=_numbers(pre["mean"]),
        std=_numbers(pre["std"]),
        folded="; it is inside the file where that takes uint8" if any(one["input"]["dtype"] == "uint8" for one in variants) else "",
        inputs=" or ".join(inputs),
        output=_output(facts),
        num_classes=len(class_names),
        classes=_listed(class_names),
        variants=_table(_variant_head(dense), [_variant_row(variant, records, facts) for variant in variants]),
        hops=_hops(variants, _kind(facts)),
        candidates=_candidates(facts["provenance"].get("candidates"), _kind(facts)),
        limits="\n".join(f"- {limit}" for limit in _limits(facts)),
        licences=_table(("of", "licence"), [(key, value) for key, value in facts["licences"].items()]),
        made_from=_made_from(facts["provenance"]),
        labels=LABELS,
        manifest=MANIFEST,
        manifest_digest=MANIFEST_DIGEST,
        sample_image=SAMPLE_IMAGE,
        sbom=SBOM,
        signature=SIGNATURE,
    )
    return f"---\n{_head(facts)}---\n\n{page}"


def _kind(facts: Mapping[str, Any]) -> str:
    """The task; empty for a classifier."""
    return str(facts["task"]["kind"]) if "task" in facts else ""


def _use(pre: Mapping[str, Any]) -> str:
    return (
        "In Python: `from edge.manifest import open_bundle`, then `open_bundle(folder).runner().infer(images)` with images as uint8\n"
        f"[batch, {pre['image_px']}, {pre['image_px']}, {pre['num_channels']}]."
    )


def _preparation(pre: Mapping[str, Any]) -> str:
    colour = "grey" if pre["num_channels"] == 1 else "RGB"
    return f"short side to {pre['resize_px']} px ({pre['interpolation']}), centre crop of {pre['image_px']} px, {colour}"


def _output(facts: Mapping[str, Any]) -> str:
    output = facts["variants"][0]["output"]
    return _tensor(output) + (dense_words.output_notes_of(facts["task"], output["name"]) if "task" in facts else "")


def top1_of(variant: Mapping[str, Any]) -> tuple[float, int] | None:
    """Accuracy in [0, 1] of a variant in its proof and on how many images; None where it was not measured."""
    for hop in reversed(variant["hops"]):
        if hop["verdict"] != "not_run" and hop.get("top1_candidate") is not None:
            return float(hop["top1_candidate"]), int(hop.get("num_images", 0))
    return None


def _head(facts: Mapping[str, Any]) -> str:
    """Every scalar is written as JSON, which YAML reads the same way."""
    precisions = sorted({variant["precision"] for variant in facts["variants"]})
    runtimes = sorted({variant["runtime"] for variant in facts["variants"]})
    distilled = ["knowledge-distillation"] if isinstance(facts["provenance"].get("teacher"), str) else []
    task = dense_words.tag_of(facts) if "task" in facts else "image-classification"
    tags = [task, "vision-transformer", *distilled, "g2sd", "onnx", *precisions, *runtimes]
    lines = [f"{key}: {_scalar(value)}" for key, value in card_licence(facts["licences"]["model"]).items()]
    lines += ["library_name: onnx", f"pipeline_tag: {task}", "tags:", *(f"  - {_scalar(tag)}" for tag in dict.fromkeys(tags))]
    return "\n".join([*lines, *_model_index(facts)]) + "\n"


def _model_index(facts: Mapping[str, Any]) -> Iterator[str]:
    """Accuracies for the Hub, where it is known of which images they are."""
    where = facts["provenance"].get("evaluated_on")
    measured = _measured(facts)
    if not isinstance(where, str) or not measured:
        return
    yield from (
        "model-index:",
        f"  - name: {_scalar(facts['name'])}",
        "    results:",
        "      - task:",
        f"          type: {dense_words.tag_of(facts) if 'task' in facts else 'image-classification'}",
    )
    yield from ("        dataset:", f"          name: {_scalar(where)}", f"          type: {_scalar(where)}", "        metrics:")
    for kind, name, share in measured:
        yield from (f"          - type: {kind}", f"            value: {share:.6f}", f"            name: {_scalar(name)}")


def _measured(facts: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Kind of number, name and value of what was measured of each variant."""
    if "task" in facts:
        return [(metric, f"{metric} of {name}", share) for name, metric, share in dense_words.metric_names(facts["variants"])]
    found = {variant["name"]: top1 for variant in facts["variants"] if (top1 := top1_of(variant)) is not None}
    return [("accuracy", f"top-1 of {name}", share) for name, (share, _) in found.items()]


def _scalar(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _summary(facts: Mapping[str, Any], num_classes: int) -> str:
    target = facts["target"]
    what = f" ({description.rstrip('.')})" if (description := target.get("description", "")) else ""
    kind = dense_words.summary_of(facts) if "task" in facts else "An image classifier"
    return (
        f"{kind} for {num_classes} classes, made for `{target['name']}`{what}. It is a vision transformer "
        "that carries the proof of being the model that was trained."
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    match facts["verdict"]:
        case "passed":
            return "**Proof passed**" + (f": {facts['reason']}." if facts["reason"] else ".")
        case "failed":
            return f"**PROOF FAILED: do not use this bundle.** {facts['reason']}"
        case _:
            return f"**Not proven**: {facts['reason']}"


def _variant_head(dense: bool) -> tuple[str, ...]:
    return ("variant", "file", "size", "runtime", "measured" if dense else "top-1", "p50 latency", "verdict")


def _variant_row(variant: Mapping[str, Any], records: Mapping[str, FileRecord], facts: Mapping[str, Any]) -> tuple[str, ...]:
    top1, dense = top1_of(variant), "task" in facts
    verdict = variant["verdict"] + (f": {variant['reason']}" if variant["reason"] else "")
    record = records.get(variant["file"])
    return (
        f"`{variant['name']}`" + (" (default)" if variant["name"] == facts["default"] else ""),
        f"`{variant['file']}`",
        f"{record.bytes / _MIB:.1f} MiB" if record else "",
        _settings(variant),
        dense_words.metrics_told(variant) if dense else f"{top1[0]:.2%} of {top1[1]}" if top1 else "not measured",
        _latency(variant["latency"]),
        verdict,
    )


def _settings(variant: Mapping[str, Any]) -> str:
    match variant["runtime"]:
        case "onnxruntime":
            return f"ONNX Runtime, {variant['settings'].get('provider', '')}"
        case "openvino":
            return f"OpenVINO, what stays float in {variant['settings'].get('inference_precision', '')}"
        case runtime:
            found = variant["settings"]
            known = [str(found[key]) for key in ("version", "compute_capability") if found.get(key)]
            return " ".join(["TensorRT for RTX" if runtime == "tensorrt_rtx" else "TensorRT", *known])


def _latency(latency: Mapping[str, Any] | None) -> str:
    if latency is None or "p50_ms" not in latency:
        return "not measured"
    details = [f"{word} {latency[key]}" for key, word in (("batch", "batch"), ("threads", "threads")) if key in latency]
    return f"{latency['p50_ms']:.2f} ms" + (f" ({', '.join(details)})" if details else "")


def _hops(variants: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Hops that several variants share once."""
    rows = dict.fromkeys(_hop_row(hop, kind) for variant in variants for hop in variant["hops"])
    heads = dense_words.hop_heads(kind) if kind else ("flipped", "largest logit difference", "least cosine", "mean KL")
    return _table(("form", "against", "verdict", "images", *heads), list(rows)) if rows else "None was run."


def _hop_row(hop: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    verdict = hop["verdict"] + (f": {hop['reason']}" if hop["reason"] else "")
    logits = ("flipped", "max_abs_logit_diff", "min_cosine", "mean_kl")
    values = dense_words.hop_cells(hop, kind) if kind else tuple(_shown(hop.get(key)) for key in logits)
    return (hop["name"], hop["after"], verdict, _shown(hop.get("num_images")), *values)


def _candidates(candidates: object, kind: str) -> str:
    """What was tried, also where it is not in the bundle."""
    if not isinstance(candidates, list) or not candidates:
        return ""
    heads = dense_words.candidate_heads(kind) if kind else ("top-1", "points lost", "decisions flipped")
    rows = [_candidate_row(candidate, kind) for candidate in candidates]
    return f"\nWhat was tried for this device:\n\n{_table(('tried', 'verdict', *heads, 'shipped by default'), rows)}\n"


def _candidate_row(candidate: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    verdict = candidate["verdict"] + (f": {candidate['reason']}" if candidate.get("reason") else "")
    ships = "yes" if candidate.get("chosen") else "no"
    if kind:
        return (candidate["name"], verdict, *dense_words.candidate_cells(candidate, kind), ships)
    top1, lost = candidate.get("top1"), candidate.get("drop_points")
    shares = (f"{top1:.2%}" if top1 is not None else "", f"{lost:.2f}" if lost is not None else "")
    return (candidate["name"], verdict, *shares, _shown(candidate.get("flipped")), ships)


def _limits(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from dense_words.limits_of(facts) if "task" in facts else _limits_of_classifier(facts)
    if merging := facts["provenance"].get("token_merging"):
        yield _merging(merging)
    for variant in facts["variants"]:
        if variant["verdict"] != "passed":
            yield f"`{variant['name']}` is not proven ({variant['verdict']}: {variant['reason']})."
    unknown = [key for key, value in facts["licences"].items() if value == "unknown"]
    if unknown:
        yield f"The licence of the {_words(unknown)} is not known; find it out before you pass the bundle on."


def _limits_of_classifier(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "It knows its classes only, and answers one of them for every image."
    yield "The edges of an image that is not square are cut away."
    yield "Probabilities are a softmax of the logits; a calibration error, where the proof holds one, tells how far to trust them."
    if not any(top1_of(variant) for variant in facts["variants"]):
        yield "Its accuracy is not recorded here."


def _merging(merging: Mapping[str, Any]) -> str:
    """Tokens that are merged, and what that costs against the model that was trained."""
    text = f"It merges tokens: each block takes {merging['merged_per_block']} patches away that are like others"
    drop = merging.get("drop")
    if drop is None:
        return f"{text}; what that costs in accuracy is not known."
    low, high = (100 * limit for limit in drop["interval"])
    shares = f"{merging['top1_merged']:.2%} in place of {merging['top1_plain']:.2%}"
    lost = f"{100 * drop['drop']:.2f} points lost (95 % interval {low:.2f} to {high:.2f})"
    return f"{text}. Against the same model without merging, on the same {merging['num_images']} images, top-1 is {shares}: {lost}."


def _made_from(provenance: Mapping[str, Any]) -> str:
    told = [f"{key} {value}" for key in ("recipe", "student", "teacher", "data") if isinstance(value := provenance.get(key), str)]
    return f" ({'; '.join(told)})" if told else ""


def _package(variant: Mapping[str, Any]) -> str:
    on_gpu = variant["runtime"] == "onnxruntime" and variant["settings"].get("provider") != "CPUExecutionProvider"
    return "onnxruntime-gpu" if on_gpu else _PACKAGES[variant["runtime"]]


def _others(packages: Mapping[str, str], default: str) -> str:
    """What it takes to run another variant than the default."""
    needs = [f"`{name}` ({package})" for name, package in packages.items() if name != default]
    return f"`--variant NAME` runs another variant: {', '.join(needs)}." if needs else "There is one variant."


def _tensor(tensor: Mapping[str, Any]) -> str:
    layout = f" {tensor['layout']}" if "layout" in tensor else ""
    return f"`{tensor['name']}`: {tensor['dtype']} [{', '.join(map(str, tensor['shape']))}]{layout}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_CLASSES
    return _cell(", ".join(names[:_MOST_CLASSES]) + (f" and {rest} more" if rest > 0 else ""))


def _words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and the {names[-1]}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
