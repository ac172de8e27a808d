# Settings, targets and needs of what skip connections carry beside the branches.


def residual_tables():
    """Return the tables of every model: ratios of norms, and CKA where there are token kinds."""
    settings = CONFIG.analyses.get("residual")
    if settings is None:
        return []
    return [
        f"{RESULTS}/residual/{dataset}/{model.id}.{kind}.csv"
        for dataset in settings.datasets
        for model in CONFIG.models
        for kind in residual_outputs()
    ]


def residual_outputs():
    """Return the kinds of tables that a model has, and where."""
    settings = CONFIG.analyses.get("residual")
    kinds = ("norms", "cka") if settings and settings.tokens else ("norms",)
    return {kind: update(f"{RESULTS}/residual/{{dataset}}/{{model}}.{kind}.csv") for kind in kinds}


def residual_settings():
    """Return the settings of the CKA, if there is one."""
    settings = CONFIG.analyses.get("residual")
    return {"tokens": settings.tokens} if settings and settings.tokens else {}


def residual_targets():
    """Return the tables of the residual analysis."""
    return residual_tables()


TARGETS.append(residual_targets)


# Figures across models.
RESIDUAL_CKA = bool(CONFIG.analyses.get("residual") and CONFIG.analyses.get("residual").tokens)
RESIDUAL_TABLES = [f"{kind}.csv" for kind in residual_outputs()]
RESIDUAL_SET_FIGURES = ("norms", "families", *(["cka"] if RESIDUAL_CKA else []))


def residual_set_targets():
    """Return the figures across models."""
    return set_figures("residual", RESIDUAL_SET_FIGURES)


TARGETS.append(residual_set_targets)
