"""What to extract and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vitfeat.data.views import ViewSettings
from vitfeat.settings.fields import Auto, Count, Layers, Masks, Tap, words
from vitfeat.settings.part import Part
from vitfeat.store.layout import DEFAULT_TAPS
from vitfeat.store.limits import Limit
from vitfeat.store.rounding import check_keep_bits


class Pass(Part):
    """What is said of a pass in a config and on the command line."""

    layers: Layers = Field("all", description="Layers to store, by name or number.")
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="Element type of stored features."
    )
    keep_bits: Annotated[int, Field(ge=1, le=22)] | None = Field(
        None,
        description="Bits of mantissa that stored features and attention are rounded to, which "
        "makes stores smaller; null keeps all: 10 of float16, 23 of float32.",
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32", description="Arithmetic of the forward pass."
    )
    batch_size: Count = Field(32, description="Images decoded (and on a GPU pushed) together.")
    device: Annotated[
        str,
        StringConstraints(pattern="^(auto|cpu|cuda(:[0-9]+)?)$"),
        words("auto, cpu, cuda (an NVIDIA GPU) or cuda:N (the one of the number N)"),
    ] = Field(
        "auto",
        description="auto, cpu, cuda or cuda:N: of extractions, Gram matrices, k-NN and probes. "
        "Jobs ask for one GPU with cuda, and with auto where --resources gpu=N or a profile says "
        "that there are some.",
    )
    workers: Annotated[Annotated[int, Field(ge=0)] | Auto, words("auto or a number from 0")] = (
        Field("auto", description="Processes that decode; auto fits them to the threads.")
    )

    @model_validator(mode="after")
    def _rounds(self) -> Self:
        check_keep_bits(self.dtype, self.keep_bits)
        return self


class Extraction(Pass):
    """How images are pushed through the models."""

    taps: tuple[Tap, ...] = Field(
        (),
        description="Stored beside what the analyses need, of datasets whose view can have it.",
    )
    keep: tuple[Tap, ...] | None = Field(
        None,
        description="Taps that stay on the disk; all others go when the last job that reads them "
        "is done. null keeps all.",
    )
    jobs: Annotated[Count | Auto, words("auto or a number from 1")] = Field(
        1,
        description="Jobs that share the extraction of one model and dataset, and a last one that "
        "seals the store; auto makes jobs of a few hours. One store has the same bytes on a CPU.",
    )
    together: bool = Field(
        True,
        description="Whether one job pushes a dataset through all models where that takes each as "
        "long as a process takes to start. Stores are the same.",
    )
    replace: bool = Field(
        True,
        description="Whether a store from other settings is replaced by the one asked for.",
    )


class Settings(Pass):
    """What one pass of a dataset stores, and how."""

    taps: tuple[Tap, ...] = Field(DEFAULT_TAPS, description="What is stored.")
    limits: Mapping[str, Limit] = Field(
        {},
        description="Taps that are kept for some images only: so many, spread over the dataset, or "
        "the images of these ids. Norms and summaries come from the pass, whatever the limits of "
        "the tensors that they are made of.",
    )
    threads: int = Field(0, description="CPU threads of the forward pass; 0 takes all.")
    replace: bool = Field(
        False, description="Whether a store from other settings under the same path is replaced."
    )
    repair: bool = Field(
        False,
        description="Whether a finished store is read whole first, and what is damaged of it "
        "pushed again.",
    )
    part: tuple[int, int] | None = Field(
        None,
        description="Only the blocks of one of several jobs on one store: its number, from 1, and "
        "how many jobs there are. The store is sealed by an extraction of all.",
    )
    view: ViewSettings = Field(ViewSettings(), description="How images become inputs.")
    masks: Masks = Field("coverage", description="How masks weigh tokens, for the tap regions.")

    @classmethod
    def of_request(cls, request: Mapping[str, Any], **ways: Any) -> Self:
        """Return the settings that a store's request comes from; `ways` are how it is made."""
        return cls(
            taps=request["taps"],
            limits=request.get("limits", {}),
            layers=request["layers"],
            dtype=request["dtype"],
            keep_bits=request.get("keep_bits"),
            precision=request["precision"],
            view=ViewSettings.of_described(request["view"]),
            masks=request.get("regions", {}).get("masks", "coverage"),
            **ways,
        )
