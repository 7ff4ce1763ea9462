# Frozen features once per run and data set; every evaluation reads them.
rule extract_features:
    input:
        model=rules.train_clip.output.model,
        images=rules.tabulate_dataset.output.images,
        manifest=rules.gather_shards.output.manifest,
        tars=collect(rules.crop_shard.output.tar, shard=SHARDS, allow_missing=True),
    output:
        f"{RESULTS}/evaluate/{{run}}/{{dataset}}/features.parquet",
    log:
        f"{LOGS}/evaluate/{{run}}/{{dataset}}.features.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}/{{dataset}}.features.tsv"
    conda:
        ENVIRONMENT
    threads: settings.pretrain.threads
    resources:
        mem_mb=16000,
        runtime=240,
        gpu=settings.evaluate.gpus,
    params:
        stage="features-v2",
        model=subpath(input.model, parent=True),
        shards=subpath(input.manifest, parent=True),
        options=f"--batch-size {settings.evaluate.batch_size} --precision {settings.evaluate.precision}"
        + (" --flip" if settings.evaluate.flip else ""),
        work=f"{RESULTS}/.work/features-{{run}}-{{dataset}}",
        launcher=on_one_node(settings.evaluate.gpus),
    message:
        "evaluate: features of {wildcards.dataset} by {wildcards.run}"
    shell:
        "{params.launcher} pipelines.extract_features --model {params.model:q} --images {input.images:q}"
        " --shards {params.shards:q} {params.options} --work {params.work:q} --threads {threads}"
        " --out {output:q} --log {log:q}"


rule embed_prompts:
    input:
        model=rules.train_clip.output.model,
    output:
        f"{RESULTS}/evaluate/{{run}}/prompts.parquet",
    log:
        f"{LOGS}/evaluate/{{run}}/prompts.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}/prompts.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        stage="prompts-v2",
        config=evaluate_section("tasks", "prompts_per_class"),
        seed=settings.seed,
        model=subpath(input.model, parent=True),
    message:
        "evaluate: prompts by {wildcards.run}"
    shell:
        "python -m pipelines.embed_prompts --config {params.config:q} --seed {params.seed}"
        " --model {params.model:q} --out {output:q} --log {log:q}"


rule predict_zero_shot:
    input:
        features=rules.extract_features.output,
        prompts=rules.embed_prompts.output,
        index=rules.index_dataset.output.index,
        images=rules.tabulate_dataset.output.images,
        tables=rules.tabulate_dataset.output,
    output:
        f"{RESULTS}/evaluate/{{run}}/{{dataset}}/{{task}}/zero-shot.parquet",
    log:
        f"{LOGS}/evaluate/{{run}}/{{dataset}}/{{task}}/zero-shot.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}/{{dataset}}/{{task}}/zero-shot.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        stage="zero-shot-v1",
        config=evaluate_section("mode", "tasks"),
        showcase=showcase_flag,
        results=subpath(input.images, ancestor=3),
    message:
        "evaluate: zero-shot of {wildcards.task} on {wildcards.dataset} by {wildcards.run}"
    shell:
        "python -m pipelines.predict_zero_shot --config {params.config:q} {params.showcase} --results {params.results:q}"
        " --dataset {wildcards.dataset} --task {wildcards.task} --features {input.features:q}"
        " --prompts {input.prompts:q} --out {output:q} --log {log:q}"


# Strict: logistic regression on the frozen features. Compat trains the probe as it trains a fine-tuned encoder.
rule fit_probe:
    input:
        features=rules.extract_features.output,
        index=rules.index_dataset.output.index,
        images=rules.tabulate_dataset.output.images,
        tables=rules.tabulate_dataset.output,
    output:
        f"{RESULTS}/evaluate/{{run}}/{{dataset}}/{{task}}/linear-probe-{{fraction}}-{{seed}}.parquet",
    log:
        f"{LOGS}/evaluate/{{run}}/{{dataset}}/{{task}}/linear-probe-{{fraction}}-{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}/{{dataset}}/{{task}}/linear-probe-{{fraction}}-{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        stage="probe-v2",
        config=evaluate_section("mode", "tasks", "probe_strengths", "num_permutations"),
        results=subpath(input.images, ancestor=3),
    message:
        "evaluate: probe of {wildcards.task} on {wildcards.fraction} of {wildcards.dataset} by {wildcards.run}"
    shell:
        "python -m pipelines.fit_probe --config {params.config:q} --results {params.results:q}"
        " --dataset {wildcards.dataset} --task {wildcards.task} --fraction {wildcards.fraction} --seed {wildcards.seed}"
        " --features {input.features:q} --out {output:q} --log {log:q}"


rule fine_tune:
    input:
        model=rules.train_clip.output.model,
        manifest=rules.gather_shards.output.manifest,
        images=rules.tabulate_dataset.output.images,
        attributes=rules.tabulate_dataset.output.attributes,
        labels=rules.tabulate_dataset.output.labels,
        tars=collect(rules.crop_shard.output.tar, shard=SHARDS, allow_missing=True),
    output:
        f"{RESULTS}/evaluate/{{run}}/{{dataset}}/{{task}}/{{protocol}}-{{fraction}}-{{seed}}.parquet",
    log:
        f"{LOGS}/evaluate/{{run}}/{{dataset}}/{{task}}/{{protocol}}-{{fraction}}-{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}/{{dataset}}/{{task}}/{{protocol}}-{{fraction}}-{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: settings.pretrain.threads
    resources:
        mem_mb=16000,
        runtime=1440,
        gpu=settings.evaluate.gpus,
    params:
        stage="fine-tune-v1",
        config=evaluate_section("mode", "tasks", "fine_tune"),
        model=subpath(input.model, parent=True),
        shards=subpath(input.manifest, parent=True),
        launcher=on_one_node(settings.evaluate.gpus),
        work=f"{RESULTS}/.work/{{protocol}}-{{run}}-{{dataset}}-{{task}}-{{fraction}}-{{seed}}",
    message:
        "evaluate: {wildcards.protocol} of {wildcards.task} on {wildcards.fraction} of {wildcards.dataset} by {wildcards.run}"
    shell:
        "{params.launcher} pipelines.fine_tune --config {params.config:q} --model {params.model:q}"
        " --images {input.images:q} --attributes {input.attributes:q} --labels {input.labels:q} --shards {params.shards:q}"
        " --task {wildcards.task}"
        " --protocol {wildcards.protocol} --fraction {wildcards.fraction} --seed {wildcards.seed} --threads {threads}"
        " --work {params.work:q} --out {output:q} --log {log:q}"


rule compute_metrics:
    input:
        predictions=predictions_of,
        features=rules.extract_features.output,
        index=rules.index_dataset.output.index,
        images=rules.tabulate_dataset.output.images,
        tables=rules.tabulate_dataset.output,
    output:
        metrics=f"{RESULTS}/evaluate/{{run}}/{{dataset}}/metrics.parquet",
        choices=f"{RESULTS}/evaluate/{{run}}/{{dataset}}/choices.parquet",
    log:
        f"{LOGS}/evaluate/{{run}}/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        stage="metrics-v1",
        config=evaluate_section("mode", "tasks", "num_resamples", "confidence"),
        seed=settings.seed,
        results=subpath(input.images, ancestor=3),
        out=subpath(output.metrics, parent=True),
    message:
        "evaluate: metrics of {wildcards.run} on {wildcards.dataset}"
    shell:
        "python -m pipelines.compute_metrics --config {params.config:q} --seed {params.seed}"
        " --results {params.results:q} --run {wildcards.run} --dataset {wildcards.dataset} --features {input.features:q}"
        " --predictions {input.predictions:q} --out {params.out:q} --log {log:q}"


# Image to text and back, within each data set with texts and over all of them.
rule retrieve:
    input:
        model=rules.train_clip.output.model,
        features=collect(
            rules.extract_features.output,
            dataset=settings.evaluate.retrieval,
            allow_missing=True,
        ),
        breasts=collect(
            rules.tabulate_dataset.output.breasts, dataset=settings.evaluate.retrieval
        ),
    output:
        f"{RESULTS}/evaluate/{{run}}/retrieval.parquet",
    log:
        f"{LOGS}/evaluate/{{run}}/retrieval.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}/retrieval.tsv"
    conda:
        ENVIRONMENT
    threads: settings.pretrain.threads
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        stage="retrieval-v1",
        config=evaluate_section("retrieval", "num_resamples", "confidence"),
        model=subpath(input.model, parent=True),
        seed=settings.seed,
        results=subpath(output[0], ancestor=3),
    message:
        "evaluate: retrieval by {wildcards.run}"
    shell:
        "python -m pipelines.retrieve --config {params.config:q} --model {params.model:q} --run {wildcards.run}"
        " --results {params.results:q} --seed {params.seed} --threads {threads} --out {output:q} --log {log:q}"


# A showcase is scored by the main run alone, whose scores the report shows.
FEATURES = [
    *collect(
        rules.extract_features.output, run=settings.pretrain.runs, dataset=EVALUATED
    ),
    *collect(
        rules.extract_features.output,
        run=settings.paper.main_run,
        dataset=settings.evaluate.showcase,
    ),
]
EVALUATIONS = [
    *map(cell_file, CELLS),
    *tested(rules.compute_metrics.output),
    *collect(
        rules.predict_zero_shot.output,
        run=settings.paper.main_run,
        dataset=settings.evaluate.showcase,
        task=settings.evaluate.tasks,
    ),
    *collect(rules.retrieve.output, run=RETRIEVING),
]
