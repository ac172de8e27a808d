"""What an analysis says of itself; everything else asks here and lists none.

Paths are patterns below the folder of results: ``{dataset}`` and ``{model}`` stand for those that
a job is of, ``{train}`` for the dataset that is learnt from, ``{annotations}`` for the kind of what
is annotated, ``{root}`` for the dataset's own folder, ``{tokens}`` for each kind of tokens in the
settings. Where outputs name ``{other}``, a job compares models two by two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from vitfeat.analyses.scoring import Curves, Scoring
from vitfeat.analyses.settings import Settings

if TYPE_CHECKING:
    from vitfeat.config.config import Config
    from vitfeat.plan.study import Study

STORE = "features/{dataset}/{model}.zarr"
TRAIN_STORE = "features/{train}/{model}.zarr"
INDEX = "datasets/{dataset}.csv"
ANNOTATIONS = "datasets/{annotations}/{dataset}.csv"
ROOT = "{root}"
GRAM = "cka/gram/{dataset}/{tokens}/{model}.safetensors"
PAIR = "{dataset}/{tokens}/{model}--{other}.csv"


class Needs(NamedTuple):
    """What a job of one model needs of a machine, for schedulers, so rather too much."""

    memory_mb: int
    minutes: int


def one_thread(_: Study) -> int:
    """Return the threads of a job that has no use for more."""
    return 1


@dataclass(frozen=True)
class Job:
    """One kind of job: a function that turns files of a model and a dataset into files."""

    name: str  # of its command and its rule
    # The function, as ``module:function`` below the analysis' package. It takes the paths of
    # `inputs` and `outputs` one after the other, and as far as it has such parameters ``settings``
    # (the model), ``label`` (the model's), ``device``, ``threads`` and ``max_bytes``. A function of
    # one model writes all kinds of tokens, and takes paths with ``{tokens}`` in them. One that
    # compares two models is called for every pair and kind: of each input it takes the paths of
    # both, whose ids are in alphabetical order.
    call: str
    # inputs, outputs: patterns of paths, by the name of their flag; the first has none. Beside a
    # PNG stand a PDF and a CSV of its numbers. Of a store that is written its manifest is an
    # output, too.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    needs: Callable[[Study], Needs]  # what it needs of a machine
    # Those that its results depend on: a change of others runs nothing anew.
    settings: tuple[str, ...] = ()
    # Outputs that only some configs ask for, and what says whether one does; the function takes
    # None for those that are not asked for.
    optional: Mapping[str, Callable[[Config], bool]] = field(default_factory=dict)
    beside: tuple[str, ...] = ()  # files that are written beside the outputs
    # Taps that it reads where they are stored, beside those that its settings require.
    reads_too: tuple[str, ...] = ()
    # Whether one call is of all models: it takes the paths as patterns, with ``{model}`` in them,
    # and ``models``.
    together: bool = False
    threads: Callable[[Study], int] = one_thread  # how many it can use
    # Whether it uses one, or what says by the config whether it does.
    gpu: bool | Callable[[Config], bool] = False
    folders: frozenset[str] = frozenset()  # outputs that are folders
    label: bool = False  # whether it is told the model's label
    # Whether it takes ``layers`` and its output is a table of ScoreRow, so that several jobs can
    # share a model's layers where the settings say so (``layer_jobs``).
    by_layers: bool = False
    # Whether other analyses read its outputs, too: it is of all that they ask for, whether or not
    # its own analysis is asked for.
    shared: bool = False
    # Whether it may take hours, so that it shares no submission to a cluster.
    alone: bool = False
    # Those of `settings` of which it uses the first item alone.
    first_of: frozenset[str] = frozenset()
    # Whether its outputs are made when somebody names them, of a pair in either order, and not
    # before.
    on_request: bool = False

    def used(self, settings: Settings) -> dict[str, Any]:
        """Return those of its analysis' settings that its results depend on."""
        used = settings.used(self.settings)
        return {key: v[:1] if key in self.first_of else v for key, v in used.items()}

    @property
    def draws(self) -> bool:
        """Whether figures are among its outputs, or may be within a folder that is one."""
        return bool(self.folders) or any(p.endswith(".png") for p in self.outputs.values())

    @property
    def of_pairs(self) -> bool:
        """Whether it compares models two by two."""
        return any("{other}" in pattern for pattern in self.outputs.values())

    @property
    def of_tokens(self) -> bool:
        """Whether it is of several kinds of tokens."""
        return any("{tokens}" in pattern for pattern in self.outputs.values())


@dataclass(frozen=True)
class Across:
    """The figures across models, which one job draws (``vitfeat/jobs/figures_across.py``)."""

    # What is drawn, a table each; those that are a :class:`Scoring` rank layers, too, and their
    # tables are collected into one.
    curves: tuple[Curves, ...]
    title: str = ""  # of the figure of all datasets, where that is not the first one's
    settings: tuple[str, ...] = ()  # those that figures depend on

    def asked(self, settings: Any) -> list[Curves]:
        """Return those whose table there is, with what their figures print of the settings."""
        printed = settings.printed()
        return [replace(of, printed=printed) for of in self.curves if of.asked(settings)]

    def names(self, settings: Any) -> list[str]:
        """Return which figures of a dataset there are."""
        return [name for of in self.asked(settings) for name in (*of.figures, *of.pictures)]

    @property
    def scoring(self) -> Scoring | None:
        """How layers are ranked, if they are."""
        return next((of for of in self.curves if isinstance(of, Scoring)), None)


@dataclass(frozen=True)
class AcrossPairs:
    """The figures of tables of pairs, which one job draws: of all models, and of each set."""

    # A function, as :attr:`Job.call` names it: of the folder of tables, datasets, models, the
    # folder of figures and ``settings``. Tables are those of :data:`PAIR`.
    draw: str
    names: Callable[[Any], tuple[str, ...]]  # which figures there are
    settings: tuple[str, ...] = ()  # those that figures depend on
    scoring: ClassVar[None] = None


@dataclass(frozen=True)
class Analysis:
    """Something that stores are turned into."""

    name: str  # its key in a config, its folder of results, its package
    settings: type[Settings]  # the model of its settings
    place: int  # where it stands among the others: in docs, figures of several, and lists
    jobs: tuple[Job, ...] = ()  # those of single models
    across: Across | AcrossPairs | None = None  # the figures across models
    labels: bool = False  # whether it needs the label of every image
    vectors: bool = False  # whether a vector an image is all it needs of a model
    # The kind of what must be annotated beside the images, if anything.
    annotations: str | None = None
    # module, write: the file of an analysis of the user's own, and what writes its table.
    module: Path | None = None
    write: Callable[..., None] | None = None

    @property
    def drawn_by(self) -> tuple[str, ...]:
        """The settings that figures across models depend on, or print."""
        return (*self.across.settings, *self.settings.printed_keys()) if self.across else ()

    def function(self, call: str) -> Callable[..., None]:
        """Import what :attr:`Job.call` names, also elsewhere in vitfeat."""
        module, _, name = call.partition(":")
        if not name:
            assert self.write is not None
            return self.write
        path = module if module.startswith("vitfeat.") else f"vitfeat.analyses.{self.name}.{module}"
        function: Callable[..., None] = getattr(import_module(path), name)
        return function
