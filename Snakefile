# vitfeat: every image through every model once, everything else from the stores.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/extract.smk"
include: "workflow/rules/cka.smk"


rule all:
    default_target: True
    input:
        targets(),
