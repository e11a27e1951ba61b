"""A TensorRT engine, described by the JSON file beside it or on the command line: it does not describe itself."""

from pathlib import Path

from g2sd_deploy.errors import UserError
from g2sd_deploy.predictors.predictor import Predictor
from g2sd_deploy.predictors.preprocessing import AskedPreprocessing, Said, check_class_names, read_sidecar, settle


def engine_predictor(name: str, path: Path, asked: AskedPreprocessing | None) -> Predictor:
    """An engine on this machine's GPU. Opening it runs native code that it holds: name only engines that you trust.

    Raises:
        UserError: TensorRT or a GPU is missing, the engine belongs to others, or how it wants its images is said by nobody or in two ways.
    """
    from g2sd_deploy.artifact import sha256_of
    from g2sd_export.edge.runner import Choices
    from g2sd_export.edge.tensorrt_runner import Engine

    sidecar, digest = read_sidecar(path), sha256_of(path)
    sidecar.check(digest)
    engine = Engine(path, Choices(output=sidecar.output, layout=sidecar.layout))
    found = {"image_px": engine.image.image_px, "num_channels": engine.image.num_channels}
    said = Said("its input", {key: value for key, value in found.items() if value is not None})
    pre = settle(name, [said, sidecar.said()], asked, sidecar=sidecar.path)
    check_class_names(name, sidecar.class_names, engine.num_classes)
    try:
        engine.image.check(pre)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return Predictor(
        name=name,
        kind="engine",
        preprocessing=pre,
        class_names=sidecar.class_names,
        num_classes=engine.num_classes,
        num_parameters=None,
        model_bytes=path.stat().st_size,
        digest=digest,
        open=lambda _: engine.runner(pre),
    )
