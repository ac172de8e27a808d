# Settings, targets and needs of one pass of every image through every model.


def extract_targets():
    """Return the manifests of the stores that are asked for."""
    return [
        f"{RESULTS}/features/{dataset}/{model.id}.json"
        for dataset in CONFIG.datasets
        if CONFIG.taps(dataset)
        for model in CONFIG.models
    ]


TARGETS.append(extract_targets)


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
    model, size = CONFIG.model(wildcards.model), planned_size(CONFIG, wildcards.dataset)
    return extraction_jobs(
        extraction_minutes(
            guess_shape(model),
            size.images if size else dataset_size(wildcards.dataset),
            extraction_threads(model),
            enlarged(wildcards),
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
    return extraction_memory_mb(
        guess_shape(CONFIG.model(wildcards.model)),
        CONFIG.extraction["batch_size"],
        CONFIG.taps(wildcards.dataset),
        CONFIG.extraction["dtype"],
        limits=CONFIG.limits(wildcards.dataset),
        n_images=n_images(input.index),
        enlarged=enlarged(wildcards),
    )


def extraction_runtime(wildcards, input, threads):
    """Return minutes of a job that pushes all images, or its part of them, or seals the store."""
    n = n_images(input.index)
    if parts := getattr(wildcards, "parts", None):
        n = -(-n // int(parts))
    elif jobs_of(wildcards) > 1:
        return sealing_minutes(n)
    gpu = own_gpu(wildcards) is not None
    return extraction_minutes(
        guess_shape(CONFIG.model(wildcards.model)), n, threads, enlarged(wildcards), gpu=gpu
    )


def extraction_gpu(wildcards):
    """Return the GPUs of a job: what only seals needs none, unless the config insists on one."""
    seals = not hasattr(wildcards, "parts") and jobs_of(wildcards) > 1
    return None if seals and CONFIG.extraction["device"] == "auto" else own_gpu(wildcards)


def enlarged(wildcards):
    """Return how many tokens images have over those of the model's own size: for schedulers."""
    view = CONFIG.view(wildcards.dataset)
    if view.kind != "dense":
        return 1.0
    side, pixels = view.side
    # Photographs are up to twice as long as they are high.
    aspect = 2.0 if side == "short" else 1.0
    return aspect * (pixels / guess_shape(CONFIG.model(wildcards.model)).image_size) ** 2
