# Settings, targets and needs of linear CKA: Gram matrices once per model and token kind, pairs from Gram matrices alone.
from vitfeat.store.layout import TOKEN_ARRAYS


def all_cka_tables(ids=None):
    """Return the tables of all pairs, of all models if not told which."""
    if CONFIG.analyses.get("cka") is None:
        return []
    ids = ids or [m.id for m in CONFIG.models]
    tables = cka_tables(
        CONFIG.results / "cka",
        CONFIG.analyses.get("cka").datasets,
        CONFIG.analyses.get("cka").tokens,
        ids,
    )
    return [table.path.as_posix() for some in tables.values() for table in some]


def cka_targets():
    """Return the figures of CKA: of all models, and of each set."""
    if CONFIG.analyses.get("cka") is None:
        return []
    folders = [f"{RESULTS}/cka", *(f"{RESULTS}/cka/sets/{chosen}" for chosen in CONFIG.sets)]
    return [f"{folder}/{name}.png" for folder in folders for name in ("all", "last_layer")]


TARGETS.append(cka_targets)


def gram_settings(tokens):
    """Return the settings of a Gram matrix; what stands in for CLS touches that of CLS alone."""
    return (
        {"without_cls": CONFIG.analyses.get("cka").without_cls}
        if CONFIG.analyses.get("cka") and tokens == "cls"
        else {}
    )


def gram_transient(wildcards, tokens, but=None):
    """Return what a Gram matrix waits for where the tokens that it is made from go after use."""
    kinds = [tokens, *(["mean"] if gram_settings(tokens).get("without_cls") == "mean" else [])]
    taps = {tap for kind in kinds for tap in TOKEN_ARRAYS[kind]} - {but}
    folder = f"{RESULTS}/features/{wildcards.dataset}/{wildcards.model}.transient"
    return [folder] if goes(taps) else []


def pair_settings():
    """Return the settings of a pair; a batch's size and order only where an estimator has batches."""
    if CONFIG.analyses.get("cka") is None:
        return {}
    batched = {"minibatch", "paper"} & set(CONFIG.analyses.get("cka").estimators)
    return {
        "estimators": CONFIG.analyses.get("cka").estimators,
        "batch_size": CONFIG.analyses.get("cka").batch_size if batched else None,
        "batch_order": CONFIG.analyses.get("cka").batch_order if batched else None,
        "seed": (
            CONFIG.analyses.get("cka").seed
            if batched and CONFIG.analyses.get("cka").batch_order == "shuffled"
            else None
        ),
    }


def figure_settings(ids=None):
    """Return the settings of the CKA figures; the tables' content comes from their jobs."""
    if CONFIG.analyses.get("cka") is None:
        return {}
    return {
        "datasets": CONFIG.analyses.get("cka").datasets,
        "tokens": CONFIG.analyses.get("cka").tokens,
        "estimator": CONFIG.analyses.get("cka").estimators[0],
        "models": shown_models(ids),
    }


def similarity_files(folder, names):
    """Return the files of figures below a folder: PNG, PDF, and the numbers that they show."""
    return [f"{folder}/{name}.{kind}" for name in names for kind in ("png", "pdf", "csv")]


def shown_pair(a, b):
    """Return two models as JSON, the one upwards first."""
    shown = {model["id"]: model for model in json.loads(shown_models((a, b)))}
    return json.dumps([shown[a], shown[b]])
