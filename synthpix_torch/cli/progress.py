"""Progress of a command on stderr: a bar in a terminal, else a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(title: str, total: float, unit: str) -> Iterator[Callable[[float], object]]:
    """Show how much of `total` is done; call the returned function with each step.

    Without a terminal or without tqdm it is one line with the title.
    """
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            pass
        else:
            form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total:.0f} {unit}"
            with tqdm(total=total, desc=title, unit=unit, leave=False, bar_format=form) as bar:
                yield bar.update
            return
    print(f"{title}: {total:g} {unit}", file=sys.stderr, flush=True)
    yield lambda step: None
