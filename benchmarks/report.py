"""Render the record of a benchmark as Markdown, JSON and a chart."""

import io
from pathlib import Path
from typing import Any

from parity.run import files


def write(record: dict[str, Any], stem: Path) -> tuple[Path, Path]:
    """Write a run's record as JSON and its ratios as an SVG; return both paths.

    Args:
        record: record of the run.
        stem: path without its suffix.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    json_path, chart = stem.with_suffix(".json"), stem.with_suffix(".svg")
    files.write_json(json_path, record)
    files.write_text(chart, svg(record))
    return json_path, chart


def table(record: dict[str, Any]) -> str:
    """Return a run as Markdown, with a row for each work and peer."""
    lines = [
        f"{record['benchmark']} on {record['machine']['device']}, {record['model']['name']}, "
        f"matrix product {record['matmul'] / 1e12:.3g} TFLOP/s in {record['model']['dtype']}",
        "",
        "| work | peer | times faster: median (min–max) | tokens padded → flat → packed "
        "| our TFLOP/s | of the matrix product |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_row(work, peer) for work in record["works"] for peer in work["ratios"]]
    eight = [work | work["rounded"] for work in record["works"] if "rounded" in work]
    for work in eight:
        rounded = work | {"work": f"{work['work']} in 8-bit floats"}
        lines += [_row(rounded, peer) for peer in work["ratios"]]
    lines += ["", ", ".join(f"{name} {text}" for name, text in record["versions"].items())]
    return "\n".join(lines)


def svg(record: dict[str, Any]) -> str:
    """Return a chart of the ratios, with their range over the runs, as SVG.

    The same record gives the same bytes.
    """
    # Imported here: the import takes a second that a failed run does not need.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    bars = [
        (f"{work['work']}\n{peer}", ratio)
        for work in record["works"]
        for peer, ratio in work["ratios"].items()
    ]
    with mpl.rc_context({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 1.2 + 0.55 * max(1, len(bars))), layout="constrained")
        axes = figure.add_subplot()
        middle = [ratio["median"] for _, ratio in bars]
        low = [ratio["median"] - ratio["min"] for _, ratio in bars]
        high = [ratio["max"] - ratio["median"] for _, ratio in bars]
        drawn = axes.barh(range(len(bars)), middle, xerr=[low, high], color="#4477aa")
        axes.bar_label(drawn, [f" {value:.1f}×" for value in middle])
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.margins(x=0.12)
        axes.set_xlabel("times faster than the peer (median, bars from smallest to largest)")
        axes.set_title(f"{record['benchmark']}: {record['model']['name']}", loc="left")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _row(work: dict[str, Any], peer: str) -> str:
    ratio, tokens = work["ratios"][peer], work["tokens"]
    spread = f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"
    line = work if "model_flops" in work else _ours(work, peer)
    first = tokens.get("of_first_batch", tokens)
    padded = tokens.get("padded", {}).get(peer) or _padded(first, peer)
    counts = f"{padded:,} → {first['flat']:,} → {first['packed']:,}"
    speed = f"{line['model_flops'] / 1e12:.3g} | {line['of_matmul']:.0%}"
    return f"| {work['work']} | {peer} | {spread} | {counts} | {speed} |"


def _ours(work: dict[str, Any], pair: str) -> dict[str, Any]:
    """Return our line of a training pair, with the same checkpointing."""
    checkpointing = pair.rpartition("/")[2].endswith("(checkpointing)")
    (result,) = (
        line
        for line in work["lines"]
        if "model_flops" in line and line["checkpointing"] == checkpointing
    )
    return dict(result)


def _padded(counts: dict[str, Any], pair: str) -> int:
    name = pair.split(" ")[0]
    return int(counts[f"padded {name}"])
