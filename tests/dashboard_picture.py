"""``python -m tests.dashboard_picture RECORD... --out FILE.png``: plot the dashboard's queries to a real Prometheus.

Starts a daemon that replays the records, a Prometheus that scrapes it every second, waits, and plots what each panel would show.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("agg")
from matplotlib import dates
from matplotlib import pyplot as plt

CHECKOUT = Path(__file__).resolve().parents[1]
DASHBOARD = json.loads((CHECKOUT / "systemd/grafana/ecgmon.json").read_text())
PORTS = (9464, 19090)
STEP = 5  # seconds between two points
UNITS = {"percentunit": "share", "s": "s", "ops": "1/s", "bytes": "bytes", "short": ""}


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("records", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--speed", type=float, default=10.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ecgmon-t-") as temporary:
        folder = Path(temporary)
        sources = "".join(f"[[source]]\nrecord = {json.dumps(name)}\nspeed = {args.speed}\n" for name in args.records)
        (folder / "c.toml").write_text(
            f'[runtime]\ndir = "{folder}/r"\n[store]\npath = "{folder}/s"\n[exporter]\nport = {PORTS[0]}\n{sources}'
        )
        text = (CHECKOUT / "systemd/prometheus/prometheus.yml").read_text().replace(": 5s", ": 1s")
        (folder / "prometheus.yml").write_text(
            text.replace("ecgmon.rules.yml", f"{CHECKOUT}/systemd/prometheus/ecgmon.rules.yml")
        )
        with (folder / "log").open("wb") as log:
            started = [
                subprocess.Popen([sys.executable, "-m", "ecgmon", "run", "--config", folder / "c.toml"], stderr=log, cwd=CHECKOUT),
                subprocess.Popen(
                    ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/t",
                     f"--web.listen-address=127.0.0.1:{PORTS[1]}"], stderr=log, stdout=log,
                ),
            ]  # fmt: skip
        try:
            time.sleep(args.seconds)
            plot(args.out, Path(args.records[0]).name, time.time() - args.seconds + 30)
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(60)
    return 0


def ask(expression: str, stream: str, start: float) -> list[dict[str, Any]]:
    """Run a query from ``start`` until now, as Grafana would send it."""
    for name, value in {"$__rate_interval": "20s", "$instance": ".+", "$stream": stream}.items():
        expression = expression.replace(name, value)
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": time.time(), "step": STEP})
    with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[1]}/api/v1/query_range?{query}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def plot(out: Path, stream: str, start: float) -> None:
    """Plot every panel that shows a time series or a heat map."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] in ("timeseries", "heatmap")]
    figure, axes = plt.subplots(-(-len(panels) // 3), 3, figsize=(16, 21), constrained_layout=True)
    for panel, ax in zip(panels, axes.flat, strict=False):
        own = any("$stream" in target["expr"] for target in panel["targets"])
        ax.set_title(panel["title"] + (f" ({stream})" if own else ""), fontsize=10, loc="left", weight="bold")
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_ylabel(UNITS[panel["fieldConfig"]["defaults"].get("unit", "short")], fontsize=8)
        if panel["type"] == "heatmap":
            heat(ax, ask(panel["targets"][0]["expr"], stream, start), stream)
        else:
            for target in panel["targets"]:
                for one in ask(target["expr"], stream, start):
                    when = [datetime.fromtimestamp(at, UTC) for at, _ in one["values"]]
                    legend = target["legendFormat"]
                    for label, value in one["metric"].items():
                        legend = legend.replace("{{" + label + "}}", value)
                    ax.plot(when, [float(value) for _, value in one["values"]], lw=1, label=legend)
            handles, _ = ax.get_legend_handles_labels()
            if 1 < len(handles) < 12:
                ax.legend(fontsize=6, frameon=False, ncols=2, loc="best")
            ax.set_ylim(bottom=0)
        ax.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
        ax.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=5))
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    figure.savefig(out, dpi=70)


def heat(ax: Any, found: list[dict[str, Any]], stream: str) -> None:
    """Plot a histogram over time, a row for each bucket."""
    found.sort(key=lambda one: float(one["metric"]["le"]))
    bounds = [one["metric"]["le"] for one in found]
    counts = np.array([[float(value) for _, value in one["values"]] for one in found])
    rows = np.diff(counts, axis=0, prepend=0)
    when = dates.date2num([datetime.fromtimestamp(at, UTC) for at, _ in found[0]["values"]])
    ax.imshow(rows, origin="lower", aspect="auto", cmap="Oranges", extent=(when[0], when[-1], 0, len(bounds)))
    ax.set_yticks(np.arange(len(bounds)) + 1, bounds)
    ax.set_ylabel(f"score of {stream}, up to", fontsize=8)
    ax.xaxis_date()


if __name__ == "__main__":
    sys.exit(main())
