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


def enlarged(wildcards):
    """Return how many tokens images have over those of the model's own size: for schedulers."""
    view = CONFIG.view(wildcards.dataset)
    if view.kind != "dense":
        return 1.0
    side, pixels = view.side
    # Photographs are up to twice as long as they are high.
    aspect = 2.0 if side == "short" else 1.0
    return aspect * (pixels / guess_shape(CONFIG.model(wildcards.model)).image_size) ** 2
