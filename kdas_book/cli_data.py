"""The commands ``kdas data`` and ``kdas weights``."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from kdas_core import UserError

data_app = typer.Typer(no_args_is_help=True, help="Fetch, check, import or make data.")
weights_app = typer.Typer(no_args_is_help=True, help="Fetch released weights, or check a file.")

DATA = Path("data")
File = Path | None
Names = list[str] | None
Role = Annotated[str, Option(help="student or teacher, where the file does not say it")]
Backbone = Annotated[str, Option(help="timm backbone, where the file does not say it")]
Yes = Annotated[bool, Option("--yes", help="Agree to the terms of use without being asked.")]


def listed(text: str) -> list[str]:
    """The parts between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def agree(texts: list[str], yes: bool) -> None:
    """Show terms of use and ask for consent, before anything is fetched."""
    print(*texts, sep="\n")
    if texts and not yes and not sys.stdin.isatty():
        raise UserError("Nothing was fetched; if you agree to the terms above, add --yes.")
    if texts and not yes and not typer.confirm("Fetch this, on these terms?"):
        raise UserError("Nothing was fetched.")


@data_app.command("get")
def data_get(
    names: Annotated[Names, Argument(help="train, test, kvasir-seg; else train and test")] = None,
    out: Annotated[Path, Option(help="The data folder.")] = DATA,
    yes: Yes = False,
    manifest: Annotated[File, Option(help="YAML with mirrors, or sets of your own.")] = None,
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
    out: Annotated[Path, Option(help="Folder to make.")],
    train: Annotated[int, Option(help="Training pairs.")] = 200,
    test: Annotated[int, Option(help="Pairs in each of the five test sets.")] = 40,
    seed: int = 0,
) -> None:
    """Write synthetic polyps in PraNet's layout."""
    from kdas_book.data.synthetic import make_dataset

    made = make_dataset(out, train=train, test=test, seed=seed)
    print(f"{made}: {train} training pairs, 5 test sets of {test}")


@data_app.command("styles")
def data_styles(
    out: Annotated[Path, Option(help="Picture to write, .jpg or .png.")] = Path("styles.jpg"),
    columns: Annotated[int, Option(min=1, help="Pictures of each style.")] = 6,
    seed: Annotated[int, Option(help="Scene of the first column.")] = 0,
) -> None:
    """Write a sheet of synthetic pictures, a row for each of the five styles."""
    from kdas_book.data.synthetic import write_sheet

    print(f"{write_sheet(out, columns, seed)}: {columns} pictures of each of the five styles")


@data_app.command("check")
def data_check(
    root: Annotated[Path, Argument(help="Training and test sets, or images and masks.")] = DATA,
    figure: Annotated[File, Option(help="Draw the most similar pictures into this file.")] = None,
    groups: Annotated[File, Option(help="Write the known videos, for kdas compare.")] = None,
) -> None:
    """Open and compare all pictures. Exit code 1: something is wrong that training or evaluation
    refuses, or a test picture is a training picture byte for byte. Findings, such as repeats or
    shared videos, leave it at 0: the public sets have them as they come.
    """
    from kdas_book.data.check import check_data
    from kdas_book.data.videos import write_groups

    check = check_data(root)
    print(check)
    if groups:
        write_groups(check.videos, groups)
    if figure:
        from kdas_book.figures import ch01_data, display

        display.use_style()
        display.save(ch01_data.near_duplicates(check.closest), figure)
    if check.problems:
        raise typer.Exit(1)


@data_app.command("import")
def data_import(
    context: typer.Context,
    source: Annotated[Path, Argument(help="A COCO .json, or a folder. It is only read.")],
    layout: Annotated[str, Option("--as", help="coco, labelme, voc, yolo or masks (mask files)")],
    out: Annotated[Path, Option(help="Folder to make, or to add sets to.")],
    images: Annotated[File, Option(help="Folder of the images, if elsewhere.")] = None,
    masks: Annotated[File, Option(help="Folder of the mask files, if elsewhere.")] = None,
    mask_suffix: Annotated[str, Option(help="What masks are called besides: _mask")] = "",
    labels: Annotated[Names, Option("--label", help="Category that is polyp; repeatable.")] = None,
    values: Annotated[str, Option(help="Values of mask files that are polyp: 1,3")] = "",
    colours: Annotated[str, Option(help="The same as colours: ff0000,00ff00")] = "",
    box: Annotated[str | None, Option(help="Draw mere boxes as ellipse or rectangle.")] = None,
    negatives: Annotated[str | None, Option(help="keep or drop frames without a polyp")] = None,
    split: Annotated[float, Option(help="Share that becomes the test set; 1: all.")] = 0.0,
    test_name: Annotated[str, Option(help="The test set's folder in TestDataset.")] = "Own",
    group_by: Annotated[str, Option(help="Regex on folder/stem: its video or patient.")] = "",
    groups: Annotated[str, Option(help="CSV name,group instead.")] = "",
    seed: Annotated[int, Option(help="Of the division.")] = 0,
    prefix: Annotated[bool, Option("--prefix", help="Folder before name: a/1 is a_1.")] = False,
    exif: Annotated[str | None, Option(help="turned or stored, where sizes do not tell")] = None,
    skip: Annotated[bool, Option("--skip", help="Leave out what is faulty; list it.")] = False,
) -> None:
    """Bring COCO, Labelme, boxes or mask files into PraNet's layout."""
    from kdas_book.data.importing import import_data

    try:
        numbers = [int(value) for value in listed(values)]
    except ValueError:
        raise UserError(f'--values "{values}" are no whole numbers; write 1,3.') from None
    # The options are import_data's own keywords.
    lists = {"labels": labels or (), "values": numbers, "colours": listed(colours)}
    print(import_data(**context.params | lists))


@weights_app.command("get")
def weights_get(
    names: Annotated[Names, Argument(help="polyp_pvt, imagenet; by default both")] = None,
    out: Annotated[Path, Option(help="The teacher's folder.")] = Path("teacher_weights"),
    yes: Yes = False,
    source: Annotated[str, Option("--from", help="File or address to take polyp_pvt from.")] = "",
) -> None:
    """Fetch released weights; nothing is put in place before its network has loaded it."""
    from kdas_book.data import released_weights as released

    chosen = released.choose(names or (["polyp_pvt"] if source else ()))
    if source and chosen != ["polyp_pvt"]:
        raise UserError('--from is for polyp_pvt alone: "kdas weights get polyp_pvt --from FILE".')
    missing = [name for name in chosen if name != "polyp_pvt" or not released.is_there(out)]
    agree([f"{name}: {released.NAMES[name]}" for name in missing], yes)
    if "polyp_pvt" in chosen:
        print(released.get_polyp_pvt(out, source))
    if "imagenet" in chosen:
        print("\n".join(released.get_imagenet()))


@weights_app.command("check")
def weights_check(
    file: Annotated[Path, Argument(help=".pth or .safetensors")],
    role: Role = "",
    backbone: Backbone = "",
) -> None:
    """Say whether a file of weights is whole, and which network it is of."""
    from kdas_core.models import BACKBONE_OF_ROLE, count_parameters, open_network
    from kdas_core.models.weights import metadata_of

    net, size = open_network(file, role, backbone)
    own = "teacher" if net.backbone.name == BACKBONE_OF_ROLE["teacher"] else "student"
    what = role or metadata_of(file).get("role", own)
    about = f"{count_parameters(net):,} parameters, {net.backbone.name}, for {size} px"
    print(f"{file} fits the {what}: {about}")
