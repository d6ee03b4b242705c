"""`bin/bench`: what a session, a message and an idle peer cost, beside go-ethereum's p2p server under the same load.

CPU is user and system time of all threads of the processes, from schedstat. Server and load have a core each. Both sides
are measured by turns; a row shows the median of its repeats.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
from pathlib import Path

from rlpx.protocol.native import NATIVE
from tests.bench.reckoning import Row, read_rows, table, write_rows
from tests.bench.rows import GROUPS, LONG
from tests.bench.sides import BenchError, profile_folder
from tests.bench.table import show
from tests.system.harness import working_folder

REPEATS = 5


def main() -> None:
    """Measure and print."""
    groups = {**GROUPS, **LONG}
    arguments = argparse.ArgumentParser(prog="bench", description=__doc__)
    arguments.add_argument("--repeats", type=int, default=REPEATS, help=f"of each row, default {REPEATS}")
    arguments.add_argument("--only", nargs="+", metavar="ROW", choices=groups, help=f"of {', '.join(groups)}")
    arguments.add_argument("--long", action="store_true", help=f"also {', '.join(LONG)}, which takes ten minutes")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments.add_argument("--compare", type=Path, metavar="FILE", help="show the ratio to earlier figures")
    arguments.add_argument(
        "--profile", metavar="ROW", choices=groups, help="measure only that, and show what takes the time"
    )
    given = arguments.parse_args()
    earlier = read_rows(given.compare) if given.compare else []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows: list[Row] = []
    failed = False
    chosen = [given.profile] if given.profile else given.only or (groups if given.long else GROUPS)
    with working_folder() as folder:
        profile_folder.set(folder if given.profile else None)
        for name in chosen:
            try:
                rows += groups[name](given.repeats)
            except BenchError as error:
                failed = True
                sys.stderr.write(f"{name}: {error}\n")
    sys.stdout.write(show(table(rows, earlier)))
    machine = {
        "python": platform.python_version(),
        # The build of Python matters: one without profile-guided optimization takes a tenth to a fifth longer.
        "of": sys.base_prefix,
        "compiled": NATIVE is not None,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
    }
    sys.stdout.write(f"\n{machine}\n")
    if given.json:
        write_rows(given.json, machine, rows)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
