# Keypoints found in other images.


rule keypoints:
    input:
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("keypoints"),
        index=local(INDEX),
        points=local(f"{RESULTS}/datasets/points/{{dataset}}.csv"),
    output:
        table=update(f"{RESULTS}/keypoints/{{dataset}}/{{model}}.csv"),
        png=update(f"{RESULTS}/keypoints/{{dataset}}/{{model}}/matches.png"),
        pdf=update(f"{RESULTS}/keypoints/{{dataset}}/{{model}}/matches.pdf"),
        numbers=update(f"{RESULTS}/keypoints/{{dataset}}/{{model}}/matches.csv"),
    log:
        local(f"{RESULTS}/logs/keypoints/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/keypoints/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
    resources:
        mem_mb=raised(keypoints_memory),
        runtime=raised(keypoints_runtime),
    params:
        store=STORE,
        root=lambda wildcards: CONFIG.datasets[wildcards.dataset].root.as_posix(),
        label=lambda wildcards: CONFIG.model(wildcards.model).label,
        flags=flags(keypoint_settings()),
    shell:
        "python -m vitfeat keypoints {params.store:q} {input.points:q} --index {input.index:q} "
        "--root={params.root:q} {params.flags} --figure {output.png:q} --label={params.label:q} "
        "--threads {threads} --out {output.table:q} --log {log:q}"
