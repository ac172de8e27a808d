# Attention metrics and maps averaged over images, from the summaries.


rule attention:
    input:
        f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("attention", *({"attention"} & set(CONFIG.extraction["taps"]))),
    output:
        table=update(f"{RESULTS}/attention/{{dataset}}/{{model}}.csv"),
        maps=update(f"{RESULTS}/attention/{{dataset}}/{{model}}.nc"),
    log:
        local(f"{RESULTS}/logs/attention/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/attention/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    # One reads while the other sums.
    threads: lambda wildcards: min(2, extraction_threads(CONFIG.model(wildcards.model)))
    resources:
        mem_mb=raised(
            lambda wildcards: attention_memory_mb(
                guess_shape(CONFIG.model(wildcards.model)),
                dataset_size(wildcards.dataset),
                CONFIG.analyses.get("attention").by_class,
            )
        ),
        runtime=raised(
            lambda wildcards: attention_minutes(
                guess_shape(CONFIG.model(wildcards.model)), dataset_size(wildcards.dataset)
            )
        ),
    params:
        store=STORE,
        flags=flags(attention_settings()),
    shell:
        "python -m vitfeat attention {params.store:q} {params.flags} --out {output.table:q} "
        "--maps {output.maps:q} --log {log:q}"


rule attention_set:
    input:
        lambda wildcards: set_tables("attention", wildcards),
    output:
        update(set_outputs("attention", ATTENTION_SET_FIGURES)),
    log:
        local(f"{RESULTS}/logs/attention_set/{{dataset}}/{{chosen}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/attention_set/{{dataset}}/{{chosen}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        tables=lambda wildcards, output: Path(output[0]).parents[3].as_posix(),
        folder=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        models=lambda wildcards: shown_models(model_sets()[wildcards.chosen]),
    shell:
        "python -m vitfeat plot-attention {params.tables:q} --datasets {wildcards.dataset} "
        "--models {params.models:q} --out {params.folder:q} --log {log:q}"


rule attention_overview:
    input:
        attention_tables(),
    output:
        png=update(f"{RESULTS}/attention/all.png"),
        pdf=update(f"{RESULTS}/attention/all.pdf"),
        numbers=update(f"{RESULTS}/attention/all.csv"),
    log:
        local(f"{RESULTS}/logs/attention_overview.log"),
    benchmark:
        f"{RESULTS}/benchmarks/attention_overview.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        tables=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=lambda wildcards: flags(overview_settings("attention")),
    shell:
        "python -m vitfeat plot-attention {params.tables:q} {params.flags} "
        "--overview {output.png:q} --log {log:q}"


rule attention_model:
    input:
        # Scales are common to all models.
        [
            f"{RESULTS}/attention/{{dataset}}/{model.id}.{kind}"
            for model in CONFIG.models
            for kind in ("csv", "nc")
        ],
    output:
        update(
            [
                f"{RESULTS}/attention/{{dataset}}/{{model}}/{name}.{kind}"
                for name in attention_model_figures()
                for kind in ("png", "pdf", "csv")
            ]
        ),
    log:
        local(f"{RESULTS}/logs/attention_model/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/attention_model/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        folder=lambda wildcards, input: Path(input[0]).parent.as_posix(),
        out=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=lambda wildcards: flags({"models": shown_models(), "by_class": draws_classes()}),
    shell:
        "python -m vitfeat plot-attention-model {params.folder:q} --model {wildcards.model} "
        "{params.flags} --out {params.out:q} --log {log:q}"
