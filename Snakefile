# Mammo-CLIP from raw DICOM to the tables of the paper. Data walks down one street, a rule file per stage:
#
#   (generate) -> index -> shard -> tabulate -> pretrain -> evaluate, localize -> paper
#
# snakemake --workflow-profile workflow/profiles/local                                          everything
# snakemake --workflow-profile workflow/profiles/local tabulate                                 up to one stage
# snakemake --workflow-profile workflow/profiles/local --configfile workflow/demo.yaml          the embedded demo
# snakemake --workflow-profile workflow/profiles/slurm                                          on a cluster
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/index.smk"
include: "rules/shard.smk"
include: "rules/tabulate.smk"
include: "rules/pretrain.smk"
include: "rules/evaluate.smk"
include: "rules/localize.smk"
include: "rules/paper.smk"


localrules:
    all,
    index,
    shard,
    tabulate,
    pretrain,
    evaluate,
    localize,
    paper,


# In compat mode a linear probe is trained as an encoder is fine-tuned.
ruleorder: fine_tune > fit_probe


# Every stage is asked for by name: Snakemake does not miss a deleted file as long as what was made of it is there.
rule all:
    default_target: True
    input:
        collect(rules.index_dataset.output, dataset=DATASETS),
        collect(rules.crop_shard.output, dataset=DATASETS, shard=SHARDS),
        collect(rules.gather_shards.output, dataset=DATASETS),
        collect(rules.describe_shards.output, dataset=DATASETS),
        collect(rules.tabulate_dataset.output, dataset=DATASETS),
        collect(rules.paraphrase_texts.output, dataset=TRAINED),
        collect(rules.train_clip.output, run=settings.pretrain.runs),
        FEATURES,
        collect(rules.embed_prompts.output, run=settings.pretrain.runs),
        EVALUATIONS,
        LOCALIZATIONS,
        rules.build_paper.output,
    message:
        "everything is up to date"


rule index:
    input:
        collect(rules.index_dataset.output, dataset=DATASETS),


rule shard:
    input:
        collect(rules.crop_shard.output, dataset=DATASETS, shard=SHARDS),
        collect(rules.gather_shards.output, dataset=DATASETS),
        collect(rules.describe_shards.output, dataset=DATASETS),


rule tabulate:
    input:
        collect(rules.tabulate_dataset.output, dataset=DATASETS),
        collect(rules.paraphrase_texts.output, dataset=TRAINED),


rule pretrain:
    input:
        collect(rules.train_clip.output, run=settings.pretrain.runs),


rule evaluate:
    input:
        FEATURES,
        collect(rules.embed_prompts.output, run=settings.pretrain.runs),
        EVALUATIONS,


rule localize:
    input:
        LOCALIZATIONS,


rule paper:
    input:
        rules.build_paper.output,
