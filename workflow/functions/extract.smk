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


# Where the official layouts are drawn.
LAYOUT_PAGES = {
    "imagenet": "docs/paper.md",
    "imagenet50": "docs/paper.md",
    "coco": "docs/tasks/regions.md",
    "partimagenet": "docs/tasks/regions.md",
    "revisited": "docs/tasks/retrieval.md",
    "davis": "docs/tasks/video.md",
    "spair": "docs/tasks/keypoints.md",
}


def absent_folders():
    """Return a line for each dataset that is asked for and whose folder is not there."""
    lines = []
    for name, spec in CONFIG.datasets.items():
        embedded = spec.root == embedded_root(CONFIG.results, spec.layout)
        if embedded or spec.root.exists() or not CONFIG.reads(name):
            continue
        page = LAYOUT_PAGES.get(spec.layout)
        shown = f"; {page} shows what belongs there" if page else ""
        lines.append(f"dataset {name}: {spec.root.as_posix()} does not exist yet{shown}")
    return lines


# No error: everything can be planned before the data is there, and what else is asked for can run;
# the index job of such a dataset fails.
for line in absent_folders():
    say(line)


def enlarged(wildcards):
    """Return how many tokens images have over those of the model's own size: for schedulers."""
    view = CONFIG.view(wildcards.dataset)
    if view.kind != "dense":
        return 1.0
    side, pixels = view.side
    # Photographs are up to twice as long as they are high.
    aspect = 2.0 if side == "short" else 1.0
    return aspect * (pixels / guess_shape(CONFIG.model(wildcards.model)).image_size) ** 2
