"""Run rounds of one contender of benchmarks.versions: python -m benchmarks.contender.

Prints where the package lies, then runs a round for each line of standard input and prints its
seconds. Imports only what every version of the package has.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax


def theirs(config: dict[str, Any]) -> Callable[[], Iterator[Any]]:
    from benchmarks.pipelines import sampler

    source = sampler(config)

    def begin() -> Iterator[Any]:
        source.reset()
        for batch in source:
            jax.block_until_ready((batch.images1, batch.images2))
            yield batch
        source.shutdown()

    return begin


def ours(config: dict[str, Any], **arguments: Any) -> Callable[[], Iterator[Any]]:
    from synthpix_torch import SynthPixDataset

    dataset = SynthPixDataset(config, **arguments)

    def begin() -> Iterator[Any]:
        with dataset:
            yield from dataset

    return begin


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("whose", choices=("synthpix", "ours"))
    parser.add_argument("batches", type=int, help="batches of a round")
    parser.add_argument("config", type=json.loads, help="configuration as JSON")
    options = parser.parse_args(arguments)
    import synthpix_torch

    begin = {"synthpix": theirs, "ours": ours}[options.whose](options.config)
    print(Path(synthpix_torch.__file__).parent.parent, flush=True)
    for _ in sys.stdin:
        source = begin()
        start = time.perf_counter()
        for _ in range(options.batches):
            next(source)
        print(time.perf_counter() - start, flush=True)
        # Ends the pass, so that nothing is prefetched during the rounds of others.
        del source


if __name__ == "__main__":
    main()
