"""The command line: kdas data | weights | train | predict | evaluate | compare | export | benchmark
| study | book.
"""

import errno
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from kdas_book.cli_data import File, Names, data_app, listed, weights_app
from kdas_book.cli_deploy import benchmark, export, predict
from kdas_book.cli_study import study_app
from kdas_core import UserError
from kdas_core.files import unwritten

_WAYS_OUT = {errno.ENOSPC: "make room and try again", errno.ENAMETOOLONG: "choose a shorter name"}
app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
app.add_typer(study_app, name="study")
for command in (export, predict, benchmark):
    app.command()(command)


@app.command()
def train(
    preset: str = "smoke",
    objective: Annotated[str, Option(help="See kdas_core/losses/objectives.py.")] = "kdas",
    role: Annotated[str, Option(help="student, or teacher to train it alone")] = "student",
    data_root: Annotated[str, Option(help="Folder in PraNet's layout; empty: data/")] = "",
    runs_dir: Annotated[str, Option(help="Where runs are kept; empty: runs/")] = "",
    seed: int = 0,
    set_: Annotated[Names, Option("--set", help="A hyperparameter, key=value; repeatable.")] = None,
    processes: Annotated[int, Option(help="Divide every batch among so many (GPUs).")] = 1,
    tensorboard: Annotated[bool, Option("--tensorboard", help="Scalars in its folder.")] = False,
    unlabelled: Annotated[str, Option(help="Images without masks, to distil on as well.")] = "",
) -> None:
    """Train a student, and its teacher first if there is none yet; an interrupted run goes on."""
    if processes > 1 and "RANK" not in os.environ:
        return _launch(sys.argv[sys.argv.index("train") + 1 :], processes)
    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        sys.stdout = open(os.devnull, "w")

    import torch
    from accelerate import PartialState

    from kdas_book.callbacks import TensorBoard
    from kdas_book.session import begin
    from kdas_core.losses import hyperparameters_of

    hyperparameters_of(objective)
    callback = TensorBoard() if tensorboard else None
    state = PartialState(cpu=not torch.cuda.is_available())
    with state.main_process_first():  # synthetic polyps are written once
        settings = parse_settings(set_ or [])
        session = begin(preset, data_root, runs_dir, seed, unlabelled, **settings)
    folder = session.folder("teacher" if role == "teacher" else objective, callback=callback)
    print(folder or f"the teacher's weights are released ones: {session.released_teacher}")


def parse_settings(words: list[str]) -> dict[str, Any]:
    """``["alpha=0.5", "scales=[1.0]"]`` as hyperparameters, read by YAML's rules."""
    import yaml

    from kdas_core.recipe import typed

    values = {}
    for key, equals, text in (word.partition("=") for word in words):
        if not equals:
            raise UserError(f'"{key}" is no setting; write key=value, for example alpha=0.5.')
        if key in ("preset", "seed", "objective"):
            raise UserError(f"{key} is an option of its own; write --{key} {text}.")
        values[key] = yaml.safe_load(text)
    return typed(values)


def _launch(words: list[str], processes: int) -> None:
    """Let torchrun run ``kdas train`` in so many processes, which divide every batch: one a GPU;
    without a GPU they share the processors. After SIGTERM or Ctrl-C they write one checkpoint.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise UserError(f"{processes} processes for {gpus} GPU(s); choose --processes {gpus}.")
    os.environ.setdefault("ACCELERATE_USE_CPU", str(not gpus))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")  # seconds for a checkpoint
    logging.disable(logging.ERROR)  # torchrun's own log; the sentence below says more
    options = ["--standalone", f"--nproc-per-node={processes}", "-m", "kdas_book.cli", "train"]
    arguments = parse_args([*options, *words])
    arguments.signals_to_handle = "SIGTERM"  # Ctrl-C reaches the processes as SIGTERM, too
    try:
        run(arguments)
    except (SignalException, KeyboardInterrupt):
        raise SystemExit(0) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        how = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}"
        raise UserError(
            f"Process {rank + 1} of {processes} {how}, and the others were stopped; the same "
            "command, also with another number of processes, goes on after the last checkpoint."
        ) from None


@app.command()
def evaluate(
    pred_root: Annotated[File, Option(help="P in P/<set>/*.png")] = None,
    gt_root: Annotated[File, Option(help="G in G/<set>/masks/*")] = None,
    datasets: Annotated[str, Option(help="Names of the sets, with commas between.")] = "",
    config: Annotated[File, Option(help="The release's eval.yaml instead of these three.")] = None,
    json_file: Annotated[File, Option("--json", help="Write the results to this file.")] = None,
    out: Annotated[File, Option(help="Folder for JSON, CSV, Markdown and LaTeX.")] = None,
    convention: Annotated[str, Option(help="released, min-max, binary or pranet")] = "released",
    strict: Annotated[bool, Option(help="Undefined values are NaN, as released.")] = False,
    surface: Annotated[bool, Option(help="HD95 and boundary IoU as well.")] = False,
    drop_repeats: Annotated[bool, Option(help="Count repeated images once.")] = False,
    workers: Annotated[int | None, Option(help="Threads; by default one a processor.")] = None,
    verbose: Annotated[bool, Option(help="Print the table.")] = False,
) -> None:
    """Score grey masks with the 13 metrics of the released evaluation, and Dice and IoU at 0.5."""
    from kdas_book.reports.release_config import from_config, read_config
    from kdas_book.reports.tables import table, verbose_table, write_all, write_json
    from kdas_core.evaluation import evaluate_sets

    how: dict[str, Any] = {"convention": convention, "strict": strict, "surface": surface}
    how |= {"workers": workers, "drop_repeats": drop_repeats}
    if config:
        results = from_config(config, **how)
        shown = read_config(config)["metrics"]
    elif pred_root and gt_root and datasets:
        results = evaluate_sets(pred_root, gt_root, listed(datasets), **how)
        shown = list(table(results).drop(columns=["n", "images", "convention"]))
    else:
        raise UserError("Say --pred-root, --gt-root and --datasets, or --config.")
    if json_file:
        write_json(results, json_file)
    if out:
        write_all(results, out)
    if verbose or not (json_file or out or config):
        print(verbose_table(results, shown))


@app.command()
def compare(
    a: Annotated[Path, Argument(help="metrics.json of one method, from kdas evaluate")],
    b: Annotated[Path, Argument(help="metrics.json of the other")],
    metric: Annotated[str, Option(help="Any metric in the two files.")] = "dice",
    groups: Annotated[File, Option(help="CSV dataset,name,group: each frame's video.")] = None,
    csv: Annotated[File, Option(help="Write the table to this file as well.")] = None,
) -> None:
    """Is A better than B? By image: mean difference, 95 % interval, Wilcoxon p, Holm over sets."""
    from kdas_book.data.videos import read_groups
    from kdas_book.files import refuse_foreign
    from kdas_book.reports import comparison as statistics
    from kdas_book.reports.tables import CAVEATS, comparison_table, read_per_image
    from kdas_core.files import atomic_write

    tables = read_per_image(a), read_per_image(b)
    videos = read_groups(groups) if groups else None
    frame = statistics.compare(*tables, metric=metric, groups=videos)
    if csv:
        begin = b"dataset,n,units,mean_a"
        refuse_foreign(csv, "table of kdas compare", lambda f: f.read_bytes().startswith(begin))
        atomic_write(csv, frame.to_csv().encode())
    less = " (less is better)" if metric in ("mae", "hd95") else ""
    print(f"{metric}{less}, A = {a}, B = {b}; the difference is A - B")
    print(comparison_table(frame))
    for name in frame.index:
        if name in CAVEATS and not tables[0][name].attrs["synthetic"]:
            print(f"{name}: {CAVEATS[name]}")


@app.command("book", add_help_option=False, context_settings={"ignore_unknown_options": True})
def book_(words: Annotated[Names, Argument()] = None) -> None:
    """Run the chapters and build the site; "kdas book --help" lists its options."""
    from kdas_book.publishing import book

    first = [] if (words or [""])[0] in ("build", "serve", "pdf") else ["build"]
    book.app([*first, *(words or [])], prog_name="kdas book")


def main() -> None:
    """Run a command; what the user can mend is one sentence on standard error, exit code 2."""
    if hasattr(sys.stdout, "reconfigure"):  # a pipe may not know the letters of a file's name
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that drafts are removed
    try:
        app()
    except (UserError, OSError, MemoryError) as error:
        said: object = error
        if isinstance(error, OSError):
            if error.errno not in _WAYS_OUT:
                raise
            said = unwritten(Path(error.filename or "a file"), error, _WAYS_OUT[error.errno])
        elif isinstance(error, MemoryError):
            said = "There is too little memory for a file or a number as large as this."
        print(f"kdas: {said}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
