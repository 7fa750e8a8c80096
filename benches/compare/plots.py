"""Small SVG plots, readable on light and dark pages: grouped bars, and lines over a logarithmic axis.

Owns: how a plot looks. Does not own: what is plotted (report.py).
"""

import math
from html import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 64, 52
# Told apart without colour vision too, on white and on near-black.
COLOURS = [("#1f6fb4", "#6db3f2"), ("#c2570c", "#f2a65e"), ("#2d7f3f", "#79c98a"), ("#7d4aa6", "#c39be6")]


def style():
    light = "".join(f".s{n}{{fill:{a};stroke:{a}}}" for n, (a, _) in enumerate(COLOURS))
    dark = "".join(f".s{n}{{fill:{b};stroke:{b}}}" for n, (_, b) in enumerate(COLOURS))
    return (
        "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.h{font-weight:600;font-size:15px}"
        ".b{fill:#ffffff}.g{stroke:#d0d7de}.l{fill:none;stroke-width:2.5}" + light + ".l{fill:none}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.b{fill:#0d1117}.g{stroke:#30363d}" + dark + ".l{fill:none}}</style>"
    )


def short(value):
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def steps(most):
    """Round numbers from 0 to at least `most`, five or so."""
    size = 10 ** math.floor(math.log10(most or 1))
    step = next(size * f for f in (0.2, 0.25, 0.5, 1, 2) if size * f * 5 >= most)
    return [round(step * n, 9) for n in range(math.ceil(most / step - 1e-9) + 1)]


class Canvas:
    def __init__(self, title, unit, names, most):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
            style(),
            f'<rect class="b" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text class="h" x="16" y="24">{escape(title)}</text>',
        ]
        self.legend(unit, names)
        ticks = steps(most)
        self.top = ticks[-1] or 1
        for tick in ticks:
            y = self.y(tick)
            self.add(f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.text(LEFT - 8, y + 4, short(tick), "end")

    def legend(self, unit, names):
        x = 16
        self.text(x, 46, unit, "start")
        x += 24 + 7 * len(unit)
        for n, name in enumerate(names):
            self.add(f'<rect class="s{n}" x="{x}" y="36" width="11" height="11"/>')
            self.text(x + 16, 46, name, "start")
            x += 36 + 7.2 * len(name)

    def y(self, value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.top

    def add(self, part):
        self.parts.append(part)

    def text(self, x, y, text, anchor="middle"):
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def done(self):
        return "\n".join([*self.parts, "</svg>\n"])


def bars(title, unit, groups, series):
    """`series` is {name: [a value, or None, for each group]}."""
    names = list(series)
    most = max(value for values in series.values() for value in values if value is not None)
    canvas = Canvas(title, unit, names, most)
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = min(room * 0.8 / len(names), 64)
    for g, group in enumerate(groups):
        start = LEFT + room * (g + 0.5) - width * len(names) / 2
        canvas.text(LEFT + room * (g + 0.5), HEIGHT - BOTTOM + 22, group)
        for n, name in enumerate(names):
            value = series[name][g]
            if value is None:
                continue
            y = canvas.y(value)
            box = f'x="{start + n * width + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
            canvas.add(f'<rect class="s{n}" {box}><title>{escape(name)}, {escape(group)}: {value:,.0f}</title></rect>')
    return canvas.done()


def lines(title, unit, axis, series):
    """`series` is {name: [(x, y), ...]}; x is drawn logarithmically."""
    names = list(series)
    points = [point for line in series.values() for point in line]
    canvas = Canvas(title, unit, names, max(y for _, y in points))
    low, high = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    place = lambda x: LEFT + 24 + (WIDTH - LEFT - RIGHT - 48) * (math.log10(x) - low) / ((high - low) or 1)
    for x in sorted({x for x, _ in points}):
        canvas.text(place(x), HEIGHT - BOTTOM + 20, short(x))
    canvas.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, axis)
    for n, name in enumerate(names):
        path = " ".join(f"{place(x):.1f},{canvas.y(y):.1f}" for x, y in series[name])
        canvas.add(f'<polyline class="s{n} l" points="{path}"/>')
        for x, y in series[name]:
            canvas.add(f'<circle class="s{n}" cx="{place(x):.1f}" cy="{canvas.y(y):.1f}" r="4"><title>{x:,}: {y:,.0f}</title></circle>')
    return canvas.done()
