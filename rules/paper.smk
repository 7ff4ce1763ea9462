# Tables, figures and the report.
rule build_paper:
    input:
        index_rejects=collect(rules.index_dataset.output.rejects, dataset=DATASETS),
        shard_rejects=collect(rules.gather_shards.output.rejects, dataset=DATASETS),
        manifests=collect(rules.gather_shards.output.manifest, dataset=DATASETS),
        tars=collect(rules.crop_shard.output.tar, dataset=DATASETS, shard=SHARDS),
        tables=collect(rules.tabulate_dataset.output, dataset=DATASETS),
        models=collect(rules.train_clip.output, run=settings.pretrain.runs),
        features=FEATURES,
        evaluations=EVALUATIONS,
        localizations=LOCALIZATIONS,
    output:
        tables=report(
            collect(
                f"{RESULTS}/paper/classification.{{kind}}", kind=["csv", "md", "tex"]
            ),
            caption="../workflow/report/classification.rst",
            category="Tables",
        ),
        comparisons=report(
            collect(
                f"{RESULTS}/paper/comparisons.{{kind}}", kind=["csv", "md", "tex"]
            ),
            caption="../workflow/report/comparisons.rst",
            category="Tables",
        ),
        calibration=report(
            collect(
                f"{RESULTS}/paper/calibration.{{kind}}", kind=["csv", "md", "tex"]
            ),
            caption="../workflow/report/calibration.rst",
            category="Tables",
        ),
        subgroups=report(
            collect(f"{RESULTS}/paper/subgroups.{{kind}}", kind=["csv", "md", "tex"]),
            caption="../workflow/report/subgroups.rst",
            category="Tables",
        ),
        retrieval=report(
            collect(f"{RESULTS}/paper/retrieval.{{kind}}", kind=["csv", "md", "tex"]),
            caption="../workflow/report/retrieval.rst",
            category="Tables",
        ),
        detection=report(
            collect(f"{RESULTS}/paper/detection.{{kind}}", kind=["csv", "md", "tex"]),
            caption="../workflow/report/detection.rst",
            category="Tables",
        ),
        lesion_sizes=report(
            collect(
                f"{RESULTS}/paper/lesion_sizes.{{kind}}", kind=["csv", "md", "tex"]
            ),
            caption="../workflow/report/lesion_sizes.rst",
            category="Tables",
        ),
        attribution=report(
            collect(
                f"{RESULTS}/paper/attribution.{{kind}}", kind=["csv", "md", "tex"]
            ),
            caption="../workflow/report/attribution.rst",
            category="Tables",
        ),
        figures=report(
            directory(f"{RESULTS}/paper/figures"),
            patterns=["{name}.png"],
            caption="../workflow/report/figures.rst",
            category="Figures",
        ),
        roc=report(
            collect(f"{RESULTS}/paper/roc.{{kind}}", kind=["pdf", "png"]),
            caption="../workflow/report/roc.rst",
            category="Figures",
        ),
        training=report(
            collect(f"{RESULTS}/paper/training.{{kind}}", kind=["pdf", "png"]),
            caption="../workflow/report/training.rst",
            category="Figures",
        ),
        contact_sheets=report(
            collect(
                f"{RESULTS}/paper/contact_sheet.{{dataset}}.png", dataset=DATASETS
            ),
            caption="../workflow/report/contact_sheet.rst",
            category="Figures",
        ),
        provenance=f"{RESULTS}/paper/provenance.json",
        html=report(
            f"{RESULTS}/paper/report.html",
            caption="../workflow/report/report.rst",
            category="Report",
        ),
    log:
        f"{LOGS}/paper.log",
    benchmark:
        f"{BENCHMARKS}/paper.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stage="paper-v5",
        config=section(settings.paper),
        evaluate=section(settings.evaluate),
        pretrain=section(settings.pretrain),
        localize=section(settings.localize),
        adapters=lambda wildcards: json.dumps(
            {name: settings.datasets[name].adapter for name in DATASETS}
        ),
        datasets=DATASETS,
        seed=settings.seed,
        results=subpath(output.html, ancestor=2),
        out=subpath(output.html, parent=True),
    message:
        "paper: tables, figures and the report"
    shell:
        "python -m pipelines.paper --config {params.config:q} --evaluate-config {params.evaluate:q}"
        " --pretrain-config {params.pretrain:q} --localize-config {params.localize:q} --adapters {params.adapters:q}"
        " --datasets {params.datasets} --seed {params.seed} --threads {threads} --results {params.results:q}"
        " --out {params.out:q} --log {log:q}"
