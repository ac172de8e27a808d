# Annotated regions: k-means of their features.


rule regions:
    input:
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("regions"),
        regions=local(f"{RESULTS}/datasets/regions/{{dataset}}.csv"),
    output:
        update(f"{RESULTS}/regions/{{dataset}}/{{model}}.csv"),
    log:
        local(f"{RESULTS}/logs/regions/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/regions/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
    resources:
        mem_mb=raised(regions_memory),
        runtime=raised(regions_runtime),
    params:
        store=STORE,
        flags=flags(regions_settings()),
    shell:
        "python -m vitfeat regions {params.store:q} --regions {input.regions:q} {params.flags} "
        "--threads {threads} --out {output:q} --log {log:q}"
