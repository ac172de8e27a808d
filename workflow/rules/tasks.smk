# All tasks together: one table, and figures.


rule task_set:
    input:
        lambda wildcards: set_tables(wildcards.task, wildcards),
    output:
        update(set_outputs("{task}", TASK_FIGURES["plain"])),
    log:
        local(f"{RESULTS}/logs/task_set/{{task}}/{{dataset}}/{{chosen}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/task_set/{{task}}/{{dataset}}/{{chosen}}.tsv"
    wildcard_constraints:
        task=tasks_with("plain"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        tables=lambda wildcards, output: Path(output[0]).parents[3].as_posix(),
        folder=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        models=lambda wildcards: shown_models(model_sets()[wildcards.chosen]),
    shell:
        "python -m vitfeat plot-task {wildcards.task} {params.tables:q} "
        "--datasets {wildcards.dataset} --models {params.models:q} --out {params.folder:q} "
        "--log {log:q}"


# Tasks with more figures: one job draws all of a set.
use rule task_set as task_set_details with:
    output:
        update(set_outputs("{task}", TASK_FIGURES["details"])),
    wildcard_constraints:
        task=tasks_with("details"),


use rule task_set as task_set_groups with:
    output:
        update(set_outputs("{task}", TASK_FIGURES["groups"])),
    wildcard_constraints:
        task=tasks_with("groups"),


rule task_overview:
    input:
        task_overview_tables,
    output:
        png=update(f"{RESULTS}/{{task}}/all.png"),
        pdf=update(f"{RESULTS}/{{task}}/all.pdf"),
        numbers=update(f"{RESULTS}/{{task}}/all.csv"),
    log:
        local(f"{RESULTS}/logs/task_overview/{{task}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/task_overview/{{task}}.tsv"
    wildcard_constraints:
        task="|".join(TASKS),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        tables=lambda wildcards, output: Path(output.png).parent.as_posix(),
        flags=lambda wildcards: flags(overview_settings(wildcards.task)),
    shell:
        "python -m vitfeat plot-task {wildcards.task} {params.tables:q} {params.flags} "
        "--overview {output.png:q} --log {log:q}"


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
