# Objects followed through videos.


rule video:
    input:
        manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("video"),
        index=local(INDEX),
        frames=local(f"{RESULTS}/datasets/frames/{{dataset}}.csv"),
    output:
        table=update(f"{RESULTS}/video/{{dataset}}/{{model}}.csv"),
        png=update(f"{RESULTS}/video/{{dataset}}/{{model}}/frames.png"),
        pdf=update(f"{RESULTS}/video/{{dataset}}/{{model}}/frames.pdf"),
    log:
        local(f"{RESULTS}/logs/video/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/video/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=MODEL_IDS,
    conda:
        "../../environment.yml"
    threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
    resources:
        mem_mb=raised(video_memory),
        runtime=raised(video_runtime),
    params:
        store=STORE,
        masks=lambda wildcards, output: Path(output.png).with_name("masks").as_posix(),
        root=lambda wildcards: CONFIG.datasets[wildcards.dataset].root.as_posix(),
        label=lambda wildcards: CONFIG.model(wildcards.model).label,
        flags=flags(video_settings()),
    shell:
        "python -m vitfeat video {params.store:q} --frames {input.frames:q} --index {input.index:q} "
        "--root={params.root:q} {params.flags} --mask-folder {params.masks:q} "
        "--figure {output.png:q} --label={params.label:q} --threads {threads} "
        "--out {output.table:q} --log {log:q}"
