"""Every command line and every configuration below `deploy/`, read by the binary of this workspace.

`--help` behind the arguments ends the program once all before it are understood, so nothing is started.
"""

import os
import re
import tempfile
from pathlib import Path

import units
from common import EVERYTHING, LITTLE, Problems, identity, merged, pod_of, render, run

BINARY = os.environ["TERRACE_BINARY"]
# A name that no sidecar has.
IMAGE = {"image": {"repository": "example.com/terrace", "tag": "test"}}


def takes(where: str, arguments: list[str], problems: Problems) -> None:
    done = run([BINARY, *arguments, "--help"])
    problems.check(done.returncode == 0, f"{where}: {' '.join(arguments)}: {done.stderr.strip()}")


def pods(problems: Problems) -> int:
    seen = set()
    for values in ({}, EVERYTHING, LITTLE):
        for one in render(merged(values, IMAGE)):
            for container in (pod_of(one) or {}).get("containers", []):
                if container["image"] != "example.com/terrace:test":
                    continue
                arguments = [re.sub(r"\$\((\w+)\)", "name", word) for word in container["args"]]
                named = {variable["name"] for variable in container.get("env", [])}
                used = {name for word in container["args"] for name in re.findall(r"\$\((\w+)\)", word)}
                problems.check(used <= named, f"{identity(one)}: {used - named} has no value")
                if tuple(arguments) not in seen:
                    seen.add(tuple(arguments))
                    takes(identity(one), arguments, problems)
    return len(seen)


def services(problems: Problems) -> int:
    found = [command for path in sorted(units.UNITS.glob("*.service")) for command in units.commands(path)]
    for program, *arguments in found:
        problems.check(program == "/usr/bin/terrace", f"{program} is not ours")
        takes("unit", arguments, problems)
    return len(found)


def configurations(problems: Problems) -> int:
    """A catalog that cannot have its directory reads its configuration first."""
    count = 0
    for values in ({}, EVERYTHING, LITTLE):
        for one in render(values):
            text = one.get("data", {}).get("config.toml") if one["kind"] == "ConfigMap" else None
            if text is None:
                continue
            count += 1
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch, "config.toml")
                for content, good in ((text, True), (f"{text}\n[unknown]\n", False)):
                    file.write_text(content)
                    done = run([BINARY, "--config", str(file), "catalog", "serve", "--data", "/dev/null/x", "--listen", "127.0.0.1:0"])
                    refused = "read the configuration" in done.stderr
                    problems.check(done.returncode == 1 and refused != good, f"{identity(one)}: {done.stderr.strip()}\n{content}")
    return count


problems = Problems()
takes_nothing = run([BINARY, "keeper", "--no-such-flag", "--help"])
problems.check(takes_nothing.returncode == 2, "the binary takes every flag before --help")
commands, unit_commands, files = pods(problems), services(problems), configurations(problems)
problems.check(commands >= 8 and unit_commands >= 4 and files >= 4, f"only {commands}, {unit_commands} and {files} found")
problems.end(f"{commands} commands of pods, {unit_commands} of units, {files} configurations")
