"""The tables and plots of a comparison, from what its parts left behind.

    report.py RESULTS PAGE PART...

Prints a table for each part, and writes it into PAGE between the markers of its name, unless PAGE is empty; plots go into
`plots/` beside the page. Fails when a result is missing or makes no sense, and with STRICT=1 when a mark is missed.

Owns: the page, the marks. Does not own: what is measured (part.sh), what each part's table shows (tables.py).
"""

import os
import pathlib
import platform
import re
import sys
import time

import tables


def machine():
    kernel = platform.release().split("-")[0]
    return f"{platform.machine()}, {os.cpu_count()} cores, Linux {kernel}"


def heading(part, name):
    """Where, when and with what: a table without it cannot be compared with another."""
    day = time.strftime("%-d %B %Y", time.localtime(part.when))
    versions = ", ".join(f"{what} {version}" for what, version in part.versions.items())
    rounds, seconds = int(part.settings["rounds"]), part.settings["seconds"]
    told = f"{rounds} alternating rounds, medians" if part.has_rounds and rounds > 1 else "one run"
    command = f"PART={name} ROUNDS={rounds} SECONDS_EACH={seconds} make compare"
    text = f"`{command}`, {day}: {machine()}; {versions}; {told}."
    return text + "".join(f" Left out: {line}." for line in part.skipped)


def write_between(page, name, text):
    """Replaces what stands between the markers of `name`."""
    begin, end = f"<!-- compare:begin {name} -->", f"<!-- compare:end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        sys.exit(f"the page has no one place for {name}: {begin} ... {end}")
    before, rest = page.split(begin)
    return before + begin + "\n" + text.strip() + "\n" + end + rest.split(end, 1)[1]


def between(page, name):
    found = re.search(rf"<!-- compare:begin {name} -->\n(.*?)<!-- compare:end {name} -->", page, re.S)
    return found.group(1) if found else ""


def mark_rows(marks):
    """A row of the marks' table for each mark that was measured, by its first cell."""
    return {mark.what: f"| {mark.what} | {mark.shown} | {mark.limit} | {mark.verdict} | {mark.goal} |" for mark in marks}


def marks_table(old, rows):
    """The marks in their order: those of this run, and what the page says of the others."""
    for line in old.splitlines():
        cells = line.split(" | ")
        if line.startswith("| ") and len(cells) == 5:
            rows.setdefault(cells[0].removeprefix("| "), line)
    lines = [rows[what] for what, *_ in tables.MARKS.values() if what in rows]
    return "\n".join(["| | measured | mark | | going to |", "|---|---|---|---|---|", *lines])


def main():
    results, page_path, names = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    page = pathlib.Path(page_path).read_text() if page_path else ""
    marks, failed = [], []
    for name in names:
        part = tables.Part(results / name)
        try:
            table = tables.PARTS[name](part)
        except (KeyError, FileNotFoundError, ValueError) as error:
            failed.append(f"PART={name}: {error!r}")
            continue
        if table is None:
            print(f"\n{name}: left out: {'; '.join(part.skipped)}")
            continue
        text = f"{heading(part, name)}\n\n{table.text}"
        marks += table.marks
        print(f"\n## {name}\n\n{text}")
        if page:
            for plot, svg in table.plots.items():
                folder = pathlib.Path(page_path).parent / "plots"
                folder.mkdir(exist_ok=True)
                (folder / f"{plot}.svg").write_text(svg)
                text += f"\n\n![{plot}](plots/{plot}.svg)"
            page = write_between(page, name, text)
    if marks:
        table = marks_table(between(page, "marks"), mark_rows(marks))
        print(f"\n## marks\n\n{table}")
        page = write_between(page, "marks", table) if page else page
    if page:
        pathlib.Path(page_path).write_text(page)
    missed = [mark for mark in marks if not mark.is_met]
    for mark in missed:
        print(f"missed: {mark.what}: {mark.shown}, the mark is {mark.limit}: {mark.verdict}", file=sys.stderr)
    if failed:
        sys.exit("no table of " + "; ".join(failed))
    if missed and os.environ.get("STRICT") == "1":
        sys.exit(1)


main()
