# Linear CKA: Gram matrices once per model and token kind, pairs from Gram matrices alone.


def all_cka_tables():
    if CONFIG.cka is None:
        return []
    ids = [m.id for m in CONFIG.models]
    tables = cka_tables(CONFIG.results / "cka", CONFIG.cka.datasets, CONFIG.cka.tokens, ids)
    return [table.path.as_posix() for some in tables.values() for table in some]


def cka_targets():
    """Return the figures of CKA."""
    if CONFIG.cka is None:
        return []
    return [f"{RESULTS}/cka/all.png", f"{RESULTS}/cka/last_layer.png"]


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


def figure_settings():
    """Return the settings of the CKA figures; the tables' content comes from their jobs."""
    if CONFIG.cka is None:
        return {}
    return {
        "datasets": CONFIG.cka.datasets,
        "tokens": CONFIG.cka.tokens,
        "estimator": CONFIG.cka.estimators[0],
        "models": shown_models(),
    }


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
        all=update(f"{RESULTS}/cka/all.png"),
        all_pdf=update(f"{RESULTS}/cka/all.pdf"),
        last_layer=update(f"{RESULTS}/cka/last_layer.png"),
        last_layer_pdf=update(f"{RESULTS}/cka/last_layer.pdf"),
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
        folder=lambda wildcards, output: Path(output.all).parent.as_posix(),
        flags=flags(figure_settings()),
    shell:
        "python -m vitfeat plot-cka {params.folder:q} {params.flags} --all {output.all:q} "
        "--last-layer {output.last_layer:q} --log {log:q}"
