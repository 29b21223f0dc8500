#!/usr/bin/env python3
"""Draws the table of many questions on an H100 as bars: bench/plot_table.py [TABLE.csv] [OUT.svg]

The table has a row for each model, length of answers and batch: requests a second in bf16 and fp8, and what Photon has
published; an empty field was not measured. Over each bar of ours stands its ratio to Photon's. The colours are read on white and on
black."""

import csv
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "bench/results/h100/throughput.csv"
OUT = ROOT / "assets/throughput.svg"

COLUMNS = (("photon", "Photon", "#8c959f"), ("bf16", "Fovea, bf16", "#2f81f7"), ("fp8", "Fovea, fp8", "#d29922"))
TEXT = "#768390"
PANEL_WIDTH, PANEL_HEIGHT, GAP = 400, 190, 20
LEFT, TOP, BOTTOM = 34, 30, 24  # of a panel: numbers, title, batches
LEGEND = 28
BAR = 25


def nice_top(value):
    """The least of 10, 20, 25, 50, 75, 100, ... above, and the step between its lines."""
    for step in (5, 10, 20, 25, 50, 100, 200):
        if value <= 5 * step:
            return step * -(-value // step), step
    raise SystemExit(f"no axis reaches {value}")


def text(x, y, words, size=11, anchor="middle"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{words}</text>'


def panel(x0, y0, title, rows):
    """One model and length of answers: a group of bars for each batch."""
    parts = [text(x0 + LEFT, y0 + 16, title, 13, "start")]
    top, step = nice_top(max(float(row[name]) for row in rows for name, _, _ in COLUMNS if row[name]))
    floor, height = y0 + PANEL_HEIGHT - BOTTOM, PANEL_HEIGHT - TOP - BOTTOM
    for line in range(0, int(top) + 1, step):
        y = floor - height * line / top
        parts.append(f'<path d="M{x0 + LEFT} {y:.1f}H{x0 + PANEL_WIDTH}" stroke="{TEXT}" stroke-opacity="0.25"/>')
        parts.append(text(x0 + LEFT - 5, y + 4, line, 10, "end"))
    width = (PANEL_WIDTH - LEFT) / len(rows)
    for group, row in enumerate(rows):
        middle = x0 + LEFT + width * (group + 0.5)
        parts.append(text(middle, floor + 15, f'{row["batch"]} at once'))
        for place, (name, _, colour) in enumerate(COLUMNS):
            if not row[name]:
                continue
            value = float(row[name])
            bar_height, x = height * value / top, middle + BAR * (place - len(COLUMNS) / 2)
            parts.append(f'<rect x="{x + 1:.1f}" y="{floor - bar_height:.1f}" width="{BAR - 2}" '
                         f'height="{bar_height:.1f}" fill="{colour}"/>')
            if name != "photon":
                ratio = f"{value / float(row['photon']):.2f}"
                parts.append(text(x + BAR / 2, floor - bar_height - 3, ratio, 9.5))
    return parts


def main():
    table = Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else OUT
    with open(table, newline="", encoding="utf-8") as file:
        panels = [(key, list(rows)) for key, rows in groupby(csv.DictReader(file), lambda r: (r["model"], r["mode"]))]
    parts = []
    for i, ((model, mode), rows) in enumerate(panels):
        x, y = i % 2 * (PANEL_WIDTH + GAP), LEGEND + i // 2 * (PANEL_HEIGHT + GAP)
        parts += panel(x, y, f"{model}, answers of {mode}: requests/s", rows)
    for i, (_, words, colour) in enumerate(COLUMNS):
        x = LEFT + 120 * i
        parts.append(f'<rect x="{x}" y="6" width="12" height="12" fill="{colour}"/>')
        parts.append(text(x + 17, 16, words, 12, "start"))
    width = 2 * PANEL_WIDTH + GAP
    height = LEGEND + -(-len(panels) // 2) * (PANEL_HEIGHT + GAP) - GAP
    body = "\n".join(parts)
    out.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                   f'font-family="system-ui, sans-serif" fill="{TEXT}">\n{body}\n</svg>\n', encoding="utf-8")


if __name__ == "__main__":
    main()
