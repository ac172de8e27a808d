# Settings, targets and needs: keypoints found in other images.
from vitfeat.plan.task_needs import keypoints_memory_mb, keypoints_minutes


def keypoint_tables():
    """Return the table of each dataset and model."""
    if CONFIG.analyses.get("keypoints") is None:
        return []
    return [
        f"{RESULTS}/keypoints/{dataset}/{model.id}.csv"
        for dataset in CONFIG.analyses.get("keypoints").datasets
        for model in CONFIG.models
    ]


TARGETS.append(keypoint_tables)


def keypoint_settings():
    """Return which pairs are drawn, and what counts as found."""
    settings = CONFIG.analyses.get("keypoints")
    if settings is None:
        return {}
    # Without a draw its seed decides nothing.
    seed = None if settings.pairs is None else settings.seed
    return {"alphas": settings.alphas, "pairs": settings.pairs, "seed": seed}


def keypoints_memory(wildcards, threads):
    return keypoints_memory_mb(threads)


def keypoints_runtime(wildcards, threads):
    return keypoints_minutes(
        guess_shape(CONFIG.model(wildcards.model)),
        n_images(f"{RESULTS}/datasets/points/{wildcards.dataset}.csv"),
        threads,
    )
