"""The command line: ``kdas data | weights | train | predict | evaluate | compare | book``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kdas_core import UserError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
data_app = typer.Typer(
    no_args_is_help=True, help="Fetch data, look at it, or make synthetic polyps."
)
weights_app = typer.Typer(
    no_args_is_help=True, help="Fetch released weights, or look at a file of weights."
)
study_app = typer.Typer(
    no_args_is_help=True, help="Many trainings, one question: objectives × seeds."
)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
app.add_typer(study_app, name="study")

StudyFile = Annotated[Path, typer.Argument(help="A study file, such as book/studies/smoke.yaml.")]
Yes = Annotated[bool, typer.Option("--yes", help="Agree to the terms of use without being asked.")]


def agree(texts: Sequence[str], yes: bool) -> None:
    """Show terms of use and ask for consent, before anything is fetched."""
    print("\n".join(texts))
    if yes or not texts:
        return
    if not sys.stdin.isatty():
        raise UserError(
            "Nothing was fetched, since nobody is here to agree to the terms above; if you do, add --yes."
        )
    if not typer.confirm("Fetch this, on these terms?"):
        raise UserError("Nothing was fetched.")


@data_app.command("get")
def data_get(
    names: Annotated[
        list[str] | None, typer.Argument(help="train, test, kvasir-seg; by default train and test")
    ] = None,
    out: Annotated[Path, typer.Option(help="The data folder.")] = Path("data"),
    yes: Yes = False,
    manifest: Annotated[
        Path | None, typer.Option(help="YAML with mirrors, or sets of your own.")
    ] = None,
) -> None:
    """Fetch the real images from their public homes; what is there already stays as it is."""
    from kdas_book.data import download

    sources = download.choose(names or (), manifest)
    missing = [source for source in sources if not download.is_complete(source, out)]
    agree([download.describe(source, out) for source in missing], yes)
    for source in sources:
        print(download.get(source, out))


@data_app.command("synthetic")
def data_synthetic(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    train: Annotated[int, typer.Option(help="Training pairs.")] = 200,
    test: Annotated[int, typer.Option(help="Pairs in each of the five test sets.")] = 40,
    seed: int = 0,
) -> None:
    """Write synthetic polyps in PraNet's layout."""
    from kdas_book.data.synthetic import make_dataset

    print(
        f"{make_dataset(out, train=train, test=test, seed=seed)}: {train} training pairs, 5 test sets of {test}"
    )


@data_app.command("styles")
def data_styles(
    out: Annotated[Path, typer.Option(help="Picture file to write, .jpg or .png.")] = Path(
        "styles.jpg"
    ),
    columns: Annotated[int, typer.Option(help="Pictures of each style.")] = 6,
    seed: Annotated[int, typer.Option(help="Scene of the first column.")] = 0,
) -> None:
    """Write a sheet of synthetic pictures, a row for each of the five styles."""
    from kdas_book.data.synthetic import write_sheet

    print(f"{write_sheet(out, columns, seed)}: {columns} pictures of each of the five styles")


@data_app.command("check")
def data_check(
    root: Annotated[
        Path, typer.Argument(help="Folder with TrainDataset and TestDataset, or images and masks.")
    ] = Path("data"),
    figure: Annotated[
        Path | None, typer.Option(help="Draw the most similar pictures into this file.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="Write the known videos, for kdas compare --groups.")
    ] = None,
) -> None:
    """Open and compare all pictures: a table, what is wrong, what to know. Exit code 0: nothing is
    wrong; 1: something is.

    Wrong is what training refuses, masks whose polyp is too dark to be read, and test pictures that
    are training pictures byte for byte. Findings, such as repeats or shared videos, leave the code
    at 0: the public sets have them as they come.
    """
    from kdas_book.data.check import check_data
    from kdas_book.data.videos import write_groups

    check = check_data(root)
    print(check)
    if groups:
        write_groups(check.videos, groups)
    if figure:
        from kdas_book.figures import basics, ch01_data

        basics.use_style()
        basics.save(ch01_data.twins(check.closest), figure)
    if check.problems:
        raise typer.Exit(1)


@data_app.command("import")
def data_import(
    source: Annotated[Path, typer.Argument(help="A COCO .json, or a folder. It is only read.")],
    layout: Annotated[
        str, typer.Option("--as", help="coco, labelme, voc, yolo or masks (mask files)")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make, or to add sets to.")],
    images: Annotated[Path | None, typer.Option(help="Folder of the images, if elsewhere.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of the mask files, if elsewhere.")
    ] = None,
    mask_suffix: Annotated[str, typer.Option(help="What masks are called besides: _mask")] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="A category that is polyp; repeatable.")
    ] = None,
    values: Annotated[str, typer.Option(help="Values of mask files that are polyp: 1,3")] = "",
    colours: Annotated[str, typer.Option(help="The same as colours: ff0000,00ff00")] = "",
    box: Annotated[
        str | None, typer.Option(help="Draw mere boxes as ellipse or rectangle: weak masks.")
    ] = None,
    negatives: Annotated[
        str | None, typer.Option(help="keep or drop frames without a polyp")
    ] = None,
    split: Annotated[float, typer.Option(help="Share that becomes the test set; 1: all.")] = 0.0,
    test_name: Annotated[str, typer.Option(help="The test set's folder in TestDataset.")] = "Own",
    group_by: Annotated[
        str, typer.Option(help="Regular expression on folder/stem: its video or patient.")
    ] = "",
    groups: Annotated[str, typer.Option(help="CSV name,group instead.")] = "",
    seed: Annotated[int, typer.Option(help="Of the division.")] = 0,
    prefix: Annotated[
        bool, typer.Option("--prefix", help="Put folders in front of names: a/1 is a_1.")
    ] = False,
    exif: Annotated[
        str | None, typer.Option(help="Annotated turned or stored, where sizes do not tell.")
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out what is faulty, and list it.")
    ] = False,
) -> None:
    """Bring COCO, Labelme, boxes or mask files into PraNet's layout."""
    from kdas_book.data.importing import import_data

    try:
        numbers = [int(value) for value in values.split(",") if value.strip()]
    except ValueError:
        raise UserError(
            f'--values "{values}" are no whole numbers; write them as in --values 1,3.'
        ) from None
    chosen: dict[str, Any] = {
        "images": images,
        "masks": masks,
        "mask_suffix": mask_suffix,
        "labels": label or (),
    }
    chosen |= {
        "values": numbers,
        "colours": [c.strip() for c in colours.split(",") if c.strip()],
        "box": box,
    }
    chosen |= {
        "negatives": negatives,
        "split": split,
        "test_name": test_name,
        "group_by": group_by,
        "groups": groups,
    }
    print(
        import_data(source, layout, out, seed=seed, prefix=prefix, exif=exif, skip=skip, **chosen)
    )


@weights_app.command("get")
def weights_get(
    names: Annotated[
        list[str] | None, typer.Argument(help="polyp_pvt, imagenet; by default both")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the teacher's file goes.")] = Path(
        "teacher_weights"
    ),
    yes: Yes = False,
    source: Annotated[
        str, typer.Option("--from", help="Take polyp_pvt from this file or address.")
    ] = "",
) -> None:
    """Fetch released weights; nothing is put in place before it has been loaded into its network."""
    from kdas_book.data import released_weights as released

    chosen = released.choose(names or (["polyp_pvt"] if source else ()))
    if source and chosen != ["polyp_pvt"]:
        raise UserError('--from is for polyp_pvt alone: "kdas weights get polyp_pvt --from FILE".')
    missing = [name for name in chosen if name != "polyp_pvt" or not released.is_there(out)]
    agree([f"{name}: {released.NAMES[name]}" for name in missing], yes)
    for name in chosen:
        print(
            released.get_polyp_pvt(out, source)
            if name == "polyp_pvt"
            else "\n".join(released.get_imagenet())
        )


@weights_app.command("check")
def weights_check(
    file: Annotated[Path, typer.Argument(help="A .pth or .safetensors file.")],
    role: Annotated[str, typer.Option(help="teacher or student")] = "teacher",
    backbone: Annotated[
        str | None, typer.Option(help="timm backbone, if not the role's own")
    ] = None,
) -> None:
    """Say whether a file of weights is whole and fits the network."""
    from kdas_core.models import build, count_parameters

    net = build(role, weights=file, backbone=backbone)
    print(f"{file} fits the {role}: {count_parameters(net):,} parameters")


@app.command()
def train(
    preset: str = "smoke",
    objective: Annotated[
        str, typer.Option(help="See the table in kdas_core/losses/objectives.py.")
    ] = "kdas",
    role: Annotated[
        str, typer.Option(help="student, or teacher to train the teacher alone")
    ] = "student",
    data_root: Annotated[str, typer.Option(help="Folder in PraNet's layout; empty: data/")] = "",
    runs_dir: Annotated[str, typer.Option(help="Where runs are kept; empty: runs/")] = "",
    seed: int = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyperparameter of the recipe, key=value; repeatable."),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Divide every batch among so many processes (GPUs).")
    ] = 1,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Scalars in the run's folder.")
    ] = False,
) -> None:
    """Train a student, and its teacher first if there is none yet; an interrupted run goes on."""
    if processes > 1 and "RANK" not in os.environ:
        from kdas_book.launch import launch

        return launch(sys.argv[sys.argv.index("train") + 1 :], processes)

    import torch
    from accelerate import PartialState

    from kdas_book.callbacks import TensorBoard
    from kdas_book.session import begin
    from kdas_core.losses import hyperparameters_of
    from kdas_core.recipe import parse_settings

    hyperparameters_of(objective)
    watch = TensorBoard() if tensorboard else None
    with PartialState(
        cpu=not torch.cuda.is_available()
    ).main_process_first():  # synthetic polyps are written once
        run = begin(preset, data_root, runs_dir, seed, **parse_settings(set_ or []))
    folder = run.folder("teacher" if role == "teacher" else objective, watch=watch)
    print(folder or f"the teacher's weights are released ones: {run.released_teacher}")


@app.command()
def predict(
    weights: Annotated[Path, typer.Option(help="A .safetensors of ours or a released .pth")],
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    out: Annotated[Path, typer.Option(help="Folder for the grey PNGs.")],
    role: Annotated[str, typer.Option(help="teacher or student")] = "student",
    backbone: Annotated[
        str | None, typer.Option(help="timm backbone, if not the role's own")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the square that the network sees.")] = 352,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 8,
    afresh: Annotated[bool, typer.Option(help="Predict again what is there already.")] = False,
) -> None:
    """Write one 8-bit grey PNG per image, same stem, same size; an interrupted run goes on where it
    stopped.
    """
    import torch

    from kdas_core.inference import predict_folder
    from kdas_core.models import build, freeze

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = freeze(build(role, weights=weights, backbone=backbone)).to(device)
    count = predict_folder(net, images, out, size, batch_size=batch_size, afresh=afresh)
    print(f"{count} masks in {out}")


@app.command()
def evaluate(
    pred_root: Annotated[Path | None, typer.Option(help="P in P/<set>/*.png")] = None,
    gt_root: Annotated[Path | None, typer.Option(help="G in G/<set>/masks/*")] = None,
    datasets: Annotated[str, typer.Option(help="Names of the sets, with commas between.")] = "",
    config: Annotated[
        Path | None, typer.Option(help="The release's eval.yaml instead of these three.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for JSON, CSV, Markdown and LaTeX.")
    ] = None,
    convention: Annotated[
        str, typer.Option(help="released, min-max, binary or pranet")
    ] = "released",
    strict: Annotated[bool, typer.Option(help="Undefined values are NaN, as released.")] = False,
    surface: Annotated[bool, typer.Option(help="HD95 and boundary IoU as well.")] = False,
    drop_repeats: Annotated[bool, typer.Option(help="Count repeated images once.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Threads; by default one a processor.")
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Print the table.")] = False,
) -> None:
    """Score grey masks with the 13 metrics of the released evaluation, and Dice and IoU at 0.5."""
    from kdas_book.reports.release_config import from_config, read_config
    from kdas_book.reports.tables import table, verbose_table, write_all, write_json
    from kdas_core.evaluation import METRICS, evaluate_sets

    settings: dict[str, Any] = {
        "convention": convention,
        "strict": strict,
        "surface": surface,
        "workers": workers,
    }
    settings["drop_repeats"] = drop_repeats
    if config:
        results, shown = from_config(config, **settings), read_config(config)["metrics"]
    elif pred_root and gt_root and datasets:
        results = evaluate_sets(
            pred_root, gt_root, [d.strip() for d in datasets.split(",")], **settings
        )
        shown = [
            metric
            for metric in table(results)
            if metric in (*METRICS, "dice", "iou", "hd95", "boundary_iou")
        ]
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
    a: Annotated[Path, typer.Argument(help="metrics.json of one method, from kdas evaluate")],
    b: Annotated[Path, typer.Argument(help="metrics.json of the other")],
    metric: Annotated[str, typer.Option(help="Any metric in the two files.")] = "dice",
    groups: Annotated[
        Path | None, typer.Option(help="CSV dataset,name,group: the video of each frame.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file as well.")] = None,
) -> None:
    """Is A better than B? Image by image: mean difference, 95 % interval, Wilcoxon p, Holm over the
    sets.
    """
    from kdas_book.reports.tables import CAVEATS, comparison_table, read_per_image
    from kdas_core.evaluation import comparison as statistics

    tables = read_per_image(a), read_per_image(b)
    frame = statistics.compare(
        *tables, metric=metric, groups=statistics.read_groups(groups) if groups else None
    )
    if csv:
        frame.to_csv(csv)
    less = " (less is better)" if metric in ("mae", "hd95") else ""
    print(f"{metric}{less}, A = {a}, B = {b}; the difference is A - B")
    print(comparison_table(frame))
    for name in frame.index:
        if name in CAVEATS and not tables[0][name].attrs["synthetic"]:
            print(f"{name}: {CAVEATS[name]}")


@study_app.command("plan")
def study_plan(
    file: StudyFile,
    runs_dir: Annotated[
        Path, typer.Option(help="Where the study's folder is, or would be.")
    ] = Path("runs"),
    data_root: Annotated[
        str, typer.Option(help="Folder in PraNet's layout, instead of the study's.")
    ] = "",
) -> None:
    """Cells, hours and disk, before anything runs; a few steps are timed."""
    from kdas_book.study.estimate import plan
    from kdas_book.study.spec import read_study

    print(plan(read_study(file, data_root), runs_dir))


@study_app.command("run")
def study_run(
    file: StudyFile,
    runs_dir: Annotated[Path, typer.Option(help="The study's folder is made in here.")] = Path(
        "runs"
    ),
    data_root: Annotated[
        str, typer.Option(help="Folder in PraNet's layout, instead of the study's.")
    ] = "",
    processes: Annotated[
        int, typer.Option(min=0, help="Cells at once; 0: one a GPU, or one for two processors.")
    ] = 0,
    dask: Annotated[
        str, typer.Option(help="Send the cells to the Dask scheduler at this address.")
    ] = "",
    retry: Annotated[bool, typer.Option("--retry", help="Run cells again that failed.")] = False,
) -> None:
    """Train and score what is not finished yet; started again, it goes on."""
    from kdas_book.study.run_study import run
    from kdas_book.study.spec import read_study

    print(run(read_study(file, data_root), runs_dir, processes, dask, retry))


@study_app.command("report")
def study_report(
    results: Annotated[
        Path, typer.Argument(help="A study's folder, or a <name>_study.csv that was kept.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for tables and figures.")] = None,
    claims: Annotated[Path | None, typer.Option(help="CSV of claims, for the ledger.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Write the study's results as four small files to here.")
    ] = None,
) -> None:
    """Tables, tests and figures of the trainings that have finished."""
    from tabulate import tabulate

    from kdas_book.figures.basics import use_style
    from kdas_book.study import report
    from kdas_book.study import results as kept

    if keep:
        for file in kept.keep(results, keep):
            print(file)
    found = kept.open_results(results)
    print("\n".join(filter(None, [report.summary(found), found.completeness])))
    print(tabulate(report.dice_table(found).reset_index(), "keys", showindex=False))
    if out:
        use_style()
        print(report.write_report(found, out, claims)[0])


@app.command(
    "book",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def book_(context: typer.Context) -> None:
    """Run the chapters and build the site; "kdas book --help" lists its options."""
    from kdas_book.build import book

    sys.argv = ["kdas book", *context.args]
    book.main()


def main(first: Sequence[str] = ()) -> None:
    """Run a command; what the user can mend is said in one sentence on standard error, exit code 2.

    Args:
        first: words in front of those of the command line, such as the name of a command.
    """
    try:
        app([*first, *sys.argv[1:]])
    except UserError as error:
        print(f"kdas: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
