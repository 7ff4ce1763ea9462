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
        gpu=min(1, settings.pretrain.gpus),
    params:
        stage="features-v1",
        model=subpath(input.model, parent=True),
        shards=subpath(input.manifest, parent=True),
        batch_size=settings.evaluate.batch_size,
    message:
        "evaluate: features of {wildcards.dataset} by {wildcards.run}"
    shell:
        "python -m pipelines.extract_features --model {params.model:q} --images {input.images:q}"
        " --shards {params.shards:q} --batch-size {params.batch_size} --threads {threads}"
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
        stage="prompts-v1",
        tasks=settings.evaluate.tasks,
        prompts_per_class=settings.evaluate.prompts_per_class,
        seed=settings.seed,
        model=subpath(input.model, parent=True),
    message:
        "evaluate: prompts by {wildcards.run}"
    shell:
        "python -m pipelines.embed_prompts --tasks {params.tasks} --prompts-per-class {params.prompts_per_class}"
        " --seed {params.seed} --model {params.model:q} --out {output:q} --log {log:q}"


rule classify:
    input:
        features=rules.extract_features.output,
        prompts=rules.embed_prompts.output,
        images=rules.tabulate_dataset.output.images,
        attributes=rules.tabulate_dataset.output.attributes,
    output:
        predictions=f"{RESULTS}/evaluate/{{run}}/{{dataset}}/predictions.parquet",
        metrics=f"{RESULTS}/evaluate/{{run}}/{{dataset}}/metrics.parquet",
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
        stage="classify-v1",
        config=section(settings.evaluate),
        seed=settings.seed,
        results=subpath(output.metrics, ancestor=4),
        out=subpath(output.metrics, parent=True),
    message:
        "evaluate: {wildcards.run} on {wildcards.dataset}"
    shell:
        "python -m pipelines.evaluate --config {params.config:q} --seed {params.seed} --results {params.results:q}"
        " --run {wildcards.run} --dataset {wildcards.dataset} --prompts {input.prompts:q}"
        " --out {params.out:q} --log {log:q}"
