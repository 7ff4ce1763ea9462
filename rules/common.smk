# The configuration, validated at parse time, and what every rule needs of it.
import json

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from mammoclip.config import Config, parse_section
from mammoclip.errors import ConfigError

try:
    settings = parse_section(Config, config)
except ConfigError as error:
    raise WorkflowError(f"Configuration: {error}")

validate(config, "../workflow/schemas/config.schema.json", set_default=False)

RESULTS = settings.results
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"
ENVIRONMENT = "../environment.yml"
EVALUATED = settings.evaluate.datasets + settings.evaluate.showcase
TRAINED = settings.pretrain.all_datasets
DATASETS = sorted({*TRAINED, *EVALUATED})
SHARDS = [f"{number:05d}" for number in range(settings.shard.num_shards)]


wildcard_constraints:
    dataset="[A-Za-z0-9_-]+",
    run="[A-Za-z0-9_-]+",
    shard=r"\d{5}",


def section(part):
    """Return a params function: JSON in a plain string would be formatted as wildcards."""
    return lambda wildcards: json.dumps(part.model_dump(mode="json"))


def dataset_section(wildcards):
    dataset = settings.datasets[wildcards.dataset].model_dump(mode="json")
    if dataset["generate"]:
        dataset |= {"root": f"{RESULTS}/generate/{wildcards.dataset}", "generate": None}
    return json.dumps(dataset)


def generated(wildcards):
    """Return the marker of a generated cohort; data that exist already have none."""
    return (
        f"{RESULTS}/generate/{wildcards.dataset}/phantom.json"
        if settings.datasets[wildcards.dataset].generate
        else []
    )


def of_run(wildcards):
    """Return the section of pretraining as a run has it, so that another run's settings rerun nothing."""
    return settings.pretrain.of_run(wildcards.run)


def run_section(wildcards):
    return json.dumps(of_run(wildcards).model_dump(mode="json"))


def adapters(names):
    """Return a params function with the adapter of each data set, for credits and licences."""
    return lambda wildcards: json.dumps(
        {name: settings.datasets[name].adapter for name in names}
    )


def of_datasets(files, **wildcards):
    """Return an input function: the files of every data set that a run is trained on."""
    return lambda w: collect(files, dataset=of_run(w).datasets, **wildcards)


def of_processes(amount):
    """Return a resource function: an amount for every process of a run on a node."""
    return lambda wildcards: amount * max(1, of_run(wildcards).gpus)


def launcher(wildcards):
    gpus = of_run(wildcards).gpus
    return (
        f"torchrun --standalone --nproc-per-node {gpus} -m" if gpus > 1 else "python -m"
    )
