# Classes by the votes of nearest training images.


if layer_jobs("knn"):

    rule knn_layer:
        input:
            f"{RESULTS}/features/{{dataset}}/{{model}}.json",
            train=lambda wildcards: train_store("knn", wildcards, "json"),
            transient=transient("knn"),
            train_transient=lambda wildcards: train_transient("knn", wildcards),
        output:
            temp(f"{RESULTS}/knn/{{dataset}}/{{model}}/layer-{{layer}}.csv"),
        log:
            local(f"{RESULTS}/logs/knn/{{dataset}}/{{model}}/layer-{{layer}}.log"),
        benchmark:
            f"{RESULTS}/benchmarks/knn/{{dataset}}/{{model}}/layer-{{layer}}.tsv"
        wildcard_constraints:
            model=MODEL_IDS,
            layer=r"\d+",
        conda:
            "../../environment.yml"
        threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
        resources:
            mem_mb=raised(knn_memory),
            runtime=raised(knn_runtime),
            gpu=own_gpu,
        params:
            store=STORE,
            train=lambda wildcards: train_store("knn", wildcards),
            flags=flags(knn_settings()),
        shell:
            "python -m vitfeat knn {params.store:q} --train {params.train:q} {params.flags} "
            "--layers {wildcards.layer} --if-stored --device $VITFEAT_DEVICE --threads {threads} "
            "--out {output:q} --log {log:q}"

    rule knn_join:
        input:
            manifest=f"{RESULTS}/features/{{dataset}}/{{model}}.json",
            train=lambda wildcards: train_store("knn", wildcards, "json"),
            tables=lambda wildcards: layer_tables("knn", wildcards),
        output:
            update(f"{RESULTS}/knn/{{dataset}}/{{model}}.csv"),
        log:
            local(f"{RESULTS}/logs/knn/{{dataset}}/{{model}}.log"),
        benchmark:
            f"{RESULTS}/benchmarks/knn/{{dataset}}/{{model}}.tsv"
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
            settings=flags(knn_settings()),
        shell:
            "python -m vitfeat join-layers {input.tables:q} --store {params.store:q} "
            "--out {output:q} --log {log:q}"

else:

    rule knn:
        input:
            f"{RESULTS}/features/{{dataset}}/{{model}}.json",
            train=lambda wildcards: train_store("knn", wildcards, "json"),
            transient=transient("knn"),
            train_transient=lambda wildcards: train_transient("knn", wildcards),
        output:
            update(f"{RESULTS}/knn/{{dataset}}/{{model}}.csv"),
        log:
            local(f"{RESULTS}/logs/knn/{{dataset}}/{{model}}.log"),
        benchmark:
            f"{RESULTS}/benchmarks/knn/{{dataset}}/{{model}}.tsv"
        wildcard_constraints:
            model=MODEL_IDS,
        conda:
            "../../environment.yml"
        threads: lambda wildcards: extraction_threads(CONFIG.model(wildcards.model))
        resources:
            mem_mb=raised(knn_memory),
            runtime=raised(knn_runtime),
            gpu=own_gpu,
        params:
            store=STORE,
            train=lambda wildcards: train_store("knn", wildcards),
            flags=flags(knn_settings()),
        shell:
            "python -m vitfeat knn {params.store:q} --train {params.train:q} {params.flags} "
            "--device $VITFEAT_DEVICE --threads {threads} --out {output:q} --log {log:q}"
