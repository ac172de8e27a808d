# What skip connections carry beside the branches.


rule residual:
    input:
        f"{RESULTS}/features/{{dataset}}/{{model}}.json",
        transient=transient("residual"),
    output:
        **residual_outputs(),
    log:
        local(f"{RESULTS}/logs/residual/{{dataset}}/{{model}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/residual/{{dataset}}/{{model}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda wildcards: min(2, extraction_threads(CONFIG.model(wildcards.model)))
    resources:
        mem_mb=raised(
            lambda wildcards: residual_memory_mb(
                dataset_size(wildcards.dataset), CONFIG.analyses.get("residual").images
            )
        ),
        runtime=raised(120),
        gpu=lambda wildcards: own_gpu(wildcards) if RESIDUAL_CKA else None,
    params:
        store=STORE,
        # Apart from the paths: Snakemake does not see changes of params that are made from outputs.
        flags=flags(residual_settings()),
        cka=lambda wildcards, output: flags({"cka": output.get("cka")}),
    shell:
        "python -m vitfeat residual {params.store:q} {params.flags} {params.cka} "
        "--norms {output.norms:q} --device $VITFEAT_DEVICE --log {log:q}"


rule residual_set:
    input:
        lambda wildcards: set_tables("residual", wildcards, RESIDUAL_TABLES),
    output:
        update(set_outputs("residual", RESIDUAL_SET_FIGURES)),
    log:
        local(f"{RESULTS}/logs/residual_set/{{dataset}}/{{chosen}}.log"),
    benchmark:
        f"{RESULTS}/benchmarks/residual_set/{{dataset}}/{{chosen}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        tables=lambda wildcards, output: Path(output[0]).parents[3].as_posix(),
        folder=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        models=lambda wildcards: shown_models(model_sets()[wildcards.chosen]),
        cka="--with-cka" if RESIDUAL_CKA else "",
    shell:
        "python -m vitfeat plot-residual {params.tables:q} --datasets {wildcards.dataset} "
        "--models {params.models:q} {params.cka} --out {params.folder:q} --log {log:q}"


rule residual_overview:
    input:
        residual_tables(),
    output:
        png=update(f"{RESULTS}/residual/all.png"),
        pdf=update(f"{RESULTS}/residual/all.pdf"),
        numbers=update(f"{RESULTS}/residual/all.csv"),
    log:
        local(f"{RESULTS}/logs/residual_overview.log"),
    benchmark:
        f"{RESULTS}/benchmarks/residual_overview.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=raised(2000),
        runtime=raised(30),
    params:
        tables=lambda wildcards, output: Path(output.png).parent.as_posix(),
        flags=lambda wildcards: flags(overview_settings("residual")),
        cka="--with-cka" if RESIDUAL_CKA else "",
    shell:
        "python -m vitfeat plot-residual {params.tables:q} {params.flags} {params.cka} "
        "--overview {output.png:q} --log {log:q}"
