"""The table of values in the chart's README, made from values.yaml: the same keys, defaults and words.

    values.py            whether the README has the table
    values.py --write    puts it there
"""

import re
import sys

from common import CHART, Problems

BEGIN, END = "<!-- values -->", "<!-- end of values -->"
LINE = re.compile(r"^( *)([A-Za-z][\w.-]*):(?: (.*))?$")


def rows() -> list[tuple[str, str, str]]:
    """Key, default and comment of every line of values.yaml that has a key."""
    found: list[tuple[str, str, str]] = []
    parents: list[str] = []
    comment: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.removeprefix("#").strip())
        elif not text:
            comment = []
        else:
            indent, key, value = LINE.match(line).groups()
            parents = [*parents[:len(indent) // 2], key]
            if value or comment:
                found.append((".".join(parents), value or "", " ".join(comment)))
            comment = []
    return found


def table() -> str:
    lines = ["| value | default | meaning |", "| --- | --- | --- |"]
    for key, default, meaning in rows():
        cell = f"`{default}`" if default else ""
        lines.append(f"| `{key}` | {cell} | {meaning} |".replace("|  |", "| |"))
    return "\n".join(lines)


def main() -> None:
    path = CHART / "README.md"
    before, rest = path.read_text().split(BEGIN)
    written, after = rest.split(END)
    if sys.argv[1:] == ["--write"]:
        path.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")
        return
    problems = Problems()
    problems.check(len(rows()) > 60, f"only {len(rows())} values found")
    problems.check(written.strip() == table(), "the README's table is another; run tests/deploy/values.py --write")
    problems.end(f"{len(rows())} values in the README")


main()
