"""How the analysis ``keypoints`` is scored."""

from vitfeat.analyses.scoring import SPATIAL, Headline, Measure, Rank, Scoring

SCORING = Scoring(
    title="Keypoints found in another image",
    short="Keypoints",
    headline=Headline("pck_image", "PCK@{variant}", tuple(SPATIAL), ("0.1", "0.05", "0.01")),
    ranked=("pck_*",),
    counted="image pair",
    measures=(
        Measure("pck_image", "PCK@{variant}", Rank.OVERVIEW),
        Measure("pck_point", "PCK@{variant} per point", Rank.DETAILS, counted="point"),
    ),
    kinds=SPATIAL,
    chance={"pck_image": "chance_image", "pck_point": "chance_point"},
    groups="categories",
    common=False,
    meaning="PCK@\N{GREEK SMALL LETTER ALPHA}: share of keypoints found at most "
    "\N{GREEK SMALL LETTER ALPHA} of the longer side of the object's box away; mean over image "
    "pairs. Chance: a place drawn at random.",
    details="Keypoints found in another image, every point counted alike",
    details_meaning="PCK@\N{GREEK SMALL LETTER ALPHA}: share of all keypoints found at most "
    "\N{GREEK SMALL LETTER ALPHA} of the longer side of the object's box away. Chance: a place "
    "drawn at random.",
)
