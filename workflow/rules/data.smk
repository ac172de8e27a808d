# The datasets: embedded ones are written as image files, every one gets an index.


# Benchmarks of files that stay here do, too: behind S3 their times lack the part of a second, and would
# be before those of the inputs.
rule demo_data:
    output:
        directory(local(embedded_root(CONFIG.results, "{layout}").as_posix())),
    log:
        local(f"{RESULTS}/logs/demo_data/{{layout}}.log"),
    benchmark:
        local(f"{RESULTS}/benchmarks/demo_data/{{layout}}.tsv")
    wildcard_constraints:
        layout="|".join(EMBEDDED_LAYOUTS),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(500),
        runtime=raised(5),
    shell:
        "python -m vitfeat demo-data {wildcards.layout} --out {output:q} --log {log:q}"


rule index:
    input:
        lambda wildcards: made_folder(wildcards.dataset, index_token),
    output:
        index=update(local(INDEX)),
        files=update(local(f"{RESULTS}/datasets/{{dataset}}.files.npz")),
        skipped=update(local(f"{RESULTS}/datasets/{{dataset}}.skipped.csv")),
        notes=update(local(f"{RESULTS}/datasets/{{dataset}}.notes.txt")),
    log:
        local(f"{RESULTS}/logs/index/{{dataset}}.log"),
    benchmark:
        local(f"{RESULTS}/benchmarks/index/{{dataset}}.tsv")
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem_mb=raised(1000),
        runtime=raised(240),
    params:
        # Another one when images are replaced, come or go.
        files=lambda wildcards: index_token(wildcards.dataset),
        flags=lambda wildcards: index_flags(wildcards.dataset),
    shell:
        "python -m vitfeat index {wildcards.dataset} {params.flags} --workers {threads} "
        "--out {output.index:q} --log {log:q}"


rule annotations:
    input:
        index=local(INDEX),
        made=lambda wildcards: made_folder(wildcards.dataset, annotation_token),
    output:
        table=update(local(f"{RESULTS}/datasets/{{kind}}/{{dataset}}.csv")),
        notes=update(local(f"{RESULTS}/datasets/{{kind}}/{{dataset}}.notes.txt")),
        files=update(local(f"{RESULTS}/datasets/{{kind}}/{{dataset}}.files.json")),
    log:
        local(f"{RESULTS}/logs/annotations/{{kind}}/{{dataset}}.log"),
    benchmark:
        local(f"{RESULTS}/benchmarks/annotations/{{kind}}/{{dataset}}.tsv")
    wildcard_constraints:
        kind="regions|relevance|frames|points",
    # Flaws of annotations are found before models run.
    priority: 1
    conda:
        "../../environment.yml"
    resources:
        # The annotations of COCO's training images take 4 GB when they are read.
        mem_mb=raised(6000),
        runtime=raised(60),
    params:
        # Another one when files of annotations are others.
        files=lambda wildcards: annotation_token(wildcards.dataset),
        flags=lambda wildcards: index_flags(wildcards.dataset),
    shell:
        "python -m vitfeat annotations {wildcards.dataset} {params.flags} --index {input.index:q} "
        "--out {output.table:q} --log {log:q}"
