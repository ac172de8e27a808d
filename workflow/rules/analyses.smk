# What analyses make of stores: a rule for every kind of job that they say they have, one for the
# figures across models of each, and one for the tables of all that are scored.


def placed(paths):
    """Return paths as rules take them: indexes, annotations and weights stay on the file system."""
    stay = (f"{RESULTS}/datasets/", f"{WEIGHTS}/")
    return [local(p) if p.startswith(stay) else p for p in paths]


def below(first):
    """Return the function of a param: the folder that Snakemake keeps files of a storage in, if it does."""

    def folder(wildcards, output):
        path = first.format(**wildcards)
        here = str(output[0]).removesuffix(path)
        return shlex.join(["--below", here]) if here != str(output[0]) and here else ""

    return folder


for step in STEPS:

    rule:
        name:
            step.name
        input:
            lambda wildcards, step=step: placed(step.inputs(wildcards)),
        output:
            **{
                name: (temp if step.temporary else update)(
                    directory(shown(paths) if name == "out" else paths)
                    if name in step.job.folders
                    else shown(paths)
                )
                for name, paths in step.outputs.items()
            },
        log:
            local(step.log),
        benchmark:
            step.benchmark
        wildcard_constraints:
            **step.constraints,
        group:
            step.group
        conda:
            "../../environment.yml"
        threads: step.threads
        resources:
            mem_mb=raised(step.memory_mb),
            runtime=raised(step.minutes),
            gpu=own_gpu if step.gpu else None,
        params:
            command=step.command,
            scope=step.scope,
            below=below(next(iter(step.outputs.values()))[0]),
            how=step.how,
            joined=step.joined,
            weights=lambda wildcards, step=step: [
                checkpoint_contents(model) for model in step.pushes(wildcards)
            ],
        shell:
            "python -m vitfeat run {params.command} {params.scope} {params.below} {params.how} "
            "--threads {threads} --log {log:q}"


for step in FIGURE_STEPS:

    rule:
        name:
            step.name
        input:
            step.inputs,
        output:
            update(shown(step.outputs)),
        log:
            local(f"{RESULTS}/logs/{step.name}.log"),
        benchmark:
            f"{RESULTS}/benchmarks/{step.name}.tsv"
        group:
            "figures"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=raised(4000),
            runtime=raised(60),
        params:
            command=step.command,
            below=below(step.outputs[0]),
        shell:
            "python -m vitfeat {params.command} {params.below} --log {log:q}"
