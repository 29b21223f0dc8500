#!/usr/bin/env python3
"""Checks every #include of src/, include/ and apps/ against the table in ARCHITECTURE.md.

The table stands under the heading "Who may include whom" and has two columns:

    | folder | may include |
    |---|---|
    | `base` | `fovea/result.h`, `boost/json`, `fmt` |
    | `model` | `base`, `tensor`, `io` |

Names are in backticks; other words are for people. A name on the right is a folder of the table (all headers that lie
in it, but not in a deeper folder that has a row of its own), a single header, or the beginning of a third-party
header's path: `boost/json` covers <boost/json.hpp> and <boost/json/value.hpp>. A folder may always include itself, and
everything may include the standard library and the operating system.
"""

import argparse
import re
import sys
from pathlib import Path

HEADING = re.compile(r"^#+ .*who may include whom", re.IGNORECASE)
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".cpp", ".cu", ".mm", ".inc"}

# Headers with a dot or a slash that come with the compiler or the operating system. The C++ library's own have neither.
SYSTEM = re.compile(
    r"^(sys/.*|linux/.*|netinet/.*|arpa/.*|asm/.*"
    r"|(unistd|fcntl|malloc|signal|sched|pthread|dlfcn|dirent|errno|poll|termios|spawn|cpuid|immintrin|arm_neon"
    r"|arm_bf16|glob|stddef|stdint|stdio|stdlib|string|math|limits|setjmp)\.h)$"
)


def read_table(markdown):
    """The rows as {folder: set of names it may include}."""
    lines = iter(markdown.splitlines())
    for line in lines:
        if HEADING.match(line):
            break
    else:
        raise ValueError('there is no heading "Who may include whom"')
    rows = {}
    for line in lines:
        if line.startswith("#"):
            break
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|") or len(cells) != 2:
            continue
        for folder in re.findall(r"`([^`]+)`", cells[0]):
            if folder in rows:
                raise ValueError(f"`{folder}` has two rows")
            rows[folder] = set(re.findall(r"`([^`]+)`", cells[1]))
    if not rows:
        raise ValueError('under "Who may include whom" stands no table with rows like | `base` | `fmt` |')
    return rows


def folder_of(path, rows):
    """The longest row that `path` lies in, or None."""
    parts = path.split("/")
    for length in range(len(parts) - 1, 0, -1):
        folder = "/".join(parts[:length])
        if folder in rows:
            return folder
    return None


def tree_name(path):
    """A file's path as the table speaks of it: src/ is left out, include/ and apps/ are not."""
    return path[len("src/"):] if path.startswith("src/") else path


def header_name(header):
    return "include/" + header if header.startswith("fovea/") else header


def is_allowed(header, folder, rows, neighbours):
    if header in neighbours:
        return True
    if "/" not in header and ("." not in header or SYSTEM.match(header)) or SYSTEM.match(header):
        return True
    # Headers of src/ and of apps/ are both named from the folder that holds theirs.
    owner = folder_of(header_name(header), rows) or folder_of("apps/" + header, rows)
    allowed = rows[folder]
    if owner is not None:
        return owner == folder or owner in allowed or header in allowed
    return any(header == name or header.startswith((name + "/", name + ".")) for name in allowed)


def check(root):
    """Every breach as text."""
    rows = read_table((root / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    breaches = []
    files = sorted(
        path
        for top in ("src", "include", "apps")
        for path in (root / top).rglob("*")
        if path.suffix in SUFFIXES
    )
    for path in files:
        name = path.relative_to(root).as_posix()
        folder = folder_of(tree_name(name), rows)
        if folder is None:
            breaches.append(f"{name}: its folder has no row in ARCHITECTURE.md")
            continue
        neighbours = {sibling.name for sibling in path.parent.iterdir()}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if match and not is_allowed(match[2], folder, rows, neighbours if match[1] == '"' else ()):
                breaches.append(f"{name}:{number}: `{folder}` may not include {match[2]}")
    return breaches


def main():
    parser = argparse.ArgumentParser(description="Checks #include lines against the table in ARCHITECTURE.md")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    args = parser.parse_args()
    try:
        breaches = check(args.root)
    except (OSError, ValueError) as error:
        print(f"check_includes: {error}", file=sys.stderr)
        return 1
    for breach in breaches:
        print(breach, file=sys.stderr)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
