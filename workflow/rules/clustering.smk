# k-means of features against classes.


rule clustering:
    input:
        f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("clustering"),
    output:
        update(f"{RESULTS}/clustering/{{dataset}}/{{model}}.csv"),
    log:
        local(f"{RESULTS}/logs/clustering/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/clustering/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
    resources:
        mem_mb=raised(clustering_memory),
        runtime=raised(clustering_runtime),
    params:
        store=STORE,
        flags=flags(clustering_settings()),
    shell:
        "python -m vitfeat cluster {params.store:q} {params.flags} --threads {threads} "
        "--out {output:q} --log {log:q}"


rule clustering_set:
    input:
        lambda wildcards: set_tables("clustering", wildcards),
    output:
        update(set_outputs("clustering", CLUSTERING_SET_FIGURES)),
    log:
        local(f"{RESULTS}/logs/clustering_set/{{dataset}}/{{chosen}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/clustering_set/{{dataset}}/{{chosen}}.tsv"
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
        "python -m vitfeat plot-clustering {params.tables:q} --datasets {wildcards.dataset} "
        "--models {params.models:q} --out {params.folder:q} --log {log:q}"


rule clustering_overview:
    input:
        clustering_tables(),
    output:
        png=update(f"{RESULTS}/clustering/all.png"),
        pdf=update(f"{RESULTS}/clustering/all.pdf"),
        numbers=update(f"{RESULTS}/clustering/all.csv"),
    log:
        local(f"{RESULTS}/logs/clustering_overview.log"),
    benchmark:
        f"{RESULTS}/benchmarks/clustering_overview.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        tables=lambda wildcards, output: Path(output.png).parent.as_posix(),
        flags=lambda wildcards: flags(overview_settings("clustering")),
    shell:
        "python -m vitfeat plot-clustering {params.tables:q} {params.flags} "
        "--overview {output.png:q} --log {log:q}"
