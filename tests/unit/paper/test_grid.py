from mammoclip.paper.grid import Grid, escape_latex, to_latex, to_markdown

GRID = Grid(
    ["Task", "Protocol", "run_1", "n"],
    [["a", "x", "0.5 [0.4, 0.6]", "8"], ["a", "y", "\u22120.1", "8"], ["b|c", "x", "50 %", "n/a"]],
    num_labels=2,
    num_group=1,
)


def test_rows_with_equal_first_cells_are_one_group() -> None:
    assert [[row[1] for row in group] for group in GRID.groups()] == [["x", "y"], ["x"]]


def test_markdown_is_a_pipe_table_with_as_many_cells_in_every_row() -> None:
    lines = to_markdown(GRID).splitlines()
    assert lines[0] == "| Task | Protocol | run_1 | n |"
    assert lines[1] == "| --- | --- | ---: | ---: |"
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}


def test_markdown_escapes_the_pipe_of_a_cell() -> None:
    assert "b\\|c" in to_markdown(GRID)


def test_latex_escapes_every_special_character() -> None:
    text = escape_latex(r"\ & % $ # _ { } ~ ^ < > |")
    assert text == (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{} "
        r"\textless{} \textgreater{} \textbar{}"
    )


def test_latex_is_a_booktabs_table_with_as_many_cells_as_columns() -> None:
    lines = to_latex(GRID).splitlines()
    assert lines[1:3] == [r"\begin{tabular}{llrr}", r"\toprule"]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 1 + len(GRID.rows)
    assert {row.count(" & ") for row in rows} == {3}


def test_latex_separates_groups_by_space() -> None:
    assert to_latex(GRID).count(r"\addlinespace") == 1


def test_latex_sets_a_negative_number_with_a_minus_sign() -> None:
    assert "$-$0.1" in to_latex(GRID)


def test_a_grid_without_rows_is_still_a_table() -> None:
    empty = Grid(["Task", "n"], [], num_labels=1, num_group=1)
    assert to_markdown(empty).count("\n") == 2
    assert r"\midrule" in to_latex(empty)
