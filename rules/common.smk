# The configuration, validated at parse time, and what every rule needs of it.
import json
import shlex

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
EVALUATED = sorted({*settings.evaluate.datasets, *settings.evaluate.retrieval})
RETRIEVING = settings.pretrain.runs if settings.evaluate.retrieval else []
TRAINED = settings.pretrain.all_datasets
CELLS = settings.evaluate.evaluations(list(settings.pretrain.runs))
DETECTORS = settings.localize.detectors(list(settings.pretrain.runs))
FACTORS = settings.localize.factors(list(settings.pretrain.runs))
DATASETS = sorted(
    {*TRAINED, *EVALUATED, *settings.evaluate.showcase, *settings.localize.datasets}
)
# SIGUSR1 is how SLURM announces the time limit; by itself torchrun would die of it and take the run along.
TORCHRUN = "torchrun --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
SHARDS = [f"{number:05d}" for number in range(settings.shard.num_shards)]


wildcard_constraints:
    dataset="[A-Za-z0-9_-]+",
    run="[A-Za-z0-9_-]+",
    shard=r"\d{5}",
    task="[A-Za-z0-9_-]+",
    protocol=(
        "linear-probe|fine-tune" if settings.evaluate.mode == "compat" else "fine-tune"
    ),
    detection="detection-frozen|detection-fine-tune",
    fraction=r"\d(\.\d+)?",
    seed=r"\d+",
    target="[a-z_]+",


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


def placement(wildcards):
    """Return the nodes of a run and the GPUs on each; initial weights need no more than a process."""
    section = of_run(wildcards)
    if section.runs[wildcards.run].control == "untrained":
        return 1, 0
    return section.nodes, section.gpus


def num_nodes(wildcards):
    return placement(wildcards)[0]


def num_gpus(wildcards):
    nodes, gpus = placement(wildcards)
    return nodes * gpus


def gpus_per_node(wildcards):
    """Return the GPUs that SLURM is to give on every node: it would spread a mere total as it likes."""
    nodes, gpus = placement(wildcards)
    return f"gpu:{gpus}" if nodes > 1 and gpus else None


def several_nodes(wildcards):
    return "srun" if num_nodes(wildcards) > 1 else None


def of_processes(amount):
    """Return a resource function: an amount for every process of a run on a node."""
    return lambda wildcards: amount * max(1, placement(wildcards)[1])


def on_one_node(gpus):
    return (
        f"{TORCHRUN} --standalone --nproc-per-node {gpus} -m --"
        if gpus > 1
        else "python -m"
    )


def launcher(wildcards):
    """Return what starts a run; after -- torchrun takes no argument of the stage for one of its own."""
    nodes, gpus = placement(wildcards)
    if nodes > 1:
        # SLURM runs a job's command on the first of its nodes; two jobs there have two ports.
        threads = of_processes(settings.pretrain.threads)(wildcards)
        return (
            f"srun --nodes {nodes} --ntasks-per-node 1 --cpus-per-task {threads}"
            f" {TORCHRUN} --nnodes {nodes} --nproc-per-node {max(1, gpus)} --rdzv-backend c10d"
            ' --rdzv-id "${SLURM_JOB_ID:?pretrain.nodes above 1 needs workflow/profiles/slurm}"'
            ' --rdzv-endpoint "$(hostname):$((10000 + SLURM_JOB_ID % 20000))" -m --'
        )
    return on_one_node(gpus)


def evaluate_section(*keys):
    """Return a params function: these keys of evaluate, and of its tasks the one of the job where it has one."""

    def values(wildcards):
        section = settings.evaluate.model_dump(mode="json", include={*keys})
        if "task" in wildcards.keys():
            section["tasks"] = {wildcards.task: section["tasks"][wildcards.task]}
        return json.dumps(section)

    return values


def localize_section(*keys):
    """Return a params function: these keys of localize, without what asks for other jobs."""
    dumped = {
        "include": {*keys},
        "exclude": {"detection": {"matrix"}, "factor": {"runs", "datasets"}},
    }
    return lambda wildcards: settings.localize.model_dump_json(**dumped)


def cell_file(cell):
    return f"{RESULTS}/evaluate/{cell.run}/{cell.dataset}/{cell.name}.parquet"


def predictions_of(wildcards):
    """Return the files of the cells of the matrix that a run and a data set have."""
    here = (wildcards.run, wildcards.dataset)
    return [cell_file(cell) for cell in CELLS if (cell.run, cell.dataset) == here]


def detector_file(detector):
    return (
        f"{RESULTS}/localize/{detector.run}/{detector.dataset}/{detector.name}.parquet"
    )


def detectors_of(wildcards):
    """Return the detectors that a run and a data set have."""
    here = (wildcards.run, wildcards.dataset)
    return [cell for cell in DETECTORS if (cell.run, cell.dataset) == here]


def detections_of(wildcards):
    return [*map(detector_file, detectors_of(wildcards))]


def detection_arguments(wildcards):
    """Return the detections of each detector with what it is: a file without any would not say."""
    return [
        f"--detections {cell.target} {cell.protocol} {cell.fraction:g} {cell.seed} {shlex.quote(detector_file(cell))}"
        for cell in detectors_of(wildcards)
    ]


def of_factor(*files):
    """Return an input function: these files of Mammo-FActOR, where a run has one on a data set."""
    return lambda w: (
        collect(files, run=w.run, dataset=w.dataset)
        if (w.run, w.dataset) in FACTORS
        else []
    )


def tested(files):
    """Return the files of every run and data set of the matrix."""
    pairs = dict.fromkeys((cell.run, cell.dataset) for cell in CELLS)
    return [collect(files, run=run, dataset=dataset) for run, dataset in pairs]


def showcase_flag(wildcards):
    return "--showcase" if wildcards.dataset in settings.evaluate.showcase else ""
