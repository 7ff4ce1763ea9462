# Tables, figures and the report.
rule build_paper:
    input:
        rejects=collect(
            [rules.index_dataset.output.rejects, rules.gather_shards.output.rejects],
            dataset=DATASETS,
        ),
        manifests=collect(rules.gather_shards.output.manifest, dataset=DATASETS),
        tables=collect(rules.tabulate_dataset.output, dataset=DATASETS),
        steps=collect(rules.train_clip.output.metrics, run=settings.pretrain.runs),
        evaluations=collect(
            rules.classify.output, run=settings.pretrain.runs, dataset=EVALUATED
        ),
    output:
        tables=report(
            collect(
                f"{RESULTS}/paper/classification.{{kind}}", kind=["csv", "md", "tex"]
            ),
            caption="../workflow/report/classification.rst",
            category="Tables",
        ),
        roc=report(
            f"{RESULTS}/paper/roc.png",
            caption="../workflow/report/roc.rst",
            category="Figures",
        ),
        report=f"{RESULTS}/paper/report.html",
    log:
        f"{LOGS}/paper.log",
    benchmark:
        f"{BENCHMARKS}/paper.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stage="paper-v1",
        config=section(settings.paper),
        evaluate=section(settings.evaluate),
        pretrain=section(settings.pretrain),
        seed=settings.seed,
    shell:
        "python -m pipelines.paper"
