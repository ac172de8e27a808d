# Attention maps of chosen images, over the image that the model saw.


rule attention_maps:
    input:
        index=f"{RESULTS}/datasets/{{dataset}}.csv",
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
    output:
        map_files(".png"),
        map_files(".pdf"),
        map_files(".csv"),
    log:
        f"{RESULTS}/logs/attention_maps/{{dataset}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/attention_maps/{{dataset}}/{{model}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        store=f"{RESULTS}/features/{{dataset}}/{{model}}.zarr",
        folder=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        root=lambda wildcards: CONFIG.datasets[wildcards.dataset].root.as_posix(),
        label=lambda wildcards: CONFIG.model(wildcards.model).label,
        flags=lambda wildcards: flags(map_settings()),
    shell:
        "python -m vitfeat attention-maps {params.store:q} --index {input.index:q} --root {params.root:q} "
        "{params.flags} --label {params.label:q} --out {params.folder:q} --log {log:q}"
