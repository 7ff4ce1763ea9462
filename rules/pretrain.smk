# Contrastive pretraining through DeepSpeed; resume checkpoints live in RESULTS/.work, which Snakemake does not own.
rule train_clip:
    input:
        images=collect(
            rules.tabulate_dataset.output.images, dataset=settings.pretrain.datasets
        ),
        breasts=collect(
            rules.tabulate_dataset.output.breasts, dataset=settings.pretrain.datasets
        ),
        paraphrases=collect(
            rules.paraphrase_texts.output, dataset=settings.pretrain.datasets
        ),
        tars=collect(
            rules.crop_shard.output.tar,
            dataset=settings.pretrain.datasets,
            shard=SHARDS,
        ),
    output:
        model=f"{RESULTS}/pretrain/{{run}}/model.safetensors",
        config=f"{RESULTS}/pretrain/{{run}}/config.json",
        card=f"{RESULTS}/pretrain/{{run}}/model_card.md",
        metrics=f"{RESULTS}/pretrain/{{run}}/metrics.parquet",
    log:
        f"{LOGS}/pretrain/{{run}}.log",
    benchmark:
        f"{BENCHMARKS}/pretrain/{{run}}.tsv"
    # The longest jobs of all start first.
    priority: 10
    conda:
        ENVIRONMENT
    threads: settings.pretrain.threads * max(1, settings.pretrain.gpus)
    resources:
        mem_mb=16000 * max(1, settings.pretrain.gpus),
        runtime=2880,
        gpu=settings.pretrain.gpus,
    params:
        stage="pretrain-v2",
        config=run_section,
        adapters=adapters(settings.pretrain.datasets),
        seed=settings.seed,
        results=subpath(output.model, ancestor=3),
        out=subpath(output.model, parent=True),
        launcher=branch(
            settings.pretrain.gpus > 1,
            then=f"torchrun --standalone --nproc-per-node {settings.pretrain.gpus} -m",
            otherwise="python -m",
        ),
    message:
        "pretrain: {wildcards.run}"
    shell:
        "{params.launcher} pipelines.pretrain --config {params.config:q} --run {wildcards.run}"
        " --adapters {params.adapters:q} --seed {params.seed} --results {params.results:q} --out {params.out:q} --log {log:q}"
