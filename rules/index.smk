# What is there: one row or one reject per file, from headers alone.
rule generate_phantom:
    output:
        f"{RESULTS}/generate/{{dataset}}/phantom.json",
    log:
        f"{LOGS}/generate/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/generate/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        stage="generate-v1",
        config=lambda wildcards: settings.datasets[
            wildcards.dataset
        ].generate.model_dump_json(),
        seed=settings.seed,
        out=subpath(output[0], parent=True),
    message:
        "generate: the phantom cohort {wildcards.dataset}"
    shell:
        "python -m pipelines.generate --config {params.config:q} --seed {params.seed}"
        " --out {params.out:q} --threads {threads} --log {log:q}"


rule index_dataset:
    input:
        generated,
    output:
        index=f"{RESULTS}/index/{{dataset}}.parquet",
        rejects=f"{RESULTS}/index/{{dataset}}.rejects.parquet",
    log:
        f"{LOGS}/index/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/index/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        stage="index-v4",
        config=dataset_section,
        work=f"{RESULTS}/.work/index/{{dataset}}",
    message:
        "index: {wildcards.dataset}"
    shell:
        "python -m pipelines.index --config {params.config:q} --dataset {wildcards.dataset}"
        " --index {output.index:q} --rejects {output.rejects:q} --work {params.work:q}"
        " --threads {threads} --log {log:q}"
