"""Whether what is asked stands there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitfeat.errors import ReadError, StoreError
from vitfeat.store import provenance
from vitfeat.store.opening import is_store, open_store
from vitfeat.store.paths import Place, Url, finish_setting_aside, work_path
from vitfeat.store.verify import Damage, verify
from vitfeat.store.writer import manifest, remove_leftovers
from vitfeat.text import plural


def finished_store(
    out: Place, request: Mapping[str, Any], replace: bool, *, repair: bool = False
) -> tuple[dict[str, Any] | None, str]:
    """Return the manifest of a finished store of this request, if there is one, and what to say."""
    if isinstance(out, Url):
        # What else stands there is told when it is claimed.
        if not is_store(out):
            return None, ""
    elif not out.exists():
        return None, ""
    elif not is_store(out):
        # Not even with --replace: it may be anything of the user's.
        raise StoreError(f"{out}: something that is no store stands there; choose another path")
    if isinstance(out, Path):
        finish_setting_aside(out, request["taps"])
    damages: Sequence[Damage] = ()
    try:
        store = open_store(out, check_manifest=False)
        if repair and isinstance(out, Path):
            _, damages = verify(out)
    except ReadError:
        # It may be as good as any.
        raise
    except StoreError as error:
        if replace or repair:
            return None, f"{error}; what is whole of it is kept"
        raise
    other = provenance.differences(store.attributes["request"], request)
    if damages and not other:
        more = f", and {plural(len(damages) - 1, 'more shard')}" if len(damages) > 1 else ""
        return None, f"{out}: damaged at {damages[0]}{more}"
    gone = [name for name in store.dropped if name.partition("/")[0] in request["taps"]]
    if gone and not other:
        return None, f"{out}: {', '.join(gone)} went after use, and all of it is made anew"
    if not other:
        line = f"{out}: already there, whole and from these settings: nothing to do"
        return manifest(out, store.attributes), line
    if replace:
        return None, f"{out}: from other settings ({other}); it will be replaced"
    raise StoreError(
        f"{out}: a store from other settings stands there ({other}); remove it, or pass "
        "--replace (replace=True in Python)"
    )


def tidy(out: Place) -> None:
    """Remove what a finished store no longer needs, where its extraction was killed before."""
    if isinstance(out, Url):
        from vitfeat.store.uploading import release

        release(out, work_path(out))
    else:
        remove_leftovers(work_path(out))
