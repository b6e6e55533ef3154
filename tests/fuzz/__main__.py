"""Run the fuzzer: ``python -m tests.fuzz``."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from functools import partial

from tests.fuzz.run import GROWTH, TARGETS, Tally, share, table


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Damage valid messages, records, checkpoints and configurations, and give them to the modules that "
        "read them. Exits with 1 if one does anything but accept them or refuse them with its own error.",
    )
    parser.add_argument("--frames", type=int, default=1_000_000, help="messages (default: %(default)s)")
    parser.add_argument("--files", type=int, default=100_000, help="records (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=10_000, help="checkpoints, and configurations, each")
    parser.add_argument("--seed", type=int, default=1, help="seed of all damage (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: %(default)s)")
    parser.add_argument("--target", choices=TARGETS, help="run this target only")
    parser.add_argument("--case", type=int, help="run this case of --target only")
    args = parser.parse_args()
    budget = {
        "wire": args.frames,
        "records": args.files,
        "checkpoints": args.documents,
        "configurations": args.documents,
    }
    if args.target:
        budget = {args.target: budget[args.target]}
    if args.case is not None:
        if not args.target:
            parser.error("--case needs --target")
        shares = [(args.target, range(args.case, args.case + 1))]
    else:
        # each slice runs in its own process, so that the memory of one target does not count for another
        shares = [
            (name, range(first, n, args.jobs)) for name, n in budget.items() for first in range(min(args.jobs, n))
        ]
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    tallies: dict[str, Tally] = {}
    with context.Pool(args.jobs, maxtasksperchild=1) as pool:
        for part in pool.imap_unordered(partial(share, seed=args.seed), shares, chunksize=1):
            tallies.setdefault(part.target, Tally(part.target)).add(part)
            print(f"{part.target}: {sum(part.outcomes.values())} cases, {part.failed} bugs", file=sys.stderr)
            for bug in part.bugs:  # at once, because the whole run takes long
                print(bug, file=sys.stderr, flush=True)
    print(table(tallies[name] for name in TARGETS if name in tallies))
    print(f"{time.perf_counter() - began:.0f} s with {args.jobs} processes, seed {args.seed}")
    grew = [tally.target for tally in tallies.values() if max(tally.growth, tally.peak) > GROWTH]
    if grew:
        print(f"memory grew: {', '.join(grew)}", file=sys.stderr)
    return 1 if grew or any(tally.failed for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
