"""Search every interleaving of one message for a broken promise.

`make model` or `python -m tests.model [word …]`: a word picks the searches whose names contain it.
What is found is told as a story, a line for each step; then the command fails.
"""

import os
import sys
from collections.abc import Sequence
from multiprocessing import Pool

from tests.model.configurations import all_scopes
from tests.model.search import Found, search


def told(found: Found) -> str:
    """Return what a search came to, in words."""
    scope = found.scope
    name = f"{scope.name}, {scope.policy}"
    counts = f"{found.worlds:9,} worlds {found.moves:11,} moves"
    lines = [f"{name:33} {counts} {found.seconds:7.1f} s"]
    for violation in found.violations:
        lines += ["", f"  VIOLATION: {violation.what}"]
        lines += [f"    {n:2}. {line}" for n, line in enumerate(violation.story, 1)]
    return "\n".join([*lines, ""] if found.violations else lines)


def main(words: Sequence[str]) -> int:
    """Make the searches; 1 if any of them finds something."""
    names = [f"{scope.name}, {scope.policy}" for scope in all_scopes()]
    chosen = [
        scope
        for scope, name in zip(all_scopes(), names, strict=True)
        if not words or any(word in name for word in words)
    ]
    everything: list[Found] = []
    with Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        for found in pool.imap_unordered(search, chosen):
            print(told(found), flush=True)
            everything.append(found)
    worlds, moves = sum(f.worlds for f in everything), sum(f.moves for f in everything)
    violations = sum(len(f.violations) for f in everything)
    print(
        f"{len(everything)} searches, {worlds:,} worlds, {moves:,} moves: {violations} violations"
    )
    return 1 if violations or not everything else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
