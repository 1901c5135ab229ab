"""kdas study: plan, run, watch and report many training runs."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from kdas_book.cli_data import File
from kdas_book.study.spec import read_study

study_app = typer.Typer(no_args_is_help=True, help="Many training runs: objectives × seeds.")

StudyFile = Annotated[Path, Argument(help="A study file, such as book/studies/smoke.yaml.")]
RUNS = Path("runs")
StudyRuns = Annotated[Path, Option(help="The study's folder is made in here.")]
StudyData = Annotated[str, Option(help="Folder in PraNet's layout, instead of the study's.")]


@study_app.command("plan")
def study_plan(file: StudyFile, runs_dir: StudyRuns = RUNS, data_root: StudyData = "") -> None:
    """Cells, hours and disk, before anything runs; a few steps are timed."""
    from kdas_book.study.estimate import plan

    print(plan(read_study(file, data_root), runs_dir))


@study_app.command("run")
def study_run(
    file: StudyFile,
    runs_dir: StudyRuns = RUNS,
    data_root: StudyData = "",
    processes: Annotated[int, Option(min=0, help="At once; 0: one a GPU, or per 2 CPUs.")] = 0,
    dask: Annotated[str, Option(help="Send the cells to the Dask scheduler at this address.")] = "",
    retry: Annotated[bool, Option("--retry", help="Run cells again that failed.")] = False,
    keep: Annotated[str, Option(help="Go on from results kept here, and keep them here.")] = "",
) -> None:
    """Train and score what is not finished yet; started again, it goes on."""
    from kdas_book.study.run_study import run

    print(run(read_study(file, data_root), runs_dir, processes, dask, retry, keep))


@study_app.command("status")
def study_status(file: StudyFile, runs_dir: StudyRuns = RUNS) -> None:
    """How many cells are finished, running, waiting, failed: one line, while it runs or not."""
    from kdas_book.study.run_study import status

    print(status(read_study(file), runs_dir))


@study_app.command("report")
def study_report(
    results: Annotated[Path, Argument(help="A study's folder, or a <name>_study.csv of --keep.")],
    out: Annotated[File, Option(help="Folder for tables and figures.")] = None,
    claims: Annotated[File, Option(help="CSV of claims, for the ledger.")] = None,
    keep: Annotated[File, Option(help="Folder for the results as four small files.")] = None,
) -> None:
    """Tables, tests and figures of the training runs that have finished."""
    from tabulate import tabulate

    from kdas_book.figures.display import use_style
    from kdas_book.study import report
    from kdas_book.study import results as kept

    if keep:
        print(*kept.keep(results, keep), sep="\n")
    found = kept.open_results(results)
    print(*filter(None, [report.summary(found), found.completeness]), sep="\n")
    print(tabulate(report.dice_table(found).reset_index(), "keys", showindex=False))
    if out:
        use_style()
        print(report.write_report(found, out, claims)[0])
