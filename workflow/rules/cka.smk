# Linear CKA: Gram matrices once per model and token kind, pairs from Gram matrices alone.


rule gram:
    input:
        f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=lambda wildcards: gram_transient(wildcards, wildcards.tokens),
    output:
        update(f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model}}.safetensors"),
    log:
        local(f"{RESULTS}/logs/gram/{{dataset}}/{{tokens}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/gram/{{dataset}}/{{tokens}}/{{model}}.tsv"
    wildcard_constraints:
        tokens="cls|mean|spatial",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=raised(lambda wildcards: gram_memory_mb(dataset_size(wildcards.dataset))),
        runtime=raised(120),
        gpu=own_gpu,
    params:
        store=STORE,
        flags=lambda wildcards: flags(gram_settings(wildcards.tokens)),
    shell:
        "python -m vitfeat gram {params.store:q} --tokens {wildcards.tokens} {params.flags} "
        "--device $VITFEAT_DEVICE --out {output:q} --log {log:q}"


rule gram_all_tokens:
    input:
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        # Spatial tokens are not read.
        transient=lambda wildcards: gram_transient(wildcards, "all", but="spatial"),
        # Gram matrices add over features: the large part is not computed again.
        spatial=f"{RESULTS}/cka/gram/{{dataset}}/spatial/{{model}}.safetensors",
    output:
        update(f"{RESULTS}/cka/gram/{{dataset}}/all/{{model}}.safetensors"),
    log:
        local(f"{RESULTS}/logs/gram/{{dataset}}/all/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/gram/{{dataset}}/all/{{model}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(lambda wildcards: gram_memory_mb(dataset_size(wildcards.dataset))),
        runtime=raised(60),
    params:
        store=STORE,
    shell:
        "python -m vitfeat gram {params.store:q} --tokens all --add {input.spatial:q} --device cpu "
        "--out {output:q} --log {log:q}"


rule cka_pair:
    input:
        a=f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model_a}}.safetensors",
        b=f"{RESULTS}/cka/gram/{{dataset}}/{{tokens}}/{{model_b}}.safetensors",
    output:
        update(f"{RESULTS}/cka/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.csv"),
    log:
        local(f"{RESULTS}/logs/cka/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/cka/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.tsv"
    wildcard_constraints:
        model_a=MODEL_IDS,
        model_b=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(lambda wildcards: cka_memory_mb(dataset_size(wildcards.dataset))),
        runtime=raised(lambda wildcards: cka_minutes(dataset_size(wildcards.dataset))),
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
        local(f"{RESULTS}/logs/cka_figures.log"),
    benchmark:
        f"{RESULTS}/benchmarks/cka_figures.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        folder=lambda wildcards, input: Path(input[0]).parents[2].as_posix(),
        out=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        flags=lambda wildcards: flags(figure_settings()),
    shell:
        "python -m vitfeat plot-cka {params.folder:q} {params.flags} --all {params.out:q}/all.png "
        "--last-layer {params.out:q}/last_layer.png --log {log:q}"


use rule cka_figures as cka_set_figures with:
    input:
        lambda wildcards: all_cka_tables(CONFIG.sets[wildcards.chosen]),
    output:
        update(similarity_files(f"{RESULTS}/cka/sets/{{chosen}}", ("all", "last_layer"))),
    log:
        local(f"{RESULTS}/logs/cka_figures/{{chosen}}.log"),
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
        local(f"{RESULTS}/logs/cka_pair_figure/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/cka_pair_figure/{{dataset}}/{{tokens}}/{{model_a}}--{{model_b}}.tsv"
    wildcard_constraints:
        model_a=MODEL_IDS,
        model_b=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(1000),
        runtime=raised(15),
    params:
        out=lambda wildcards, output: output[0],
        models=lambda wildcards: shown_pair(wildcards.model_a, wildcards.model_b),
        estimator=(
            CONFIG.analyses.get("cka").estimators[0] if CONFIG.analyses.get("cka") else "debiased"
        ),
    shell:
        "python -m vitfeat plot-cka-pair {input:q} --dataset {wildcards.dataset} "
        "--models {params.models:q} --estimator {params.estimator} --out {params.out:q} --log {log:q}"
