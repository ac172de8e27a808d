# Attention maps of chosen images, over the image that the model saw.

MAP_KINDS = ("position_layer", "head_position", "head_layer")


def attention_map_targets():
    """Return the figures of every model, one of each kind: the images stand in it together."""
    settings = CONFIG.analyses.attention_maps
    if settings is None:
        return []
    return [
        f"{RESULTS}/attention_maps/{dataset}/{model.id}/{kind}.png"
        for dataset in settings.datasets
        for model in CONFIG.models
        for kind in MAP_KINDS
    ]


TARGETS.append(attention_map_targets)


def map_settings():
    """Return which maps are drawn and how."""
    settings = CONFIG.analyses.attention_maps
    if settings is None:
        return {}
    listed = not isinstance(settings.images, int)
    keys = ("positions", "layer", "head", "renormalised", "scale", "smooth", "single_maps")
    return {
        "ids" if listed else "images": settings.images,
        **{key: getattr(settings, key) for key in keys},
    }


def map_files(suffix):
    """Return the files of one model, one of each kind."""
    folder = f"{RESULTS}/attention_maps/{{dataset}}/{{model}}"
    return [update(f"{folder}/{kind}{suffix}") for kind in MAP_KINDS]


rule attention_maps:
    input:
        index=f"{RESULTS}/datasets/{{dataset}}.csv",
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
    output:
        map_files(".png"),
        map_files(".pdf"),
        map_files(".csv"),
    log:
        f"{RESULTS}/logs/attention_maps/{{dataset}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/attention_maps/{{dataset}}/{{model}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        store=f"{RESULTS}/features/{{dataset}}/{{model}}.zarr",
        folder=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        root=lambda wildcards: CONFIG.datasets[wildcards.dataset].root.as_posix(),
        label=lambda wildcards: CONFIG.model(wildcards.model).label,
        flags=lambda wildcards: flags(map_settings()),
    shell:
        "python -m vitfeat attention-maps {params.store:q} --index {input.index:q} --root {params.root:q} "
        "{params.flags} --label {params.label:q} --out {params.folder:q} --log {log:q}"
