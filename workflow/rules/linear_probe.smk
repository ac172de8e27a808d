# Logistic regression on the features of every layer.


if layer_jobs("linear_probe"):

    rule linear_probe_layer:
        input:
            f"{RESULTS}/features/{{dataset}}/{{model}}.json",
            train=lambda wildcards: train_store("linear_probe", wildcards, "json"),
            transient=transient("linear_probe"),
            train_transient=lambda wildcards: train_transient("linear_probe", wildcards),
        output:
            temp(f"{RESULTS}/linear_probe/{{dataset}}/{{model}}/layer-{{layer}}.csv"),
        log:
            local(f"{RESULTS}/logs/linear_probe/{{dataset}}/{{model}}/layer-{{layer}}.log"),
        benchmark:
            f"{RESULTS}/benchmarks/linear_probe/{{dataset}}/{{model}}/layer-{{layer}}.tsv"
        wildcard_constraints:
            model=MODEL_IDS,
            layer=r"\d+",
        conda:
            "../../environment.yml"
        threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
        resources:
            mem_mb=raised(linear_probe_memory),
            runtime=raised(linear_probe_runtime),
            gpu=own_gpu,
        params:
            store=STORE,
            train=lambda wildcards: train_store("linear_probe", wildcards),
            flags=flags(linear_probe_settings()),
        shell:
            "python -m vitfeat linear-probe {params.store:q} --train {params.train:q} {params.flags} "
            "--layers {wildcards.layer} --if-stored --device $VITFEAT_DEVICE --threads {threads} "
            "--out {output:q} --log {log:q}"

    rule linear_probe_join:
        input:
            manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
            train=lambda wildcards: train_store("linear_probe", wildcards, "json"),
            tables=lambda wildcards: layer_tables("linear_probe", wildcards),
        output:
            update(f"{RESULTS}/linear_probe/{{dataset}}/{{model}}.csv"),
        log:
            local(f"{RESULTS}/logs/linear_probe/{{dataset}}/{{model}}.log"),
        benchmark:
            f"{RESULTS}/benchmarks/linear_probe/{{dataset}}/{{model}}.tsv"
        wildcard_constraints:
            model=MODEL_IDS,
        conda:
            "../../environment.yml"
        resources:
            mem_mb=raised(500),
            runtime=raised(10),
        params:
            store=STORE,
            # The layers' tables are gone by the time that a setting changes.
            settings=flags(linear_probe_settings()),
        shell:
            "python -m vitfeat join-layers {input.tables:q} --store {params.store:q} "
            "--out {output:q} --log {log:q}"

else:

    rule linear_probe:
        input:
            f"{RESULTS}/features/{{dataset}}/{{model}}.json",
            train=lambda wildcards: train_store("linear_probe", wildcards, "json"),
            transient=transient("linear_probe"),
            train_transient=lambda wildcards: train_transient("linear_probe", wildcards),
        output:
            update(f"{RESULTS}/linear_probe/{{dataset}}/{{model}}.csv"),
        log:
            local(f"{RESULTS}/logs/linear_probe/{{dataset}}/{{model}}.log"),
        benchmark:
            f"{RESULTS}/benchmarks/linear_probe/{{dataset}}/{{model}}.tsv"
        wildcard_constraints:
            model=MODEL_IDS,
        conda:
            "../../environment.yml"
        threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
        resources:
            mem_mb=raised(linear_probe_memory),
            runtime=raised(linear_probe_runtime),
            gpu=own_gpu,
        params:
            store=STORE,
            train=lambda wildcards: train_store("linear_probe", wildcards),
            flags=flags(linear_probe_settings()),
        shell:
            "python -m vitfeat linear-probe {params.store:q} --train {params.train:q} {params.flags} "
            "--device $VITFEAT_DEVICE --threads {threads} --out {output:q} --log {log:q}"
