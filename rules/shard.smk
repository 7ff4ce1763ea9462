# DICOM to cropped PNGs: one job per shard, a study belongs to hash(study_id) % num_shards.
rule crop_shard:
    input:
        index=rules.index_dataset.output.index,
    output:
        tar=f"{RESULTS}/shard/{{dataset}}/{{shard}}.tar",
        manifest=f"{RESULTS}/shard/{{dataset}}/{{shard}}.parquet",
        rejects=f"{RESULTS}/shard/{{dataset}}/{{shard}}.rejects.parquet",
    log:
        f"{LOGS}/shard/{{dataset}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/shard/{{dataset}}/{{shard}}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=1 if settings.shard.decoder == "gpu" else 0,
    params:
        stage="shard-v4",
        config=section(settings.shard),
        dataset=dataset_section,
    message:
        "shard: {wildcards.dataset}/{wildcards.shard}"
    shell:
        "python -m pipelines.shard --config {params.config:q} --dataset-config {params.dataset:q}"
        " --dataset {wildcards.dataset} --shard {wildcards.shard} --index {input.index:q} --tar {output.tar:q}"
        " --manifest {output.manifest:q} --rejects {output.rejects:q} --threads {threads} --log {log:q}"


rule gather_shards:
    input:
        index=rules.index_dataset.output.index,
        manifests=collect(
            rules.crop_shard.output.manifest, shard=SHARDS, allow_missing=True
        ),
        rejects=collect(
            rules.crop_shard.output.rejects, shard=SHARDS, allow_missing=True
        ),
        tars=collect(rules.crop_shard.output.tar, shard=SHARDS, allow_missing=True),
    output:
        manifest=f"{RESULTS}/shard/{{dataset}}/manifest.parquet",
        rejects=f"{RESULTS}/shard/{{dataset}}.rejects.parquet",
    log:
        f"{LOGS}/shard/{{dataset}}/gather.log",
    benchmark:
        f"{BENCHMARKS}/shard/{{dataset}}/gather.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stage="gather-v1",
    message:
        "shard: {wildcards.dataset}, every image accounted for?"
    shell:
        "python -m pipelines.gather_shards --index {input.index:q} --manifests {input.manifests:q}"
        " --shard-rejects {input.rejects:q} --manifest {output.manifest:q} --rejects {output.rejects:q} --log {log:q}"


# Nothing is made from the page: it is there to be read before anything is trained.
rule describe_shards:
    input:
        index=rules.index_dataset.output.index,
        index_rejects=rules.index_dataset.output.rejects,
        manifest=rules.gather_shards.output.manifest,
        rejects=rules.gather_shards.output.rejects,
        tars=collect(rules.crop_shard.output.tar, shard=SHARDS, allow_missing=True),
    output:
        html=report(
            f"{RESULTS}/shard/{{dataset}}/quality.html",
            caption="../workflow/report/quality.rst",
            category="Data quality",
            labels={"data set": "{dataset}"},
        ),
    log:
        f"{LOGS}/shard/{{dataset}}/quality.log",
    benchmark:
        f"{BENCHMARKS}/shard/{{dataset}}/quality.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stage="quality-v2",
        adapter=lambda wildcards: settings.datasets[wildcards.dataset].adapter,
        shards=subpath(output.html, parent=True),
    message:
        "shard: {wildcards.dataset}, its quality page"
    shell:
        "python -m pipelines.quality --dataset {wildcards.dataset} --adapter {params.adapter} --index {input.index:q}"
        " --index-rejects {input.index_rejects:q} --manifest {input.manifest:q} --shard-rejects {input.rejects:q}"
        " --shards {params.shards:q} --out {output.html:q} --log {log:q}"
