# The most attended tokens against annotated masks.


rule saliency:
    input:
        index=local(INDEX),
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("saliency"),
        regions=local(f"{RESULTS}/datasets/regions/{{dataset}}.csv"),
    output:
        update(f"{RESULTS}/saliency/{{dataset}}/{{model}}.csv"),
    log:
        local(f"{RESULTS}/logs/saliency/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/saliency/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(saliency_memory),
        runtime=raised(saliency_runtime),
    params:
        store=STORE,
        flags=flags(saliency_settings()),
    shell:
        "python -m vitfeat saliency {params.store:q} --index {input.index:q} "
        "--regions {input.regions:q} {params.flags} --out {output:q} --log {log:q}"


rule saliency_masks:
    input:
        index=local(INDEX),
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("saliency"),
        regions=local(f"{RESULTS}/datasets/regions/{{dataset}}.csv"),
        table=f"{RESULTS}/saliency/{{dataset}}/{{model}}.csv",
    output:
        png=update(f"{RESULTS}/saliency/{{dataset}}/{{model}}/masks.png"),
        pdf=update(f"{RESULTS}/saliency/{{dataset}}/{{model}}/masks.pdf"),
        numbers=update(f"{RESULTS}/saliency/{{dataset}}/{{model}}/masks.csv"),
    log:
        local(f"{RESULTS}/logs/saliency_masks/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/saliency_masks/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(saliency_memory),
        runtime=raised(30),
    params:
        store=STORE,
        root=lambda wildcards: CONFIG.datasets[wildcards.dataset].root.as_posix(),
        label=lambda wildcards: CONFIG.model(wildcards.model).label,
        flags=lambda wildcards: flags(saliency_mask_settings()),
    shell:
        "python -m vitfeat saliency-masks {params.store:q} --index {input.index:q} "
        "--regions {input.regions:q} --root={params.root:q} --table {input.table:q} {params.flags} "
        "--label={params.label:q} --out {output.png:q} --log {log:q}"
