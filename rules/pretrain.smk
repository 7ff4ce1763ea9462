# Contrastive pretraining through DeepSpeed; resume checkpoints live in RESULTS/.work, which Snakemake does not own.
rule train_clip:
    input:
        images=of_datasets(rules.tabulate_dataset.output.images),
        breasts=of_datasets(rules.tabulate_dataset.output.breasts),
        paraphrases=of_datasets(rules.paraphrase_texts.output),
        tars=of_datasets(rules.crop_shard.output.tar, shard=SHARDS),
    output:
        model=f"{RESULTS}/pretrain/{{run}}/model.safetensors",
        config=f"{RESULTS}/pretrain/{{run}}/config.json",
        card=f"{RESULTS}/pretrain/{{run}}/model_card.md",
        metrics=f"{RESULTS}/pretrain/{{run}}/metrics.parquet",
        validation=f"{RESULTS}/pretrain/{{run}}/validation.parquet",
    log:
        f"{LOGS}/pretrain/{{run}}.log",
    benchmark:
        f"{BENCHMARKS}/pretrain/{{run}}.tsv"
    # The longest jobs of all start first.
    priority: 10
    conda:
        ENVIRONMENT
    threads: of_processes(settings.pretrain.threads)
    resources:
        mem_mb=of_processes(16000),
        runtime=2880,
        gpu=num_gpus,
        # One task a node; the launcher calls srun itself (mpi) where there are several.
        nodes=num_nodes,
        tasks=num_nodes,
        tasks_per_gpu=0,
        gres=gpus_per_node,
        mpi=several_nodes,
    params:
        stage="pretrain-v3",
        config=run_section,
        adapters=adapters(TRAINED),
        seed=settings.seed,
        results=subpath(output.model, ancestor=3),
        out=subpath(output.model, parent=True),
        launcher=launcher,
    message:
        "pretrain: {wildcards.run}"
    shell:
        "{params.launcher} pipelines.pretrain --config {params.config:q} --run {wildcards.run}"
        " --adapters {params.adapters:q} --seed {params.seed} --results {params.results:q} --out {params.out:q} --log {log:q}"
