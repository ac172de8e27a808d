# What analyses make of stores: a rule for every kind of job that they say they have, and one for the
# figures across models of each.
from vitfeat.plan.steps import figure_steps, steps

STEPS = steps(CONFIG)
FIGURE_STEPS = figure_steps(CONFIG)


def step_targets():
    """Return the outputs of all analyses."""
    tables = [path for step in STEPS for path in step.targets()]
    return [*tables, *(path for step in FIGURE_STEPS for path in step.outputs)]


TARGETS.append(step_targets)


for step in STEPS:

    rule:
        name:
            step.name
        input:
            step.inputs,
        output:
            **{name: update(paths) for name, paths in step.outputs.items()},
        log:
            step.log,
        benchmark:
            step.benchmark
        wildcard_constraints:
            **step.constraints,
        conda:
            "../../environment.yml"
        threads: step.threads
        resources:
            mem_mb=raised(step.memory_mb),
            runtime=raised(step.minutes),
            gpu=own_gpu if step.job.gpu else None,
        params:
            command=step.command,
            device="--device $VITFEAT_DEVICE" if step.job.gpu else "",
        shell:
            "python -m vitfeat run {params.command} {params.device} --threads {threads} --log {log:q}"


for step in FIGURE_STEPS:

    rule:
        name:
            step.name
        input:
            step.inputs,
        output:
            update(step.outputs),
        log:
            f"{RESULTS}/logs/{step.name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/{step.name}.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=raised(2000),
            runtime=raised(60),
        params:
            command=step.command,
        shell:
            "python -m vitfeat draw {params.command} --log {log:q}"
