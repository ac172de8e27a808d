# Similarity of models by several measures, with confidence intervals, from the Gram matrices of CKA.


rule similarity_pair:
    input:
        a=f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model_a}}.safetensors",
        b=f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model_b}}.safetensors",
    output:
        update(f"{RESULTS}/similarity/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.csv"),
    log:
        local(f"{RESULTS}/logs/similarity/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/similarity/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.tsv"
    wildcard_constraints:
        model_a=MODEL_IDS,
        model_b=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(
            lambda wildcards: similarity_memory_mb(
                dataset_size(wildcards.dataset),
                CONFIG.analyses.get("similarity").images,
                sum(compared_layers(wildcards)),
            )
        ),
        runtime=raised(
            lambda wildcards: similarity_minutes(
                dataset_size(wildcards.dataset),
                CONFIG.analyses.get("similarity").images,
                compared_layers(wildcards),
                CONFIG.analyses.get("similarity").resamples,
            )
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
        local(f"{RESULTS}/logs/similarity_figures.log"),
    benchmark:
        f"{RESULTS}/benchmarks/similarity_figures.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        folder=lambda wildcards, input: Path(input[0]).parents[2].as_posix(),
        out=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=lambda wildcards: flags(similarity_figure_settings()),
    shell:
        "python -m vitfeat plot-similarity {params.folder:q} {params.flags} --out {params.out:q} "
        "--log {log:q}"


use rule similarity_figures as similarity_set_figures with:
    input:
        lambda wildcards: similarity_tables(CONFIG.sets[wildcards.chosen]),
    output:
        update(similarity_files(f"{RESULTS}/similarity/sets/{{chosen}}", similarity_figures())),
    log:
        local(f"{RESULTS}/logs/similarity_figures/{{chosen}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/similarity_figures/{{chosen}}.tsv"
    params:
        folder=lambda wildcards, input: Path(input[0]).parents[2].as_posix(),
        out=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=lambda wildcards: flags(similarity_figure_settings(CONFIG.sets[wildcards.chosen])),
