"""A model of timm by its name, with weights from the hub or from a file."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.predictors.predictor import Predictor
from g2sd_deploy.predictors.preprocessing import AskedPreprocessing, Said, settle

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_NAMED = 3


def timm_predictor(reference: str, device: "torch.device", asked: AskedPreprocessing | None) -> Predictor:
    """`NAME`, `timm:NAME`, or either with `@WEIGHTS`, on torch.

    Args:
        reference: Name in timm, with its tag where that matters, and perhaps a file of weights.
        device: Where to compute.
        asked: Must agree with timm's own preprocessing, that of `validate.py`: the size for testing where timm has one.

    Raises:
        UserError: timm does not know the name, the weights do not fit, the hub is out of reach, or images are not prepared by a resize of
            the short side and a centre crop of a square.
    """
    from g2sd_deploy.artifact import sha256_of
    from g2sd_deploy.evaluation.torch_runner import TorchRunner

    name, _, file = reference.removeprefix("timm:").partition("@")
    weights = Path(file).expanduser() if file else None
    model = _created(reference, name, weights)
    if not getattr(model, "num_classes", 0):
        raise UserError(f"{reference}: gives features and no logits; take a model of timm that has classes")
    config = _config(model.pretrained_cfg) if weights is None else _config_of_file(reference, name, model.pretrained_cfg)
    pre = settle(reference, [_said(reference, config)], asked)
    state = model.state_dict()
    return Predictor(
        name=reference,
        kind="timm",
        preprocessing=pre,
        class_names=_class_names(model),
        num_classes=int(model.num_classes),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        model_bytes=weights.stat().st_size if weights else sum(value.numel() * value.element_size() for value in state.values()),
        digest=sha256_of(weights) if weights else digest_of_weights(state),
        open=lambda threads: TorchRunner(model, pre, device=device, threads=threads),
        module=lambda: model,
    )


def digest_of_weights(state: "dict[str, Tensor]") -> str:
    """SHA-256 over every tensor's name, kind, shape and bytes, in the order of their names."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _created(reference: str, name: str, weights: Path | None) -> Any:
    import timm

    if not timm.is_model(name):
        raise UserError(f"{reference}: timm {timm.__version__} knows no model {name}; `timm.list_models()` lists those it knows")
    if weights is not None and not weights.is_file():
        raise UserError(f"{reference}: there is no weight file {weights}")
    try:
        model = timm.create_model(name, pretrained=weights is None)
    except OSError as error:  # of huggingface_hub, and of the network below it
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{reference}: its weights cannot be fetched from the hub ({type(error).__name__}: {reason:.160}); "
            f"go online, or fetch the file elsewhere and name it: {name}@FILE"
        ) from None
    except RuntimeError as error:  # an unknown tag, or no weights at all
        raise UserError(
            f"{reference}: timm refuses it ({error}); choose from `timm.list_pretrained('{name.partition('.')[0]}*')`"
        ) from None
    if weights is not None:
        _fill(weights, name, model)
    return model.eval()


def _fill(path: Path, name: str, model: "nn.Module") -> None:
    """Load every weight, or say which do not fit."""
    from g2sd_deploy.models.weight_file import misfit_of
    from g2sd_deploy.zoo.weights import load_weights

    weights, left_out = load_weights(path)
    if misfit := misfit_of(model.state_dict(), weights, left_out):
        raise UserError(f"{path}: its weights are not those of timm's {name}: {misfit}")
    model.load_state_dict(weights)


def _config_of_file(reference: str, name: str, own: Any) -> dict[str, Any]:
    """timm's preprocessing for weights from a file: without a tag, all that timm has under the name must agree on it."""
    import timm

    tagged = [] if "." in name else timm.list_models(f"{name}.*", pretrained=True)
    found = {one: _config(_of_tag(one)) for one in tagged}
    if len({repr(sorted(config.items())) for config in found.values()}) > 1:
        listed = ", ".join(list(found)[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        raise UserError(
            f"{reference}: timm has several weights of this name, whose images are prepared differently ({listed}); "
            "name the one that the file holds"
        )
    return _config(own)


def _of_tag(tagged: str) -> Any:
    """What timm has written down for a name with its tag."""
    import timm

    described: Any = timm.get_pretrained_cfg(tagged)
    return described.to_dict()


def _config(pretrained_cfg: Any) -> dict[str, Any]:
    from timm.data.config import resolve_data_config

    return dict(resolve_data_config(pretrained_cfg=pretrained_cfg, use_test_size=True))  # type: ignore[no-untyped-call]


def _said(reference: str, config: dict[str, Any]) -> Said:
    """timm's evaluation as resize and centre crop; its crop share becomes pixels as timm does it, rounded down."""
    channels, height, width = config["input_size"]
    if height != width:
        raise UserError(f"{reference}: takes images of {width} x {height} pixels; wanted a model of square images")
    if config["crop_mode"] != "center":
        raise UserError(
            f"{reference}: timm prepares its images by {config['crop_mode']}; wanted a model whose images are cut by a centre crop"
        )
    return Said(
        "timm",
        {
            "image_px": height,
            "resize_px": int(height / config["crop_pct"]),
            "num_channels": channels,
            "mean": list(config["mean"]),
            "std": list(config["std"]),
            "interpolation": config["interpolation"],
        },
    )


def _class_names(model: Any) -> tuple[str, ...] | None:
    """WordNet ids where timm knows which classes of ImageNet a model tells apart."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    return tuple(ImageNetInfo(subset).label_names())  # type: ignore[no-untyped-call]
