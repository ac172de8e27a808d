# All tasks together: one table, and figures.


rule collect_tasks:
    input:
        collected_tables(),
    output:
        table=update(f"{RESULTS}/tasks/all.csv"),
        best=update(f"{RESULTS}/tasks/best.csv"),
    log:
        local(f"{RESULTS}/logs/collect_tasks.log"),
    benchmark:
        f"{RESULTS}/benchmarks/collect_tasks.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(4000),
        runtime=raised(30),
    params:
        results=lambda wildcards, output: Path(output.table).parents[1].as_posix(),
        flags=lambda wildcards: flags(collect_settings()),
    shell:
        "python -m vitfeat collect-tasks {params.results:q} {params.flags} --out {output.table:q} "
        "--best {output.best:q} --log {log:q}"


rule all_tasks_set:
    input:
        f"{RESULTS}/tasks/all.csv",
    output:
        update(all_tasks_outputs()),
    log:
        local(f"{RESULTS}/logs/all_tasks_set/{{chosen}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/all_tasks_set/{{chosen}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(4000),
        runtime=raised(30),
    params:
        folder=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        models=lambda wildcards: shown_models(model_sets()[wildcards.chosen]),
    shell:
        "python -m vitfeat plot-tasks {input:q} --models {params.models:q} "
        "--out {params.folder:q} --log {log:q}"
