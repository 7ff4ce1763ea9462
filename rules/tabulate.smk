# Reports, labels, boxes and image-text pairs as the common tables.
rule tabulate_dataset:
    input:
        index=rules.index_dataset.output.index,
        manifest=rules.gather_shards.output.manifest,
    output:
        images=f"{RESULTS}/tabulate/{{dataset}}/images.parquet",
        findings=f"{RESULTS}/tabulate/{{dataset}}/findings.parquet",
        attributes=f"{RESULTS}/tabulate/{{dataset}}/attributes.parquet",
        reports=f"{RESULTS}/tabulate/{{dataset}}/reports.parquet",
        breasts=f"{RESULTS}/tabulate/{{dataset}}/breasts.parquet",
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
        stage="tabulate-v2",
        config=section(settings.tabulate),
        dataset=dataset_section,
        seed=settings.seed,
        out=subpath(output.images, parent=True),
    message:
        "tabulate: {wildcards.dataset}"
    shell:
        "python -m pipelines.tabulate --config {params.config:q} --dataset-config {params.dataset:q}"
        " --dataset {wildcards.dataset} --seed {params.seed} --index {input.index:q} --manifest {input.manifest:q}"
        " --out {params.out:q} --log {log:q}"
