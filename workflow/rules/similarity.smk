# Similarity of models by several measures, with confidence intervals, from the Gram matrices of CKA.


def similarity_tables(ids=None):
    """Return the tables of all pairs, of all models if not told which."""
    settings = CONFIG.analyses.similarity
    if settings is None:
        return []
    ids = ids or [m.id for m in CONFIG.models]
    folder = CONFIG.results / "similarity"
    tables = cka_tables(folder, settings.datasets, settings.tokens, ids)
    return [table.path.as_posix() for some in tables.values() for table in some]


def similarity_figures():
    """Return the names of figures: those of CKA where it is among the measures."""
    settings = CONFIG.analyses.similarity
    if settings is None or "cka" not in settings.measures:
        return ("all",)
    return ("all", "trees", "maps", "intervals")


def similarity_targets():
    """Return the figures: of all models, and of each set."""
    if CONFIG.analyses.similarity is None:
        return []
    sets = [f"{RESULTS}/similarity/sets/{chosen}" for chosen in CONFIG.sets]
    folders = [f"{RESULTS}/similarity", *sets]
    return [f"{folder}/{name}.png" for folder in folders for name in similarity_figures()]


TARGETS.append(similarity_targets)


def similarity_settings():
    """Return the settings of a pair, as far as the measures that are asked for use them."""
    settings = CONFIG.analyses.similarity
    if settings is None:
        return {}
    some = settings.resamples > 0
    return {
        "measures": settings.measures,
        "layers": settings.layers,
        "neighbours": settings.neighbours if "mutual_knn" in settings.measures else None,
        "variance": settings.variance if "svcca" in settings.measures else None,
        "images": settings.images,
        "resamples": settings.resamples,
        "confidence": settings.confidence if some else None,
        "seed": settings.seed if some else None,
    }


def compared_layers(wildcards):
    """Return how many layers of each of two models are compared."""
    if CONFIG.analyses.similarity.layers == "last":
        return 1, 1
    models = (CONFIG.model(wildcards.model_a), CONFIG.model(wildcards.model_b))
    return tuple(guess_shape(model).depth for model in models)


def similarity_figure_settings(ids=None):
    """Return the settings of the figures; the tables' content comes from their jobs."""
    settings = CONFIG.analyses.similarity
    if settings is None:
        return {}
    return {
        "datasets": settings.datasets,
        "tokens": settings.tokens,
        "models": shown_models(ids),
    }


rule similarity_pair:
    input:
        a=f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model_a}}.safetensors",
        b=f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model_b}}.safetensors",
    output:
        update(f"{RESULTS}/similarity/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.csv"),
    log:
        f"{RESULTS}/logs/similarity/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/similarity/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.tsv"
    wildcard_constraints:
        model_a=MODEL_IDS,
        model_b=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards: similarity_memory_mb(
            dataset_size(wildcards.dataset),
            CONFIG.analyses.similarity.images,
            sum(compared_layers(wildcards)),
        ),
        runtime=lambda wildcards: similarity_minutes(
            dataset_size(wildcards.dataset),
            CONFIG.analyses.similarity.images,
            compared_layers(wildcards),
            CONFIG.analyses.similarity.resamples,
        ),
    params:
        flags=flags(similarity_settings()),
    shell:
        "python -m vitfeat similarity {input.a:q} {input.b:q} {params.flags} --out {output:q} "
        "--log {log:q}"


rule similarity_figures:
    input:
        similarity_tables(),
    output:
        update(similarity_files(f"{RESULTS}/similarity", similarity_figures())),
    log:
        f"{RESULTS}/logs/similarity_figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/similarity_figures.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        folder=lambda wildcards, input: Path(input[0]).parents[2].as_posix(),
        out=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=flags(similarity_figure_settings()),
    shell:
        "python -m vitfeat plot-similarity {params.folder:q} {params.flags} --out {params.out:q} "
        "--log {log:q}"


use rule similarity_figures as similarity_set_figures with:
    input:
        lambda wildcards: similarity_tables(CONFIG.sets[wildcards.chosen]),
    output:
        update(similarity_files(f"{RESULTS}/similarity/sets/{{chosen}}", similarity_figures())),
    log:
        f"{RESULTS}/logs/similarity_figures/{{chosen}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/similarity_figures/{{chosen}}.tsv"
    params:
        folder=lambda wildcards, input: Path(input[0]).parents[2].as_posix(),
        out=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=lambda wildcards: flags(similarity_figure_settings(CONFIG.sets[wildcards.chosen])),
