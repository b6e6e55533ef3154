"""``ecgmon explain``: the picture of one beat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.cli import arguments
from ecgmon.monitor.cli.offline import add_common_flags, load_scorer, model_object, progress_bar
from ecgmon.monitor.cli.picture_file import write_picture
from ecgmon.monitor.cli.printing import complain, finite

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.offline.explanation import Explanation


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Draw the beat nearest to a time: the strip around it, the beat enlarged, the generator's reconstruction of it, "
        "and where in the beat the two differ. " + arguments.RECORD_HELP
    )
    parser.epilog = "Exit status: 0 drawn, 1 no such record or beat, 2 wrong usage."
    parser.add_argument("record", metavar="RECORD", help="path or name of one record")
    parser.add_argument(
        "--at", type=arguments.time, required=True, metavar="TIME", help=f"time in the record: {arguments.TIME_HELP}"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="PNG to write (default: RECORD-beat-N.png in this folder)"
    )
    add_common_flags(parser)


def run(args: Namespace) -> int:
    """Draw a beat; return 1 if there is no such record or beat, or the picture cannot be written."""
    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.sources.finding import resolve

    try:
        refs = resolve([args.record])
    except SourceError as error:
        return complain(error)
    if len(refs) != 1:
        return complain(f"{args.record}: this folder has {len(refs)} records; name one of them")
    scorer = load_scorer(args)
    if scorer is None:
        return 1
    from ecgmon.models.inference.reconstruction import ScoringError
    from ecgmon.pipelines.offline.explanation import explain_beat
    from ecgmon.pipelines.segmentation.segmenter import SegmentationError
    from ecgmon.pipelines.sources.record import open_source

    try:
        source = open_source(refs[0], leads=args.leads)
        with progress_bar(source) as advance:
            explanation = explain_beat(source, scorer, args.at, progress=advance)
    except (SourceError, SegmentationError, ScoringError) as error:
        return complain(error)
    picture = args.out or Path(f"{explanation.stream.replace('/', '-')}-beat-{explanation.seq}.png")
    status = write_picture(picture, "--out", lambda path: _draw(path, explanation, args.threshold))
    if status == 0:
        _show(explanation, picture, args, scorer)
    return status


def _draw(path: Path, explanation: Explanation, threshold: float) -> None:
    from ecgmon.pipelines.offline.pictures import draw_strip

    draw_strip(path, *explanation.drawn, threshold=threshold)


def _show(explanation: Explanation, picture: Path, args: Namespace, scorer: Scorer) -> None:
    from ecgmon.pipelines.offline.pictures import meaning
    from ecgmon.pipelines.sources.record import format_time

    if args.json:
        answer = {
            "stream": explanation.stream,
            "lead": explanation.lead,
            "seq": explanation.seq,
            "seconds": explanation.seconds,
            "score": explanation.score,
            "anomalous": explanation.score >= args.threshold,
            "ax": explanation.ax,
            "largest_error_seconds": explanation.largest_error_seconds,
            "rr": explanation.rr,
            "rr_ratio": explanation.rr_ratio,
            "quality": explanation.quality.name.lower(),
            "threshold": args.threshold,
            "model": model_object(scorer),
            "picture": str(picture),
        }
        print(json.dumps(finite(answer)))
        return
    where = f"{explanation.stream}, beat {explanation.seq} at {format_time(explanation.seconds)}"
    print(f"{where}: score {explanation.score:.2f}. {meaning(explanation.score)}\n{picture}")
