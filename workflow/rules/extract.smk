# One pass of every image through every model.


rule extract:
    input:
        f"{RESULTS}/datasets/{{dataset}}.csv",
    output:
        # The sealed store's manifest, not the store: Snakemake deletes the outputs of a failed job,
        # and an interrupted store is gone on with.
        f"{RESULTS}/features/{{dataset}}/{{model}}.json",
    log:
        f"{RESULTS}/logs/extract/{{dataset}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/extract/{{dataset}}/{{model}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
    resources:
        mem_mb=lambda wildcards: extraction_memory_mb(
            guess_shape(CONFIG.model(wildcards.model)), CONFIG.extraction["batch_size"]
        ),
        runtime=lambda wildcards, input, threads: extraction_minutes(
            guess_shape(CONFIG.model(wildcards.model)), n_images(input[0]), threads
        ),
    params:
        store=f"{RESULTS}/features/{{dataset}}/{{model}}.zarr",
        flags=lambda wildcards: flags(extraction_settings(wildcards)),
    shell:
        "python -m vitfeat extract {wildcards.model} --index {input} --out {params.store} "
        "--manifest {output} {params.flags} --threads {threads} --log {log}"
