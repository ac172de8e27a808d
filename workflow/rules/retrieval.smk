# Retrieval of images of the same landmark.


rule retrieval:
    input:
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("retrieval"),
        relevance=local(f"{RESULTS}/datasets/relevance/{{dataset}}.csv"),
    output:
        update(f"{RESULTS}/retrieval/{{dataset}}/{{model}}.csv"),
    log:
        local(f"{RESULTS}/logs/retrieval/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/retrieval/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(retrieval_memory),
        runtime=raised(retrieval_runtime),
    params:
        store=STORE,
        flags=flags(retrieval_settings("features", "final_norm", "ranks")),
    shell:
        "python -m vitfeat retrieval {params.store:q} {input.relevance:q} {params.flags} "
        "--out {output:q} --log {log:q}"


rule ranking:
    input:
        index=local(INDEX),
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("retrieval"),
        relevance=local(f"{RESULTS}/datasets/relevance/{{dataset}}.csv"),
    output:
        png=update(f"{RESULTS}/retrieval/{{dataset}}/{{model}}/ranking.png"),
        pdf=update(f"{RESULTS}/retrieval/{{dataset}}/{{model}}/ranking.pdf"),
        numbers=update(f"{RESULTS}/retrieval/{{dataset}}/{{model}}/ranking.csv"),
    log:
        local(f"{RESULTS}/logs/ranking/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/ranking/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(retrieval_memory),
        runtime=raised(retrieval_runtime),
    params:
        store=STORE,
        root=lambda wildcards: CONFIG.datasets[wildcards.dataset].root.as_posix(),
        label=lambda wildcards: CONFIG.model(wildcards.model).label,
        flags=flags(ranking_settings()),
    shell:
        "python -m vitfeat ranking {params.store:q} {input.relevance:q} --index {input.index:q} "
        "--root={params.root:q} {params.flags} --label={params.label:q} --out {output.png:q} "
        "--log {log:q}"
