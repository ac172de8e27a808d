# Settings, targets and needs of one pass of every image through every model.
from vitfeat.analyses.needs import minutes_in_turn
from vitfeat.plan.small import extracted_together
from vitfeat.plan.study import enlarged

EXTRACTED = {dataset for dataset in CONFIG.datasets if CONFIG.taps(dataset)}
TOGETHER = {dataset for dataset in EXTRACTED if extracted_together(CONFIG, dataset)}


def any_of(datasets):
    """Return the pattern of some datasets, which may be none."""
    return "|".join(map(re.escape, sorted(datasets))) or "(?!)"


def extract_targets():
    """Return the manifests of the stores that are asked for."""
    return [
        f"{RESULTS}/features/{dataset}/{model.id}.json"
        for dataset in CONFIG.datasets
        if dataset in EXTRACTED
        for model in CONFIG.models
    ]


TARGETS.append(extract_targets)


def pushed_through(wildcards):
    """Return the models of a job: one, or all in an order that changes no params."""
    of_one = hasattr(wildcards, "model")
    return [CONFIG.model(wildcards.model)] if of_one else sorted(CONFIG.models, key=lambda m: m.id)


def beside(path, name):
    """Return the path of another file in the folder of one, which Snakemake may keep elsewhere."""
    return str(Path(path).parent / name)


def extract_outputs():
    """Return the manifest, and the folder of arrays that go after use where some do."""
    # The sealed store's manifest, not the store: Snakemake deletes the outputs of a failed job, and an
    # interrupted store is gone on with. The manifest is kept while the job runs, and when it fails (`update`).
    outputs = {"manifest": update(f"{RESULTS}/features/{{dataset}}/{{model}}.json")}
    if CONFIG.extraction["keep"] is not None:
        folder = directory(f"{RESULTS}/features/{{dataset}}/{{model}}.transient")
        outputs["transient"] = temp(folder)
    return outputs


def jobs_of(wildcards):
    """Return how many jobs share an extraction."""
    jobs = CONFIG.extraction["jobs"]
    if jobs != "auto":
        return jobs
    if not hasattr(wildcards, "model"):
        return 1
    model, size = CONFIG.model(wildcards.model), planned_size(CONFIG, wildcards.dataset)
    return extraction_jobs(
        extraction_minutes(
            guess_shape(model),
            size.images if size else dataset_size(wildcards.dataset),
            extraction_threads(model),
            enlarged(CONFIG, wildcards.dataset, model.id),
            gpu=own_gpu(wildcards) is not None,
        )
    )


def parts_folder(wildcards):
    return f"{RESULTS}/features/{wildcards.dataset}/{wildcards.model}.parts"


def parts_of(wildcards):
    """Return what says that all jobs but the last are done, where there are several."""
    return [f"{parts_folder(wildcards)}/all"] if jobs_of(wildcards) > 1 else []


def every_part(wildcards):
    """Return what says that each of several jobs is done."""
    n = jobs_of(wildcards)
    return [f"{parts_folder(wildcards)}/{i}-of-{n}" for i in range(1, n + 1)]


def extraction_mb(wildcards, input):
    """Return MiB of a job that pushes images."""
    return max(
        extraction_memory_mb(
            guess_shape(model),
            CONFIG.extraction["batch_size"],
            CONFIG.taps(wildcards.dataset),
            CONFIG.extraction["dtype"],
            limits=CONFIG.limits(wildcards.dataset),
            n_images=n_images(input.index),
            enlarged=enlarged(CONFIG, wildcards.dataset, model.id),
        )
        for model in pushed_through(wildcards)
    )


def extraction_runtime(wildcards, input, threads):
    """Return minutes of a job that pushes all images, or its part of them, or seals the store."""
    n = n_images(input.index)
    if parts := getattr(wildcards, "parts", None):
        n = -(-n // int(parts))
    elif jobs_of(wildcards) > 1:
        return sealing_minutes(n)
    gpu = own_gpu(wildcards) is not None
    first, *others = (
        extraction_minutes(
            guess_shape(model), n, threads, enlarged(CONFIG, wildcards.dataset, model.id), gpu=gpu
        )
        for model in pushed_through(wildcards)
    )
    return minutes_in_turn([first, *others]) if others else first


def extraction_gpu(wildcards):
    """Return the GPUs of a job: what only seals needs none, unless the config insists on one."""
    seals = not hasattr(wildcards, "parts") and jobs_of(wildcards) > 1
    return None if seals and CONFIG.extraction["device"] == "auto" else own_gpu(wildcards)
