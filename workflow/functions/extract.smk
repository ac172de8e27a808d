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
