# The checked config, paths, and what a job needs, as functions that the rules share.
import functools
import inspect
import json
import logging
import os
import re
import shlex
import sys
from ast import literal_eval
from contextlib import suppress
from pathlib import Path

from snakemake.io import IOFile

from vitfeat.analyses.own import OWN
from vitfeat.analyses.registry import analyses
from vitfeat.config.files import read_file
from vitfeat.config.imported import of_models
from vitfeat.config.parsing import parse_config
from vitfeat.console import log_to_terminal
from vitfeat.data.unchanged import annotations_token, contents, token
from vitfeat.demo.datasets import NAMES as EMBEDDED_LAYOUTS
from vitfeat.demo.datasets import embedded_root
from vitfeat.errors import VitfeatError
from vitfeat.monitor.failure import MADE
from vitfeat.plan.checks import check_start, foresee
from vitfeat.plan.disk import disk_lines
from vitfeat.plan.extraction import Extractions, Finished
from vitfeat.plan.rules import figure_steps, steps
from vitfeat.plan.words import any_of, flags
from vitfeat.store.opening import is_store
from vitfeat.store.paths import place_of

# The folder that holds Snakefile, workflow/ and, in a clone, the package.
HOME = str(Path(str(workflow.current_basedir)).parents[1])


def stop(error):
    """End with a line for each fault: a traceback through Snakemake says nothing about a config."""
    sys.exit("\n".join(f"vitfeat: error: {fault}" for fault in error.args))


def checked_config():
    if found := re.search("[{}]", f"{HOME}{sys.executable}"):
        sys.exit(
            f"vitfeat: error: Snakemake takes {found.group()!r} for a wildcard in the paths of the project "
            f"({HOME}) and of Python ({sys.executable}); move them"
        )
    log_to_terminal()
    try:
        # The process of every job reads these files again, and keeps quiet.
        for path in workflow.configfiles if workflow.is_main_process else ():
            read_file(Path(path))
        checked = parse_config(config)
        if workflow.is_main_process:
            for line in (*checked.remarks, *foresee(checked), *disk_lines(checked)):
                logging.getLogger("vitfeat").info(line)
    except VitfeatError as error:
        stop(error)
    return checked


def check_jobs():
    """Refuse to start jobs on this machine that are known to fail."""
    here = [job for job in workflow.dag.needrun_jobs() if workflow.local_exec or job.is_local]
    commands = {f"{job.rule.shellcmd} {job.params.get('how', '')}" for job in here}
    try:
        check_start(
            CONFIG,
            fetches=any("vitfeat fetch " in command for command in commands),
            on_device=any(re.search(r"\$VITFEAT_(HOW|DEVICE)", command) for command in commands),
        )
    except VitfeatError as error:
        stop(error)


CONFIG = checked_config()
RESULTS = CONFIG.results.as_posix()
WEIGHTS = CONFIG.weights.as_posix()


def in_storage(path):
    """Return where something stands that Snakemake does not carry: behind the URL of the default
    storage where there is one (`--default-storage-prefix s3://bucket`)."""
    prefix = workflow.storage_settings.default_storage_prefix
    return f"{prefix.rstrip('/')}/{path}" if prefix else path


if workflow.storage_settings.default_storage_prefix:

    # Snakemake looks here for what it would keep of a storage, and fails where it is not.
    def update(path):
        return path


# Stores are read and written where they are. Images, indexes, annotations, weights and logs stay on the
# file system (`local`): jobs are planned from them, and logs are read while jobs run.
STORE = in_storage(f"{RESULTS}/features/{{dataset}}/{{model}}.zarr")
INDEX = f"{RESULTS}/datasets/{{dataset}}.csv"


def given(settings):
    """Return settings as the flags of a command; what is not set is left to its default.

    Call it in a function where ids of images or labels of models are among them, since Snakemake
    takes braces in plain text for wildcards.
    """
    return shlex.join(flags({k: v for k, v in settings.items() if v not in (None, False)}))


# How an extraction runs is no param of its rule: it changes a store's numbers by rounding at most, so
# that a change of it must run nothing anew.
HOW_TO_EXTRACT = shlex.quote(
    given(
        {k: getattr(CONFIG.extraction, k) for k in ("batch_size", "device", "workers", "replace")}
    )
)

REPLACED = given({"replace": CONFIG.extraction.replace})

# Analyses of the user's own, which the processes of jobs must know.
OWN_MODULES = shlex.quote(
    json.dumps({n: str(analyses()[n].module) for n in CONFIG.analyses if analyses()[n].module})
)

# `python` in every shell command is the interpreter that runs Snakemake, so that no environment need
# be activated; --software-deployment-method conda puts the one of environment.yml before it.
shell.prefix(
    "set -euo pipefail; "
    f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH "
    f"PYTHONPATH={shlex.quote(HOME)}:${{{{PYTHONPATH:-}}}} "
    f"VITFEAT_HOW={HOW_TO_EXTRACT} VITFEAT_DEVICE={shlex.quote(CONFIG.extraction.device)} "
    f"VITFEAT_WEIGHTS={shlex.quote(WEIGHTS)} "
    f"{OWN}={OWN_MODULES.replace('{', '{{').replace('}', '}}')}; "
)


wildcard_constraints:
    dataset=any_of(CONFIG.datasets),
    model=any_of(model.id for model in CONFIG.models),
    tokens="cls|mean|spatial|all",


def made_folder(dataset, look):
    """Return the folder of an embedded dataset, which is written first. Files of other datasets
    are no inputs, as there are too many, and as dates do not tell whether they are the same."""
    # Snakemake compares params only where it has records (.snakemake) of earlier ones; what changed
    # is said in any case, but with `--rerun-triggers mtime`.
    if "PARAMS" in {trigger.name for trigger in workflow.rerun_triggers}:
        look(dataset)
    spec = CONFIG.datasets[dataset]
    embedded = spec.root == embedded_root(CONFIG.results, spec.layout)
    return [local(spec.root.as_posix())] if embedded else []


@functools.cache
def index_token(dataset):
    """Return a text that changes when a dataset's files do."""
    return token(CONFIG.datasets[dataset], Path(f"{RESULTS}/datasets/{dataset}.csv"))


@functools.cache
def annotation_token(dataset):
    """Return a text that changes when what is annotated does."""
    table = f"{RESULTS}/datasets/{CONFIG.datasets[dataset].annotations}/{dataset}.csv"
    return annotations_token(CONFIG.datasets[dataset], Path(table))


@functools.cache
def checkpoint_contents(model):
    """Return a text that changes when a weight file of the user's own does."""
    path = CONFIG.model(model).checkpoint
    return contents(Path(path), Path(f"{RESULTS}/features/{model}.checkpoint.json")) if path else ""


def index_flags(dataset):
    """Return what decides which images an index lists, as flags."""
    spec = CONFIG.datasets[dataset]
    keys = ("layout", "root", "split", "list", "per_class", "limit", "per_superclass", "on_error")
    keys += ("min_side", "max_megapixels", "images", "labels", "ids", "axes", "rate")
    settings = {k: getattr(spec, k) for k in keys}
    # Only where it is not the usual: what no flag says is no param that a change could touch.
    unusual = {"query_crop": "whole"} if spec.whole_query else {}
    if spec.orientation != "stored":
        unusual["orientation"] = spec.orientation
    return given(settings | unusual)


def limit(name):
    """Return how much of a resource a profile or the command line says that there is, if it does."""
    return workflow.global_resources.get(name).value


# A submission to a cluster may hold several jobs. Its process must lay them out as that which asked
# for their sum did: as one group, within the same limits. Snakemake hands on neither to SLURM's jobs.
LIMITS = "VITFEAT_LIMITS"
if workflow.is_main_process:
    os.environ[LIMITS] = json.dumps({name: limit(name) for name in ("mem_mb", "gpu")})
    with suppress(ImportError):
        from snakemake_executor_plugin_slurm import common_settings

        common_settings.pass_group_args = True
else:
    for name, value in json.loads(os.environ.get(LIMITS, "{}")).items():
        if value is not None:
            workflow.register_resource(name, value)


def raised(need):
    """Return the function of a resource: what a job needs, and as much again with every retry.

    What the profile says a node has (`resources: mem_mb`, `runtime`) bounds it.
    """

    def asked(wildcards, threads, attempt):
        if not callable(need):
            return need * attempt
        known = {"wildcards": wildcards, "threads": threads}
        return need(**{key: known[key] for key in inspect.signature(need).parameters}) * attempt

    return asked


def own_gpu(wildcards):
    """Return 1 for jobs that use a GPU where there are some, and none where there are not.

    With `device: auto` the profile or the command line says so, by `resources: gpu`.
    """
    device = CONFIG.extraction.device
    there = limit("gpu") if device == "auto" else device != "cpu"
    return 1 if there else None


def fetch_settings(entry):
    """Return the fields that decide which weights are fetched, as JSON."""
    keys = ("source", "name", "pretrained", "weights")
    return json.dumps({k: getattr(entry, k) for k in keys if getattr(entry, k)}, sort_keys=True)


def recorded(path):
    """Return what Snakemake recorded when it made a file, or None."""
    return workflow.persistence.metadata(IOFile(in_storage(path)))


@functools.cache
def finished(dataset, *models):
    """Return how stores were made that are of today's images and weights, or None."""
    first, *others = [recorded(EXTRACTIONS.manifest(dataset, model)) for model in models]
    index = workflow.persistence.metadata(IOFile(INDEX.replace("{dataset}", dataset)))
    store = place_of(STORE.replace("{dataset}", dataset).replace("{model}", models[0]))
    looks = "PARAMS" in {trigger.name for trigger in workflow.rerun_triggers}
    if not looks or None in (index, first, *others) or not is_store(store):
        return None
    weights = repr([checkpoint_contents(model) for model in models])
    same = {repr(index_token(dataset)), repr(index_flags(dataset))} <= set(index.params)
    same &= all(r.params == first.params and r.endtime >= index.endtime for r in (first, *others))
    # One of the params is the command.
    params = (param for param in first.params if same and weights in first.params)
    command = next((literal_eval(param) for param in params if " --taps " in param), None)
    parts = f"{RESULTS}/features/{dataset}/{models[0]}.parts/all"
    jobs = len(recorded(parts).input) if in_storage(parts) in first.input else 1
    return command and Finished(command, jobs)


PUSHED = of_models(CONFIG, imported=False)
EXTRACTIONS = Extractions(PUSHED, own_gpu(None) is not None, finished)
STEPS = steps(CONFIG, in_storage)
FIGURE_STEPS = figure_steps(CONFIG)
TARGETS = [
    *EXTRACTIONS.targets(),
    *(path for step in STEPS for path in step.targets()),
    *(path for step in FIGURE_STEPS for path in step.outputs),
]


# Captions are made where a report is, which Snakemake says on its command line alone.
REPORT = None
if any(word.partition("=")[0] == "--report" for word in sys.argv):
    from vitfeat.plan.report import Report

    REPORT = Report(CONFIG, Path(HOME) / "docs/analyses")

    report: REPORT.overview


def shown(paths):
    """Return outputs, with where they stand in a report if one is made."""
    return [report(p, **placed) if REPORT and (placed := REPORT.of(p)) else p for p in paths]


def extract_outputs():
    """Return the manifest, and the folder of arrays that go after use where some do."""
    # The sealed store's manifest, not the store: Snakemake deletes the outputs of a failed job, and an
    # interrupted store is resumed. The manifest is kept while the job runs, and when it fails (`update`).
    outputs = {"manifest": update(EXTRACTIONS.manifest("{dataset}", "{model}"))}
    if CONFIG.extraction.keep is not None:
        outputs["transient"] = temp(
            directory(f"{RESULTS}/features/{{dataset}}/{{model}}.transient")
        )
    return outputs


def extraction_gpu(wildcards):
    """Return the GPUs of a job: what only seals needs none, unless the config insists on one."""
    idle = EXTRACTIONS.seals(wildcards) and CONFIG.extraction.device == "auto"
    return None if idle else own_gpu(wildcards)


def weight_files(models):
    """Return what an extraction waits for: the records of fetched weights."""
    return [local(f"{WEIGHTS}/{model.id}.json") for model in models if model.is_fetched]


def beside(path, name):
    """Return the path of another file in the folder of one, which Snakemake may keep elsewhere."""
    return str(Path(path).parent / name)
