# Where a finding is: detectors on the image encoder, Mammo-FActOR, and the metrics of both.
rule train_detector:
    input:
        model=rules.train_clip.output.model,
        manifest=rules.gather_shards.output.manifest,
        images=rules.tabulate_dataset.output.images,
        findings=rules.tabulate_dataset.output.findings,
        attributes=rules.tabulate_dataset.output.attributes,
        labels=rules.tabulate_dataset.output.labels,
        tars=collect(rules.crop_shard.output.tar, shard=SHARDS, allow_missing=True),
    output:
        f"{RESULTS}/localize/{{run}}/{{dataset}}/{{target}}/{{detection}}-{{fraction}}-{{seed}}.parquet",
    log:
        f"{LOGS}/localize/{{run}}/{{dataset}}/{{target}}/{{detection}}-{{fraction}}-{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/localize/{{run}}/{{dataset}}/{{target}}/{{detection}}-{{fraction}}-{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: settings.pretrain.threads
    resources:
        mem_mb=16000,
        runtime=1440,
        gpu=settings.localize.gpus,
    params:
        stage="detector-v1",
        config=localize_section("mode", "detection"),
        model=subpath(input.model, parent=True),
        shards=subpath(input.manifest, parent=True),
        launcher=on_one_node(settings.localize.gpus),
        work=f"{RESULTS}/.work/{{detection}}-{{run}}-{{dataset}}-{{target}}-{{fraction}}-{{seed}}",
    message:
        "localize: {wildcards.detection} of {wildcards.target} on {wildcards.fraction} of {wildcards.dataset} by {wildcards.run}"
    shell:
        "{params.launcher} pipelines.train_detector --config {params.config:q} --model {params.model:q}"
        " --images {input.images:q} --findings {input.findings:q} --attributes {input.attributes:q}"
        " --labels {input.labels:q} --shards {params.shards:q} --target {wildcards.target}"
        " --protocol {wildcards.detection} --fraction {wildcards.fraction} --seed {wildcards.seed} --threads {threads}"
        " --work {params.work:q} --out {output:q} --log {log:q}"


# The encoder runs once per image; the mappings, their heat maps and what comes for free are made of its maps.
rule train_factor:
    input:
        model=rules.train_clip.output.model,
        manifest=rules.gather_shards.output.manifest,
        images=rules.tabulate_dataset.output.images,
        tables=rules.tabulate_dataset.output,
        tars=collect(rules.crop_shard.output.tar, shard=SHARDS, allow_missing=True),
    output:
        factor=f"{RESULTS}/localize/{{run}}/{{dataset}}/mammo-factor/factor.safetensors",
        detections=f"{RESULTS}/localize/{{run}}/{{dataset}}/mammo-factor/detections.parquet",
        attributions=f"{RESULTS}/localize/{{run}}/{{dataset}}/mammo-factor/attributions.parquet",
        heat_maps=f"{RESULTS}/localize/{{run}}/{{dataset}}/mammo-factor/heat_maps.parquet",
    log:
        f"{LOGS}/localize/{{run}}/{{dataset}}/mammo-factor.log",
    benchmark:
        f"{BENCHMARKS}/localize/{{run}}/{{dataset}}/mammo-factor.tsv"
    conda:
        ENVIRONMENT
    threads: settings.pretrain.threads
    resources:
        mem_mb=16000,
        runtime=1440,
        gpu=min(1, settings.localize.gpus),
    params:
        stage="factor-v1",
        config=localize_section("mode", "factor"),
        seed=settings.seed,
        model=subpath(input.model, parent=True),
        shards=subpath(input.manifest, parent=True),
        results=subpath(input.images, ancestor=3),
        options=f"--batch-size {settings.evaluate.batch_size} --precision {settings.evaluate.precision}",
        work=f"{RESULTS}/.work/mammo-factor-{{run}}-{{dataset}}",
        out=subpath(output.factor, parent=True),
    message:
        "localize: Mammo-FActOR on {wildcards.dataset} by {wildcards.run}"
    shell:
        "python -m pipelines.train_factor --config {params.config:q} --seed {params.seed} --results {params.results:q}"
        " --run {wildcards.run} --dataset {wildcards.dataset} --model {params.model:q} --shards {params.shards:q}"
        " {params.options} --threads {threads} --work {params.work:q} --out {params.out:q} --log {log:q}"


rule compute_localization:
    input:
        detections=detections_of,
        factor=of_factor(
            rules.train_factor.output.detections,
            rules.train_factor.output.attributions,
        ),
        index=rules.index_dataset.output.index,
        images=rules.tabulate_dataset.output.images,
        tables=rules.tabulate_dataset.output,
    output:
        f"{RESULTS}/localize/{{run}}/{{dataset}}/localization.parquet",
    log:
        f"{LOGS}/localize/{{run}}/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/localize/{{run}}/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        stage="localization-v1",
        config=localize_section("mode", "factor", "num_resamples", "confidence"),
        seed=settings.seed,
        results=subpath(input.images, ancestor=3),
        detections=detection_arguments,
        factor=lambda w, input: "--factor" if input.factor else "",
    message:
        "localize: metrics of {wildcards.run} on {wildcards.dataset}"
    shell:
        "python -m pipelines.compute_localization --config {params.config:q} --seed {params.seed}"
        " --results {params.results:q} --run {wildcards.run} --dataset {wildcards.dataset} {params.detections}"
        " {params.factor} {input.factor:q} --out {output:q} --log {log:q}"


LOCALIZED = dict.fromkeys([*((cell.run, cell.dataset) for cell in DETECTORS), *FACTORS])
LOCALIZATIONS = [
    *map(detector_file, DETECTORS),
    *(
        collect(rules.train_factor.output, run=run, dataset=dataset)
        for run, dataset in FACTORS
    ),
    *(
        collect(rules.compute_localization.output, run=run, dataset=dataset)
        for run, dataset in LOCALIZED
    ),
]
