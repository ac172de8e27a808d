# One pass of every image through every model.


rule fetch_weights:
    output:
        # The record says what was fetched and pins it; it outlives a failed job.
        update(local(f"{WEIGHTS}/{{model}}.json")),
    log:
        local(f"{RESULTS}/logs/fetch/{{model}}.log"),
    benchmark:
        local(f"{RESULTS}/benchmarks/fetch/{{model}}.tsv")
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
        weights=lambda wildcards: weight_files(EXTRACTIONS.models(wildcards)),
        regions=lambda wildcards: local(EXTRACTIONS.regions(wildcards)),
        parts=EXTRACTIONS.parts,
    output:
        **extract_outputs(),
    log:
        local(f"{RESULTS}/logs/extract/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/extract/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        dataset=EXTRACTIONS.names(together=False),
        model=any_of(model.id for model in PUSHED.models),
    # What goes after use is used before more of it is made.
    priority: 0 if CONFIG.extraction.keep is None else -1
    conda:
        "../../environment.yml"
    threads: EXTRACTIONS.threads
    resources:
        mem_mb=raised(EXTRACTIONS.memory_mb),
        runtime=raised(EXTRACTIONS.minutes),
        gpu=extraction_gpu,
    params:
        command=EXTRACTIONS.command,
        weights=lambda wildcards: [checkpoint_contents(m.id) for m in EXTRACTIONS.models(wildcards)],
        store=lambda wildcards: STORE.replace("{dataset}", wildcards.dataset),
        part=lambda wildcards, output: given({"manifest": beside(output[0], "{model}.json")}),
    shell:
        "python -m vitfeat extract {params.command} --index {input.index:q} --out {params.store:q} "
        '$VITFEAT_HOW --weights-folder "$VITFEAT_WEIGHTS" --threads {threads} '
        "{params.part} --log {log:q}"


# Of datasets that every model is through in seconds.
if EXTRACTIONS.together:

    use rule extract as extract_of_all with:
        output:
            manifest=update(
                [EXTRACTIONS.manifest("{dataset}", model.id) for model in EXTRACTIONS.models(None)]
            ),
        log:
            local(f"{RESULTS}/logs/extract/{{dataset}}.log"),
        benchmark:
            f"{RESULTS}/benchmarks/extract/{{dataset}}.tsv"
        wildcard_constraints:
            dataset=EXTRACTIONS.names(together=True),
        group:
            "small"


# Where several jobs share an extraction (`extraction.jobs`) they write blocks of one store, and the
# rule above seals it.
use rule extract as extract_part with:
    input:
        index=local(INDEX),
        weights=lambda wildcards: weight_files(EXTRACTIONS.models(wildcards)),
        regions=lambda wildcards: local(EXTRACTIONS.regions(wildcards)),
    output:
        temp(touch(f"{RESULTS}/features/{{dataset}}/{{model}}.parts/{{part}}-of-{{parts}}")),
    log:
        local(f"{RESULTS}/logs/extract/{{dataset}}/{{model}}.parts/{{part}}-of-{{parts}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/extract/{{dataset}}/{{model}}.parts/{{part}}-of-{{parts}}.tsv"
    wildcard_constraints:
        model=any_of(model.id for model in PUSHED.models),
        part="[0-9]+",
        parts="[0-9]+",
    params:
        part="--blocks {part}/{parts}",


# One file in the place of N: how many they are may be another number once the index is there.
rule extract_parts:
    input:
        EXTRACTIONS.every_part,
    output:
        temp(touch(f"{RESULTS}/features/{{dataset}}/{{model}}.parts/all")),
    localrule: True


# Of models whose features are from elsewhere no image is pushed: their vectors become stores.
rule import_features:
    input:
        index=local(INDEX),
        features=lambda wildcards: local(
            CONFIG.model(wildcards.model).features_of(wildcards.dataset).as_posix()
        ),
    output:
        manifest=update(f"{RESULTS}/features/{{dataset}}/{{model}}.json"),
    log:
        local(f"{RESULTS}/logs/import/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/import/{{dataset}}/{{model}}.tsv"
    wildcard_constraints:
        model=any_of(model.id for model in of_models(CONFIG, imported=True).models),
    group:
        "small"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(4000),
        runtime=raised(60),
    params:
        store=lambda wildcards: STORE.replace("{dataset}", wildcards.dataset).replace(
            "{model}", wildcards.model
        ),
        features=lambda wildcards: CONFIG.model(wildcards.model)
        .features_of(wildcards.dataset)
        .as_posix(),
    shell:
        "python -m vitfeat import {params.features:q} --model {wildcards.model} --index {input.index:q} "
        f"--out {{params.store:q}} --manifest {{output.manifest:q}} {REPLACED} --log {{log:q}}"
