"""Who may import whom: the table of the design, checked against every import of both packages."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import g2sd_deploy
import g2sd_export

FOLDERS = {package.__name__: Path(str(package.__file__)).parent for package in (g2sd_deploy, g2sd_export)}

# Unit -> units that it may import. A module belongs to the unit with the longest name that starts its own; a unit may import itself.
# `d` is g2sd_deploy, `x` is g2sd_export.
TABLE: dict[str, str] = {
    # what runs on the device, and what proves and packs it
    "x": "",
    "x.edge": "",
    "x.bundle": "x.edge",
    "x.targets": "x.edge x.int8",
    "x.answers": "x.edge",
    "x.paired": "",
    "x.class_order": "x.paired",
    "x.proof": "x.answers x.class_order x.edge x.paired",
    "x.device_tolerance": "x.edge",
    "x.onnx_graph": "x.edge",
    "x.onnx_file": "x.edge x.onnx_graph",
    "x.deployable": "x.edge x.onnx_file x.onnx_graph",
    "x.half": "x.edge x.onnx_file x.onnx_graph",
    "x.half_emulation": "x.half x.onnx_file x.onnx_graph",
    "x.half_choice": "x.edge x.half x.half_emulation x.onnx_graph",
    "x.int8": "x.edge x.onnx_file x.onnx_graph",
    "x.tensorrt_settings": "x.edge",
    "x.tensorrt_layers": "",
    "x.tensorrt_package": "x.edge x.tensorrt_settings",
    "x.tensorrt_build": "x.edge x.tensorrt_layers x.tensorrt_package x.tensorrt_settings",
    "x.tensorrt_refit": "x.edge x.tensorrt_build x.tensorrt_package x.tensorrt_settings",
    "x.tensorrt_bundle": "x.bundle x.edge x.tensorrt_build x.tensorrt_settings",
    "x.__main__": "x.edge x.tensorrt_build x.tensorrt_bundle x.tensorrt_refit x.tensorrt_settings",
    "x.shipping": "x.answers x.deployable x.edge x.half x.half_choice x.int8 x.proof x.targets x.tensorrt_build x.tensorrt_package "
    "x.tensorrt_settings",
    "x.dense": "x.answers x.bundle x.edge x.int8 x.onnx_file x.onnx_graph x.proof x.shipping x.targets",
    # the base
    "d": "",
    "d.errors": "x.edge",
    "d.randomness": "",
    "d.locks": "",
    "d.devices": "d.artifact d.errors d.locks x.edge",
    "d.artifact": "d.errors",
    "d.environment": "x.edge",
    "d.signals": "d.errors",
    "d.ranks": "d.errors",
    "d.runtime": "d.errors d.ranks x.edge",
    "d.progress": "",
    "d.stage_lines": "",
    "d.warnings_file": "d.artifact d.progress d.stage_lines",
    "d.settings": "d.data.corruptions d.data.rand_augment_policy",  # names that a recipe may write
    "d.recipe": "d.errors d.settings",
    # maths and data
    "d.data.dense.targets": "",
    "d.methods": "d.data.dense.targets d.models",
    "d.models": "d.data.dense.targets",
    "d.models.weight_file": "d.errors d.models",
    "d.models.dense.segmenter_file": "d.errors d.models d.models.weight_file x.edge",
    "d.models.dense.detector_file": "d.models d.models.weight_file x.edge",
    "d.models.dense.network_file": "d.models d.models.dense.detector_file d.models.dense.segmenter_file x.edge",
    "d.models.checkpoint": "d.errors d.models d.models.weight_file x.edge",
    "d.models.deploy": "d.models",
    "d.evaluation.outcomes": "",
    "d.evaluation.intervals": "",
    "d.evaluation.calibration": "d.evaluation.intervals",
    "d.evaluation.corruption_error": "d.evaluation.intervals",
    "d.evaluation.metrics": "d.evaluation.calibration d.evaluation.intervals d.evaluation.outcomes",
    "d.evaluation": "d.data d.data.corruptions d.errors d.evaluation.calibration d.evaluation.corruption_error d.evaluation.intervals "
    "d.evaluation.metrics d.evaluation.outcomes d.models d.models.checkpoint d.models.weight_file d.randomness d.ranks "
    "d.settings x.edge",
    "d.data.corruptions": "d.randomness x.edge",
    "d.data.rand_augment_policy": "d.errors",
    "d.data": "d.artifact d.data.corruptions d.data.dense.targets d.data.rand_augment_policy d.errors d.locks d.randomness d.settings "
    "d.zoo x.edge",
    "d.training": "d.artifact d.data d.errors d.randomness d.ranks d.runtime d.settings d.signals d.stage_lines",
    "d.predictors": "d.artifact d.data d.errors d.evaluation d.models d.models.checkpoint d.models.dense.network_file "
    "d.models.weight_file d.zoo.weights x.bundle x.edge x.onnx_file",
    "d.reasons": "",
    "d.report": "d.errors d.reasons",
    # teachers: the catalogue and its downloads, and what reads weights
    "d.zoo": "d d.artifact d.errors d.locks d.models.checkpoint d.models.dense.network_file x.edge",
    "d.zoo.weights": "d.errors d.models d.zoo",
    "d.zoo.opening": "d.artifact d.data d.errors d.models d.models.checkpoint d.models.weight_file d.zoo d.zoo.weights x.edge",
    "d.zoo.taking_in": "d.errors d.models d.models.checkpoint d.models.weight_file d.zoo d.zoo.opening x.edge",
    # export: what the stage and the command share
    "d.exporting": "d d.data d.environment d.evaluation d.evaluation.calibration d.evaluation.outcomes d.models.deploy "
    "d.settings d.token_merging x.bundle x.device_tolerance x.edge x.int8 x.onnx_file x.shipping x.targets",
    "d.dense_images": "d.data d.errors d.evaluation d.exporting x.dense x.edge x.int8 x.shipping",
    "d.exporting_dense": "d d.data d.dense_images d.environment d.errors d.exporting d.models d.models.dense.network_file "
    "d.models.dense.segmenter_file d.settings x.bundle x.dense x.edge x.int8 x.shipping x.targets",
    "d.standing": "d.data d.evaluation d.evaluation.metrics d.evaluation.outcomes d.exporting d.settings x.shipping",
    "d.token_merging": "d.errors d.models x.answers x.edge x.proof x.targets",
    "d.profiling": "d.artifact d.devices d.errors d.models.deploy d.predictors d.profiling.candidate d.profiling.layers "
    "d.profiling.torch_calls d.progress d.reasons d.settings x.bundle x.edge x.onnx_file x.shipping x.targets "
    "x.tensorrt_build x.tensorrt_settings",
    "d.profiling.candidate": "d.profiling.layers d.settings",
    "d.profiling.torch_calls": "d.errors d.profiling.candidate",
    "d.profiling.layers": "d.errors x.bundle x.edge x.onnx_graph x.tensorrt_layers",
    # stages: what they share, and each by itself
    "d.stages": "",
    "d.stages.context": "d.artifact d.data d.models d.progress d.randomness d.runtime d.settings d.training x.edge",
    "d.stages.custom": "d.artifact d.errors",
    "d.stages.fitting": "d.stages.context d.artifact d.data d.errors d.methods d.models d.models.checkpoint "
    "d.randomness d.settings d.training",
    "d.stages.lessons": "d.stages.context d.stages.custom d.errors d.methods d.models d.models.checkpoint d.settings",
    "d.stages.data": "d.stages.context d.stages.dense_data d.artifact d.data d.errors d.settings x.edge",
    "d.stages.teacher": "d.stages.context d.stages.dense_teachers d.artifact d.errors d.models d.models.checkpoint d.settings d.zoo "
    "d.zoo.opening x.edge",
    "d.stages.dense_context": "d.stages.context d.artifact d.data d.models.dense.network_file d.settings x.edge",
    "d.stages.dense_data": "d.stages.context d.stages.dense_context d.stages.dense_pictures d.artifact d.data d.errors",
    "d.stages.dense_evaluation": "d.stages.context d.stages.dense_context d.stages.dense_pictures d.artifact d.data d.evaluation "
    "d.models d.models.dense.network_file x.edge",
    "d.stages.dense_models": "d.models d.models.dense.network_file d.settings",
    "d.stages.dense_pictures": "d.data d.evaluation x.edge",
    "d.stages.dense_teachers": "d.stages.context d.stages.dense_context d.artifact d.data d.errors d.models.dense.network_file "
    "d.settings d.zoo",
    "d.stages.dense_training": "d.stages.context d.stages.dense_context d.stages.dense_models d.stages.fitting d.stages.student_start "
    "d.artifact d.data d.data.dense.targets d.methods d.models d.models.checkpoint d.models.dense.network_file d.randomness "
    "d.settings d.training",
    "d.stages.dense_export": "d.stages.context d.stages.dense_context d.artifact d.exporting d.exporting_dense "
    "d.models.dense.network_file d.settings x.targets",
    "d.stages.student_start": "d.stages.context d.artifact d.data d.errors d.models d.models.checkpoint d.settings d.zoo.opening",
    "d.stages.pretrain": "d.stages.context d.stages.fitting d.stages.lessons d.artifact d.models.checkpoint d.training",
    "d.stages.finetune": "d.stages.context d.stages.dense_training d.stages.fitting d.artifact d.methods d.models d.models.checkpoint",
    "d.stages.generic": "d.stages.context d.stages.fitting d.stages.lessons d.artifact d.models d.models.checkpoint d.settings d.training",
    "d.stages.task_losses": "d.stages.context d.stages.custom d.methods d.models.checkpoint d.settings",
    "d.stages.specific": "d.stages.context d.stages.dense_training d.stages.fitting d.stages.student_start d.stages.task_losses d.artifact "
    "d.models d.settings",
    "d.stages.quantise": "d.stages.context d.stages.fitting d.stages.task_losses d.artifact d.data d.errors d.evaluation d.methods "
    "d.models "
    "d.models.checkpoint d.settings d.training x.edge",
    "d.stages.baseline": "d.stages.context d.stages.dense_training d.stages.fitting d.stages.student_start d.artifact d.methods d.models",
    "d.stages.evaluate": "d.stages.context d.stages.dense_evaluation d.artifact d.data d.evaluation d.models d.models.checkpoint "
    "d.predictors d.randomness d.settings d.zoo x.edge",
    "d.stages.export": "d.stages.context d.stages.dense_export d.artifact d.evaluation d.exporting d.models.checkpoint d.standing "
    "x.targets",
    "d.stages.profile": "d.stages.context d.stages.dense_context d.artifact d.predictors d.profiling d.profiling.candidate "
    "d.profiling.layers d.settings x.bundle",
    "d.stages.report": "d.stages.context d.artifact d.report",
    # the entry
    "d.run_folder": "d.artifact d.errors d.locks d.settings",
    "d.planning": "d d.artifact d.data d.errors d.run_folder d.settings d.stages.custom d.stages.student_start d.stages.teacher d.zoo "
    "x.targets",
    "d.pipeline": "d.artifact d.environment d.errors d.planning d.progress d.ranks d.run_folder d.runtime d.settings "
    "d.stages.context d.training d.warnings_file",
    "d.probe": "d.artifact d.data d.environment d.errors d.pipeline d.planning d.progress d.recipe d.report d.runtime d.settings "
    "d.training d.zoo x.int8 x.targets",
    "d.results": "d.artifact d.report",
    "d.watching": "d.artifact d.errors d.report d.run_folder d.settings d.training d.warnings_file",
    "d.pairing": "d.evaluation d.report x.paired",
    "d.comparing": "d.errors d.pairing d.report",
    "d.report_command": "d.artifact d.comparing d.errors d.report",
    "d.gates": "d.artifact d.data.corruptions d.errors d.evaluation d.recipe d.settings x.edge x.paired",
    "d.choosing": "d.artifact d.devices d.errors d.evaluation.intervals x.bundle x.paired",
    "d.evaluate_command": "d d.artifact d.data d.environment d.errors d.evaluation d.predictors d.progress d.report d.runtime d.settings "
    "d.zoo",
    "d.dense_set": "d.data d.errors x.edge",
    "d.evaluate_dense_command": "d.data d.dense_set d.errors d.evaluate_command d.evaluation d.predictors d.progress d.report d.runtime",
    "d.export_command": "d.data d.errors d.evaluation d.exporting d.predictors d.progress d.settings d.standing x.edge x.targets",
    "d.export_dense_command": "d.artifact d.data d.dense_set d.errors d.export_command d.exporting d.exporting_dense "
    "d.models.dense.network_file d.predictors d.progress x.dense x.edge x.targets",
    "d.doctor": "d.environment",
    "d.cli_errors": "d.errors",
    "d.cli_output": "d.data d.errors d.progress",
    "d.cli_runtime": "d.progress d.runtime d.signals",
    "d.cli_testsets": "d.cli_errors d.cli_output d.data d.errors d.zoo x.edge",
    "d.cli_data": "d.cli_errors d.cli_output d.cli_scenes d.cli_testsets d.data d.errors x.edge",
    "d.cli_evaluate": "d.cli_runtime d.data.corruptions d.errors d.evaluate_command d.evaluate_dense_command d.predictors d.report "
    "d.runtime d.settings",
    "d.cli_export": "d.cli_errors d.errors d.export_command d.export_dense_command d.exporting d.predictors d.progress d.settings "
    "d.token_merging x.targets",
    "d.cli_profile": "d.errors d.profiling d.profiling.layers d.progress d.settings x.edge",
    "d.cli_scenes": "d.cli_errors d.cli_output d.data d.errors",
    "d.cli_devices": "d.cli_errors d.cli_output d.devices d.errors",
    "d.cli_check": "d.cli_errors d.cli_output d.errors d.gates",
    "d.cli_pareto": "d.artifact d.choosing d.cli_output d.errors d.report",
    "d.cli_report": "d.report_command",
    "d.cli_watch": "d.cli_output d.errors d.watching",
    "d.cli_bundle": "d.cli_errors d.cli_output d.errors x.bundle x.edge",
    "d.cli_teacher": "d.cli_errors d.cli_output d.zoo d.zoo.taking_in",
    "d.cli": "d d.cli_bundle d.cli_check d.cli_data d.cli_devices d.cli_errors d.cli_evaluate d.cli_export d.cli_pareto "
    "d.cli_profile d.cli_report d.cli_runtime d.cli_teacher d.cli_watch d.doctor d.errors d.pipeline "
    "d.planning d.probe d.recipe d.results d.runtime d.settings",
    "d.__main__": "d.cli",
}

# What stages share: the only modules beside it that a stage may import from its own package.
SHARED = (
    "context",
    "custom",
    "dense_context",
    "dense_data",
    "dense_evaluation",
    "dense_export",
    "dense_models",
    "dense_pictures",
    "dense_teachers",
    "dense_training",
    "fitting",
    "lessons",
    "student_start",
    "task_losses",
)

# Packages that take seconds to import: at the top of these units only.
HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "matplotlib", "scipy", "safetensors"}
HEAVY_UNITS = (
    "d.data",
    "d.evaluation",
    "d.exporting_dense",
    "d.methods",
    "d.models",
    "d.profiling.torch_calls",
    "d.report",
    "d.stages",
    "d.standing",
    "d.training",
    "d.zoo.opening",
    "d.zoo.weights",
    "x.onnx_file",
)

# Maths knows tensors only: no settings, logger, clock, file or global random numbers.
PURE_UNITS = {
    "d.data.dense.targets",
    "d.methods",
    "d.models",
    "d.evaluation.outcomes",
    "d.evaluation.intervals",
    "d.evaluation.calibration",
    "d.evaluation.corruption_error",
    "d.evaluation.metrics",
}
PURE_PACKAGES = {
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "jaxtyping",
    "collections",
    "contextlib",
    "dataclasses",
    "functools",
    "math",
    "re",
    "typing",
}


def short(name: str) -> str:
    return name.replace("g2sd_deploy", "d", 1).replace("g2sd_export", "x", 1)


def modules() -> dict[str, Path]:
    """Short dotted name to file, of every module of both packages."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[short(".".join(parts[:-1] if parts[-1] == "__init__" else parts))] = path
    return found


MODULES = modules()


def unit_of(module: str) -> str:
    fitting = [unit for unit in TABLE if module == unit or (module.startswith(unit + ".") and unit not in ("d", "x", "d.stages"))]
    assert fitting, f"{module} is in no unit of the table; add it there, with what it may import"
    return max(fitting, key=len)


def imports(module: str, node: ast.AST) -> Iterator[str]:
    """Full short names that an import statement names; a name that is no module stands for the module that defines it."""
    match node:
        case ast.Import():
            yield from (short(alias.name) for alias in node.names)
        case ast.ImportFrom():
            package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([short(node.module)] if node.module else [])])
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source


def all_imports(module: str) -> set[str]:
    return {name for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))) for name in imports(module, node)}


def imports_at_top(module: str) -> set[str]:
    """What importing the module imports: no function bodies, nothing under TYPE_CHECKING."""
    return {name for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body for name in imports(module, node)}


def edges() -> set[tuple[str, str]]:
    """Every (unit, other unit that it imports) of the code."""
    pairs = {(unit_of(module), unit_of(name)) for module in MODULES for name in all_imports(module) if name in MODULES}
    return {(unit, other) for unit, other in pairs if unit != other}


ALLOWED = {(unit, other) for unit, others in TABLE.items() for other in others.split()}


def test_every_import_is_in_the_table() -> None:
    assert edges() - ALLOWED == set()


def test_the_table_allows_nothing_that_no_module_uses() -> None:
    assert ALLOWED - edges() == set()


def test_no_stage_imports_another_and_what_they_share_imports_none() -> None:
    stages = {unit for unit in TABLE if unit.startswith("d.stages.")}
    shared = {f"d.stages.{name}" for name in SHARED}
    assert {(unit, other) for unit, other in ALLOWED if unit in stages and other in stages - shared} == set()
    assert {name for name in SHARED if hasattr(import_module(f"g2sd_deploy.stages.{name}"), "run")} == set()


def test_maths_may_be_used_by_what_trains_and_never_the_other_way_round() -> None:
    assert {other for unit, other in ALLOWED if unit in PURE_UNITS} <= PURE_UNITS


def test_imports_have_no_cycles() -> None:
    left = {unit: {other for one, other in ALLOWED if one == unit} for unit in TABLE}
    while ready := {unit for unit, others in left.items() if not others & left.keys()}:
        left = {unit: others for unit, others in left.items() if unit not in ready}
    assert left == {}


def test_what_runs_on_the_device_is_found_by_relative_imports_only() -> None:
    for module in (name for name in MODULES if unit_of(name) == "x.edge"):
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in names if name.startswith(("g2sd_", "edge"))], module


def test_the_export_package_does_not_know_the_training_package() -> None:
    assert {
        name for module in MODULES if module.startswith("x") for name in all_imports(module) if name.startswith("d.") or name == "d"
    } == set()


def test_maths_knows_tensors_only() -> None:
    for module in (name for name in MODULES if unit_of(name) in PURE_UNITS):
        outside = {name.partition(".")[0] for name in all_imports(module) if name not in MODULES}
        assert outside <= PURE_PACKAGES, f"{module} imports {outside - PURE_PACKAGES}"


def test_slow_packages_are_imported_inside_functions_wherever_help_or_a_device_could_reach_them() -> None:
    for module in MODULES:
        heavy = {name.partition(".")[0] for name in imports_at_top(module)} & HEAVY
        assert not heavy or unit_of(module).startswith(HEAVY_UNITS), f"{module} imports {heavy} at its top"


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["plan", "--help"],
        ["evaluate", "--help"],
        ["recipes", "--help"],
        ["teacher", "--help"],
        ["data", "prepare", "--help"],
        ["data", "pull", "--help"],
        ["--version"],
    ],
)
def test_help_imports_nothing_slow(arguments: list[str]) -> None:
    code = f"""
import sys, contextlib, io, json
sys.argv = ["g2sd", *{arguments}]
from g2sd_deploy.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    loaded = set(json.loads(run_python(code)))
    assert "g2sd_deploy" in loaded
    by_typer = {"pydantic"} if len(arguments) > 1 else set()  # for a command whose options are typed
    assert loaded & {*HEAVY, "numpy", "pydantic", "PIL", "ruamel", "jaxtyping", "jinja2", "rich"} <= by_typer


@pytest.mark.skipif(sys.platform == "win32", reason="no count of a child's processor time")
def test_help_answers_in_half_a_second() -> None:
    import resource

    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "g2sd_deploy", "--help"], capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.5


def test_a_recipe_is_checked_without_torch() -> None:
    code = """
import sys, contextlib, io
sys.argv = ["g2sd", "validate", "quickstart"]
from g2sd_deploy.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print("g2sd_deploy.recipe" in sys.modules, "torch" in sys.modules)
"""
    assert run_python(code) == "True False\n"


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def settings_read_by(module: str) -> set[str]:
    """Sections of the recipe that a stage's module reads, by itself or through the helpers that stages share, however deep."""
    helpers = {
        node.name: node for name in SHARED for node in parsed(f"d.stages.{name}").body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    trees: list[ast.AST] = [parsed(module)]
    own = {node.name for node in parsed(module).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for tree in trees:  # grows on the way
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & helpers.keys() - own
        trees += [helpers[name] for name in sorted(used) if helpers[name] not in trees]
    return {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "recipe"
    }


def test_settings_are_found_where_helpers_of_helpers_read_them() -> None:
    assert {"generic", "student", "seed"} <= settings_read_by("d.stages.generic")  # the seed by make_lesson, _dmae, seed_weights
    assert "generic" not in settings_read_by("d.stages.baseline")


@pytest.fixture(scope="module")
def keyed() -> dict[str, list[set[str]]]:
    """Sections that the key of each stage covers, in every bundled recipe that has it."""
    from g2sd_deploy.planning import stages_of
    from g2sd_deploy.recipe import bundled_recipes, load_recipe

    found: dict[str, list[set[str]]] = {}
    for path in bundled_recipes():
        for stage in stages_of(load_recipe(path)):
            found.setdefault(stage.name, []).append(set(stage.config))
    return found


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("d.stages.") and not name.endswith(SHARED)))
def test_a_stage_reads_only_the_settings_that_its_key_covers(module: str, keyed: dict[str, list[set[str]]]) -> None:
    name = module.rpartition(".")[2]
    assert name in keyed, f"no bundled recipe has the stage {name}"
    read = settings_read_by(module)
    assert [read - sections for sections in keyed[name] if not read <= sections] == []
