"""``avrepro data list | fetch | verify | clips | load``."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from avrepro.commands import add_command


def list_sources(arguments: argparse.Namespace) -> None:
    from avrepro.fetch import in_words, whereabouts
    from avrepro.manifests import sources

    rows = [("name", "files", "size", "at hand", "checked by", "licence", "what")]
    for name, source in sources().items():
        checks = ", ".join(dict.fromkeys(file.check for file in source.files))
        licence = textwrap.shorten(source.licence, 36, placeholder=" ...")
        size = in_words(source.size)
        rows.append((name, str(len(source.files)), size, whereabouts(name), checks, licence, source.what))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fetch(arguments: argparse.Namespace) -> None:
    from avrepro.fetch import fetch_all
    from avrepro.manifests import source

    entry = source(arguments.name)
    paths = [str(path) for path in fetch_all(arguments.name, arguments.jobs).values()]
    print("\n".join(paths) if len(paths) <= 10 else f"{len(paths)} files in {os.path.commonpath(paths)}")
    for file in entry.files:
        if file.unverifiable:
            print(f"{file.name} could not be checked: {file.unverifiable}")
        elif file.sha256_prefix:
            print(f"{file.name}: checked by the {len(file.sha256_prefix)} digits of its SHA-256 that its name carries")
    print(f"Licence: {entry.licence}\nFrom: {entry.page}\nPlease cite:\n{entry.bibtex.strip()}")


def verify(arguments: argparse.Namespace) -> None:
    from avrepro.fetch import check
    from avrepro.manifests import sources

    known = sources()
    failed = False
    for name in arguments.names or known:
        checked = check(name)
        files = known[name].files
        if len(checked.missing) == len(files):
            print(f"{name}: not fetched" + (f"; avrepro data fetch {name}" if arguments.names else ""))
            failed |= bool(arguments.names)
            continue
        unverifiable = sum(bool(file.unverifiable) and file.name in checked.good for file in files)
        remark = f" ({unverifiable} without a hash to check)" if unverifiable else ""
        print(f"{name}: {len(checked.good)} of {len(files)} files are there and right{remark}")
        for missing in checked.missing:
            print(f"  missing: {missing}")
        for wrong in checked.corrupt.values():
            print(f"  corrupt: {wrong}")
        failed |= bool(checked.missing or checked.corrupt)
    if failed:
        sys.exit(1)


def clips(arguments: argparse.Namespace) -> None:
    from avrepro.corpora import audioset, dcase2017
    from avrepro.corpora.download import collect
    from avrepro.home import home

    corpus = {"dcase2017": dcase2017, "audioset": audioset}[arguments.corpus]
    listed = corpus.listed_in(arguments.split)
    folder = home() / "clips" / arguments.corpus
    choices = {name: getattr(arguments, name) for name in ("media", "jobs", "retry", "cookies")}
    table = collect(listed[: arguments.limit], folder, **choices)
    for status, count in table["status"].value_counts().items():
        print(f"{count:7d} {status}")
    print(f"{len(table):7d} clips; the row of each is in {folder}")


def load(arguments: argparse.Namespace) -> None:
    from avrepro import corpora

    loaded = corpora.load(arguments.corpus, profile=arguments.profile, clips=arguments.clips, labels=arguments.labels)
    for split in corpora.SPLITS:
        part = loaded.split(split)
        if part.clips or part.missing:
            print(f"{split}: {len(part.clips)} clips, {len(part.missing)} missing")
    for clip in loaded.missing:
        print(f"missing: {clip.id}: {clip.reason}")
    print(f"{len(loaded.classes)} classes: {', '.join(loaded.classes)}")


def add_data_command(commands: Any) -> None:
    """Add ``data`` and what is below it to the subparsers of ``avrepro``."""
    text = "What the project uses and does not hold: list, fetch and check it; get a corpus's clips; load a corpus."
    below = add_command(commands, "data", text, "avrepro data list").add_subparsers(required=True, metavar="COMMAND")

    text = "Every source: its files, where they are, how they are checked."
    add_command(below, "list", text, "avrepro data list", list_sources)

    text = "Fetch all files of a source: from AVREPRO_MIRROR, the cache, or the network, in this order."
    added = add_command(below, "fetch", text, "avrepro data fetch esc10", fetch)
    added.add_argument("name", help="a source, as avrepro data list names it")
    added.add_argument("--jobs", type=int, default=8, help="files at a time")

    text = "Name the files that are missing and corrupt; without names, of every source that is there."
    added = add_command(below, "verify", text, "avrepro data verify dcase2017_task4", verify)
    added.add_argument("names", nargs="*", metavar="NAME", help="a source; of a named one nothing may be missing")

    text = "Get the clips of an official list, by yt-dlp or from a folder; goes on where it was stopped."
    added = add_command(below, "clips", text, "avrepro data clips dcase2017 --split testing --jobs 8", clips)
    added.add_argument("corpus", choices=("dcase2017", "audioset"), help="dcase2017 | audioset")
    lists = "dcase2017: training | testing | evaluation; audioset: balanced | unbalanced | evaluation"
    added.add_argument("--split", required=True, metavar="LIST", help=lists)
    added.add_argument("--media", type=Path, metavar="DIR", help="a folder that has the clips; nothing is downloaded")
    added.add_argument("--limit", type=int, metavar="N", help="the first N clips of the list alone")
    added.add_argument("--jobs", type=int, default=4, help="clips at a time")
    added.add_argument("--retry", action="store_true", help="ask again for clips that were found to be unusable")
    added.add_argument("--cookies", type=Path, metavar="FILE", help="a browser's cookies (Netscape format) for yt-dlp")

    text = "Load a corpus (rendering it where it is not there yet), and list what is in it and what is missing."
    added = add_command(below, "load", text, "avrepro data load folder --clips DIR --labels labels.csv", load)
    added.add_argument("corpus", help="name of a corpus, such as demo; an unknown one is answered with all names")
    added.add_argument("--profile", choices=("ci", "demo"), default="demo", help="size of the demo world")
    added.add_argument("--clips", help="folder of clips")
    added.add_argument("--labels", help="their labels.csv")
