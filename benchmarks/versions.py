"""Compare this version with an older one and with synthpix: python -m benchmarks.versions.

The older version is a commit of this repository, 0.1.0 by default, in a temporary work tree. Each
contender runs in a process of its own; they take turns, and each round starts with nothing
prefetched. The configuration is that of benchmarks.throughput. Takes about five minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.pipelines import kinematic
from benchmarks.report import command_line, interleaved, ratio, spread, table, write

HERE = Path(__file__).parent.parent
FIRST_RELEASE = "b2ef5ad"
BATCHES, PAIRS = 32, 8


@contextmanager
def work_tree(commit: str) -> Iterator[Path]:
    """Check out a commit for as long as the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", tree, commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True)


@contextmanager
def contender(tree: Path, whose: str, config: dict[str, Any]) -> Iterator[Callable[[], float]]:
    """Start a contender; what is returned runs a round and measures it in seconds per pair."""
    # -P: modules beside the script would hide others of their names.
    script = [sys.executable, "-P", str(HERE / "benchmarks" / "contender.py")]
    process = subprocess.Popen(
        [*script, whose, str(BATCHES), json.dumps(config)],
        env=os.environ | {"PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def once() -> float:
        print("go", file=stdin, flush=True)
        seconds = float(stdout.readline())
        # Let reads that have started finish.
        time.sleep(0.5)
        return seconds / (BATCHES * PAIRS)

    try:
        if Path(stdout.readline().strip()).resolve() != tree.resolve():
            raise RuntimeError("A contender has imported another version than its own.")
        yield once
    finally:
        process.kill()
        process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line(__doc__)
    parser.add_argument("--old", default=FIRST_RELEASE, help="commit of the older version")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="in px")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = []
    with work_tree(options.old) as tree:
        for size in options.sizes:
            for repetitions in (1, BATCHES):
                own = {"batches_per_flow_batch": repetitions, "buffer_size": 2 * PAIRS}
                config = kinematic(size, **own, num_threads=2)
                with ExitStack() as stack:
                    measured = interleaved(
                        {
                            name: stack.enter_context(contender(where, whose, config))
                            for name, where, whose in (
                                ("synthpix", HERE, "synthpix"),
                                (options.old, tree, "ours"),
                                ("this version", HERE, "ours"),
                            )
                        },
                        rounds=options.rounds,
                    )
                for name, seconds in measured.items():
                    faster = [ratio(measured[of], seconds) for of in ("synthpix", options.old)]
                    times = (f"{each:.2f}" for each in faster)
                    rows.append([size, repetitions, name, spread(seconds), *times])
                    # In case the run is interrupted.
                    print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    head = ["image, px", "batches per flow batch", "what", "ms per pair", "times synthpix"]
    body = table([*head, f"times {options.old}"], rows)
    body += f"\n\nMedian and quartiles of {options.rounds} rounds of {BATCHES} batches of {PAIRS} "
    body += "pairs, each contender in a process of its own."
    write("versions", "Versions of this package and synthpix", body, folder=options.output)


if __name__ == "__main__":
    main()
