# One pass of every image through every model.


rule fetch_weights:
    output:
        # The record says what was fetched and pins it; it outlives a failed job.
        update(local(f"{WEIGHTS}/{{model}}.json")),
    log:
        local(f"{RESULTS}/logs/fetch/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/fetch/{{model}}.tsv"
    # Runs where Snakemake does: compute nodes need no internet.
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(1000),
        runtime=raised(240),
    params:
        folder=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        entry=lambda wildcards: fetch_settings(CONFIG.model(wildcards.model)),
    shell:
        "python -m vitfeat fetch {wildcards.model} --entry {params.entry:q} --weights-folder {params.folder:q} "
        "--log {log:q}"


rule extract:
    input:
        index=local(INDEX),
        weights=lambda wildcards: weight_files(pushed_through(wildcards)),
        regions=lambda wildcards: region_table(wildcards.dataset),
        parts=parts_of,
    output:
        **extract_outputs(),
    log:
        local(f"{RESULTS}/logs/extract/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/extract/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        dataset=any_of(EXTRACTED - TOGETHER),
    # What goes after use is used before more of it is made.
    priority: 0 if CONFIG.extraction["keep"] is None else -1
    conda:
        "../../environment.yml"
    threads: lambda wildcards: max(map(extraction_threads, pushed_through(wildcards)))
    resources:
        mem_mb=raised(extraction_mb),
        runtime=raised(extraction_runtime),
        gpu=extraction_gpu,
    params:
        models=lambda wildcards: extraction_models(pushed_through(wildcards)),
        weights=lambda wildcards: [checkpoint_contents(m.id) for m in pushed_through(wildcards)],
        store=lambda wildcards: STORE.replace("{dataset}", wildcards.dataset),
        flags=lambda wildcards: flags(extraction_settings(wildcards) | stored(wildcards)),
        part=lambda wildcards, output: flags({"manifest": beside(output[0], "{model}.json")}),
    shell:
        "python -m vitfeat extract {params.models} --index {input.index:q} --out {params.store:q} "
        '{params.flags} $VITFEAT_HOW --weights-folder "$VITFEAT_WEIGHTS" --threads {threads} '
        "{params.part} --log {log:q}"


# Of datasets that every model is through in seconds.
use rule extract as extract_of_all with:
    output:
        manifest=update(
            [f"{RESULTS}/features/{{dataset}}/{m.id}.json" for m in pushed_through(None)]
        ),
    log:
        local(f"{RESULTS}/logs/extract/{{dataset}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/extract/{{dataset}}.tsv"
    wildcard_constraints:
        dataset=any_of(TOGETHER),


# Where several jobs share an extraction (`extraction.jobs`) they write blocks of one store, and the
# rule above seals it.
use rule extract as extract_part with:
    input:
        index=local(INDEX),
        weights=lambda wildcards: weight_files(pushed_through(wildcards)),
        regions=lambda wildcards: region_table(wildcards.dataset),
    output:
        temp(touch(f"{RESULTS}/features/{{dataset}}/{{model}}.parts/{{part}}-of-{{parts}}")),
    log:
        local(f"{RESULTS}/logs/extract/{{dataset}}/{{model}}.parts/{{part}}-of-{{parts}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/extract/{{dataset}}/{{model}}.parts/{{part}}-of-{{parts}}.tsv"
    wildcard_constraints:
        part="[0-9]+",
        parts="[0-9]+",
    params:
        part="--blocks {part}/{parts}",


# One file in the place of N: how many they are may be another number once the index is there.
rule extract_parts:
    input:
        every_part,
    output:
        temp(touch(f"{RESULTS}/features/{{dataset}}/{{model}}.parts/all")),
    localrule: True
