# Reports, labels, boxes and image-text pairs as the common tables.
rule tabulate_dataset:
    input:
        index=rules.index_dataset.output.index,
        manifest=rules.gather_shards.output.manifest,
    output:
        images=f"{RESULTS}/tabulate/{{dataset}}/images.parquet",
        findings=f"{RESULTS}/tabulate/{{dataset}}/findings.parquet",
        attributes=f"{RESULTS}/tabulate/{{dataset}}/attributes.parquet",
        labels=f"{RESULTS}/tabulate/{{dataset}}/labels.parquet",
        reports=f"{RESULTS}/tabulate/{{dataset}}/reports.parquet",
        breasts=f"{RESULTS}/tabulate/{{dataset}}/breasts.parquet",
        rejects=f"{RESULTS}/tabulate/{{dataset}}.rejects.parquet",
    log:
        f"{LOGS}/tabulate/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/tabulate/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        stage="tabulate-v3",
        config=section(settings.tabulate),
        dataset=dataset_section,
        seed=settings.seed,
        out=subpath(output.images, parent=True),
    message:
        "tabulate: {wildcards.dataset}"
    shell:
        "python -m pipelines.tabulate --config {params.config:q} --dataset-config {params.dataset:q}"
        " --dataset {wildcards.dataset} --seed {params.seed} --index {input.index:q} --manifest {input.manifest:q}"
        " --rejects {output.rejects:q} --out {params.out:q} --threads {threads} --log {log:q}"


# Another wording of every sentence; the cache lives in RESULTS/.work, which Snakemake does not own.
rule paraphrase_texts:
    input:
        rules.tabulate_dataset.output.reports,
    output:
        f"{RESULTS}/tabulate/{{dataset}}.paraphrases.parquet",
    log:
        f"{LOGS}/tabulate/{{dataset}}.paraphrases.log",
    benchmark:
        f"{BENCHMARKS}/tabulate/{{dataset}}.paraphrases.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=8000,
        runtime=1440,
        gpu=int(settings.paraphrase.device == "cuda"),
    params:
        stage="paraphrase-v1",
        config=section(settings.paraphrase),
        seed=settings.seed,
        cache=f"{RESULTS}/.work/paraphrase",
    message:
        "paraphrase: {wildcards.dataset}"
    shell:
        "python -m pipelines.paraphrase --config {params.config:q} --seed {params.seed} --reports {input:q}"
        " --cache {params.cache:q} --out {output:q} --log {log:q}"
