"""`make bench`: run every benchmark, then compare results with targets.

`make bench STORE=1` also writes book/results/bench.json, and the page and
figure made from it.
"""

from __future__ import annotations

import math
import sys
import time
from datetime import date

import torch

from benchmarks import (
    cold_start,
    decoder,
    epoch,
    memory,
    photo,
    preparation,
    scoring,
    search,
)
from captionlib.io.files import write_json
from captionlib.io.images import usable_cores
from captionlib.io.versions import versions


def processor() -> str:
    """The name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as about:
            lines = [line for line in about if line.startswith("model name")]
        return lines[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        return "unknown"


def main(argv: list[str]) -> int:
    if argv not in ([], ["--store"]):
        print(__doc__)
        return 2
    started = time.perf_counter()
    rows = []
    for benchmark in (
        preparation,
        decoder,
        epoch,
        memory,
        search,
        scoring,
        photo,
        cold_start,
    ):
        rows += [row for row in benchmark.main() if not math.isnan(row.value)]
        print(flush=True)
    result = {
        "date": date.today().isoformat(),
        "machine": processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "seconds": round(time.perf_counter() - started),
        "rows": [row._asdict() | {"met": row.met} for row in rows],
    }
    print("\n".join(bench.table(result)))
    if argv:
        write_json(bench.STORED, result, indent=1)
        return results.main([])
    return 0


if __name__ == "__main__":  # processes that measure memory import this module
    from tools import bench, results

    sys.exit(main(sys.argv[1:]))
