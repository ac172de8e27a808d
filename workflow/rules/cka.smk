# Linear CKA: Gram matrices once per model and token kind, pairs from Gram matrices alone.


def all_cka_tables(ids=None):
    """Return the tables of all pairs, of all models if not told which."""
    if CONFIG.cka is None:
        return []
    ids = ids or [m.id for m in CONFIG.models]
    tables = cka_tables(CONFIG.results / "cka", CONFIG.cka.datasets, CONFIG.cka.tokens, ids)
    return [table.path.as_posix() for some in tables.values() for table in some]


def cka_targets():
    """Return the figures of CKA: of all models, and of each set."""
    if CONFIG.cka is None:
        return []
    folders = [f"{RESULTS}/cka", *(f"{RESULTS}/cka/sets/{chosen}" for chosen in CONFIG.sets)]
    return [f"{folder}/{name}.png" for folder in folders for name in ("all", "last_layer")]


TARGETS.append(cka_targets)


def gram_settings(tokens):
    """Return the settings of a Gram matrix; what stands in for CLS touches that of CLS alone."""
    return {"without_cls": CONFIG.cka.without_cls} if CONFIG.cka and tokens == "cls" else {}


def pair_settings():
    """Return the settings of a pair; a batch's size and order only where an estimator has batches."""
    if CONFIG.cka is None:
        return {}
    batched = {"minibatch", "paper"} & set(CONFIG.cka.estimators)
    return {
        "estimators": CONFIG.cka.estimators,
        "batch_size": CONFIG.cka.batch_size if batched else None,
        "seed": CONFIG.cka.seed if batched else None,
    }


def figure_settings(ids=None):
    """Return the settings of the CKA figures; the tables' content comes from their jobs."""
    if CONFIG.cka is None:
        return {}
    return {
        "datasets": CONFIG.cka.datasets,
        "tokens": CONFIG.cka.tokens,
        "estimator": CONFIG.cka.estimators[0],
        "models": shown_models(ids),
    }


def similarity_files(folder, names):
    """Return the files of figures below a folder: PNG, PDF, and the numbers that they show."""
    return [f"{folder}/{name}.{kind}" for name in names for kind in ("png", "pdf", "csv")]


def shown_pair(a, b):
    """Return two models as JSON, the one upwards first."""
    shown = {model["id"]: model for model in json.loads(shown_models((a, b)))}
    return json.dumps([shown[a], shown[b]])


rule gram:
    input:
        f"{RESULTS}/features/{{dataset}}/{{model}}.json",
    output:
        update(f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model}}.safetensors"),
    log:
        f"{RESULTS}/logs/gram/{{dataset}}/{{tokens}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/gram/{{dataset}}/{{tokens}}/{{model}}.tsv"
    wildcard_constraints:
        tokens="cls|mean|spatial",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=lambda wildcards: gram_memory_mb(dataset_size(wildcards.dataset)),
        runtime=120,
    params:
        store=f"{RESULTS}/features/{{dataset}}/{{model}}.zarr",
        flags=lambda wildcards: flags(gram_settings(wildcards.tokens)),
    shell:
        "python -m vitfeat gram {params.store:q} --tokens {wildcards.tokens} {params.flags} "
        "--device $VITFEAT_DEVICE --out {output:q} --log {log:q}"


rule gram_all_tokens:
    input:
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        # Gram matrices add over features: the large part is not computed again.
        spatial=f"{RESULTS}/cka/gram/{{dataset}}/spatial/{{model}}.safetensors",
    output:
        update(f"{RESULTS}/cka/gram/{{dataset}}/all/{{model}}.safetensors"),
    log:
        f"{RESULTS}/logs/gram/{{dataset}}/all/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/gram/{{dataset}}/all/{{model}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards: gram_memory_mb(dataset_size(wildcards.dataset)),
        runtime=60,
    params:
        store=f"{RESULTS}/features/{{dataset}}/{{model}}.zarr",
    shell:
        "python -m vitfeat gram {params.store:q} --tokens all --add {input.spatial:q} --device $VITFEAT_DEVICE "
        "--out {output:q} --log {log:q}"


rule cka_pair:
    input:
        a=f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model_a}}.safetensors",
        b=f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model_b}}.safetensors",
    output:
        update(f"{RESULTS}/cka/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.csv"),
    log:
        f"{RESULTS}/logs/cka/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/cka/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.tsv"
    wildcard_constraints:
        model_a=MODEL_IDS,
        model_b=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards: cka_memory_mb(dataset_size(wildcards.dataset)),
        runtime=60,
    params:
        flags=flags(pair_settings()),
    shell:
        "python -m vitfeat cka {input.a:q} {input.b:q} {params.flags} --out {output:q} --log {log:q}"


rule cka_figures:
    input:
        all_cka_tables(),
    output:
        update(similarity_files(f"{RESULTS}/cka", ("all", "last_layer"))),
    log:
        f"{RESULTS}/logs/cka_figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/cka_figures.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        folder=lambda wildcards, input: Path(input[0]).parents[2].as_posix(),
        out=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=flags(figure_settings()),
    shell:
        "python -m vitfeat plot-cka {params.folder:q} {params.flags} --all {params.out:q}/all.png "
        "--last-layer {params.out:q}/last_layer.png --log {log:q}"


use rule cka_figures as cka_set_figures with:
    input:
        lambda wildcards: all_cka_tables(CONFIG.sets[wildcards.chosen]),
    output:
        update(similarity_files(f"{RESULTS}/cka/sets/{{chosen}}", ("all", "last_layer"))),
    log:
        f"{RESULTS}/logs/cka_figures/{{chosen}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/cka_figures/{{chosen}}.tsv"
    params:
        folder=lambda wildcards, input: Path(input[0]).parents[2].as_posix(),
        out=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=lambda wildcards: flags(figure_settings(CONFIG.sets[wildcards.chosen])),


# Nothing asks for it: there are too many pairs. Name its output to have one.
rule cka_pair_figure:
    input:
        f"{RESULTS}/cka/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.csv",
    output:
        update(
            similarity_files(
                f"{RESULTS}/similarity/{{dataset}}/{{tokens}}/pairs", ("{model_a}--{model_b}",)
            )
        ),
    log:
        f"{RESULTS}/logs/cka_pair_figure/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/cka_pair_figure/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.tsv"
    wildcard_constraints:
        model_a=MODEL_IDS,
        model_b=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        out=lambda wildcards, output: output[0],
        models=lambda wildcards: shown_pair(wildcards.model_a, wildcards.model_b),
        estimator=CONFIG.cka.estimators[0] if CONFIG.cka else "debiased",
    shell:
        "python -m vitfeat plot-cka-pair {input:q} --dataset {wildcards.dataset} "
        "--models {params.models:q} --estimator {params.estimator} --out {params.out:q} --log {log:q}"
