# Attention maps of chosen images, over the image that the model saw.


# These few images go through the model here, into a store of their own: other images would else be
# another store of all.
rule attention_maps:
    input:
        index=local(INDEX),
        weights=lambda wildcards: weight_files(CONFIG.model(wildcards.model)),
    output:
        map_folders(),
        manifest=update(f"{RESULTS}/attention_maps/stores/{{dataset}}/{{model}}.json"),
    log:
        draw=local(f"{RESULTS}/logs/attention_maps/{{dataset}}/{{model}}.log"),
        extract=local(f"{RESULTS}/logs/attention_maps/{{dataset}}/{{model}}.extract.log"),
    benchmark:
        f"{RESULTS}/benchmarks/attention_maps/{{dataset}}/{{model}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
    resources:
        mem_mb=raised(map_memory),
        runtime=raised(60),
        gpu=own_gpu,
    params:
        weights=lambda wildcards: checkpoint_contents(wildcards.model),
        store=in_storage(f"{RESULTS}/attention_maps/stores/{{dataset}}/{{model}}.zarr"),
        pass_flags=lambda wildcards: flags(extraction_settings(wildcards) | map_images()),
        folder=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        root=lambda wildcards: CONFIG.datasets[wildcards.dataset].root.as_posix(),
        label=lambda wildcards: CONFIG.model(wildcards.model).label,
        flags=lambda wildcards: flags(map_settings()),
    shell:
        "python -m vitfeat extract {wildcards.model} --index {input.index:q} --out {params.store:q} --taps attention "
        '{params.pass_flags} $VITFEAT_HOW --replace --weights-folder "$VITFEAT_WEIGHTS" --threads {threads} '
        "--manifest {output.manifest:q} --log {log.extract:q}; "
        "python -m vitfeat attention-maps {params.store:q} --index {input.index:q} --root={params.root:q} "
        "{params.flags} --label={params.label:q} --out {params.folder:q} --log {log.draw:q}"
