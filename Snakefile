# vitfeat: every image through every model once, everything else from the stores.
from snakemake.utils import min_version

min_version("9.0")


# A config file given on the command line replaces the default; Snakemake would merge the two.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/extract.smk"
include: "workflow/rules/analyses.smk"


# The logger says which of them is nearest to a target that nothing makes.
INDEXES = [INDEX.replace("{dataset}", name) for name in CONFIG.datasets]
MADE.extend((*TARGETS, *INDEXES, *(known.name for known in workflow.rules)))


onstart:
    check_jobs()


rule all:
    default_target: True
    input:
        TARGETS,
