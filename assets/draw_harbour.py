#!/usr/bin/env python3
"""Draws assets/harbour.png, the picture of the demo: a bay with a boat, a house, a tree, the sun and clouds.

Nothing but the standard library, so that anybody can draw it again: assets/draw_harbour.py OUT.png
"""

import math
import struct
import sys
import zlib

WIDTH, HEIGHT = 960, 640
SCALE = 2  # drawn this much larger and averaged, for smooth edges


class Canvas:
    def __init__(self):
        self.width, self.height = WIDTH * SCALE, HEIGHT * SCALE
        self.rows = [bytearray(3 * self.width) for _ in range(self.height)]

    def span(self, y, x0, x1, colour):
        x0, x1 = max(0, math.ceil(x0)), min(self.width, math.ceil(x1))
        if 0 <= y < self.height and x0 < x1:
            self.rows[y][3 * x0:3 * x1] = bytes(colour) * (x1 - x0)

    def gradient(self, top, bottom, colour_top, colour_bottom):
        for y in range(round(top * SCALE), round(bottom * SCALE)):
            t = (y / SCALE - top) / (bottom - top)
            self.span(y, 0, self.width, [round(a + t * (b - a)) for a, b in zip(colour_top, colour_bottom)])

    def polygon(self, points, colour):
        points = [(SCALE * x, SCALE * y) for x, y in points]
        for y in range(math.floor(min(p[1] for p in points)), math.ceil(max(p[1] for p in points))):
            middle = y + 0.5
            crossings = sorted(
                x0 + (middle - y0) * (x1 - x0) / (y1 - y0)
                for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1])
                if (y0 <= middle) != (y1 <= middle))
            for x0, x1 in zip(crossings[::2], crossings[1::2]):
                self.span(y, x0 - 0.5, x1 - 0.5, colour)

    def ellipse(self, x, y, rx, ry, colour):
        self.polygon([(x + rx * math.cos(a * math.pi / 60), y + ry * math.sin(a * math.pi / 60)) for a in range(120)],
                     colour)

    def rectangle(self, x0, y0, x1, y1, colour):
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def png(self):
        lines = bytearray()
        for y in range(HEIGHT):
            lines.append(0)
            upper, lower = self.rows[SCALE * y], self.rows[SCALE * y + 1]
            for x in range(0, 6 * WIDTH, 6):
                for c in range(3):
                    lines.append((upper[x + c] + upper[x + 3 + c] + lower[x + c] + lower[x + 3 + c] + 2) >> 2)

        def chunk(name, body):
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

        header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
        return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(lines), 9))
                + chunk(b"IEND", b""))


def draw_sky(canvas):
    canvas.gradient(0, 330, (96, 170, 232), (222, 238, 248))
    for k in range(12):  # rays
        at = lambda radius, turn: (800 + radius * math.cos(turn), 95 + radius * math.sin(turn))
        angle = k * math.pi / 6
        canvas.polygon([at(60, angle - 0.13), at(92, angle), at(60, angle + 0.13)], (255, 207, 64))
    canvas.ellipse(800, 95, 50, 50, (255, 207, 64))
    for x, y, size in [(210, 90, 1.0), (520, 140, 0.7)]:
        for dx, dy, r in [(-55, 8, 30), (-20, -12, 40), (25, -6, 36), (60, 10, 26)]:
            canvas.ellipse(x + size * dx, y + size * dy, size * r * 1.2, size * r * 0.8, (255, 255, 255))


def draw_land(canvas):
    far = [(x, 300 - 34 * math.sin(x / 150 + 0.4) - 14 * math.sin(x / 61)) for x in range(0, WIDTH + 1, 8)]
    canvas.polygon([(0, 340)] + far + [(WIDTH, 340)], (126, 164, 150))
    canvas.gradient(330, HEIGHT, (70, 150, 190), (24, 84, 138))
    for i in range(8):
        x, y = 330 + (i * 211) % 640, 352 + i * 35
        canvas.ellipse(x, y, 18 + i, 1.6, (150, 204, 226))
    shore = [(0, 352), (150, 346), (300, 362), (410, 404), (452, 470), (420, 560), (440, 640), (0, 640)]
    canvas.polygon(shore, (232, 214, 160))
    canvas.polygon([(0, 352), (140, 348), (280, 364), (372, 408), (400, 470), (372, 556), (384, 640), (0, 640)],
                   (112, 170, 84))


def draw_tree(canvas, x, y, size):
    canvas.rectangle(x - 9 * size, y - 30 * size, x + 9 * size, y, (112, 76, 48))
    for half, top, bottom in [(62, 100, 28), (50, 138, 70), (36, 170, 112)]:
        canvas.polygon([(x - half * size, y - bottom * size), (x + half * size, y - bottom * size), (x, y - top * size)],
                       (36, 110, 58))


def draw_house(canvas, x, y):
    canvas.rectangle(x + 112, y - 178, x + 136, y - 110, (150, 92, 74))
    canvas.rectangle(x, y - 108, x + 168, y, (246, 236, 214))
    canvas.polygon([(x - 18, y - 104), (x + 84, y - 186), (x + 186, y - 104)], (186, 62, 48))
    canvas.rectangle(x + 66, y - 62, x + 102, y, (94, 62, 44))
    for left in (x + 16, x + 116):
        canvas.rectangle(left, y - 80, left + 36, y - 44, (120, 180, 214))


def draw_boat(canvas, x, y):
    canvas.ellipse(x, y + 34, 130, 8, (20, 72, 120))
    canvas.rectangle(x - 3, y - 200, x + 3, y, (110, 76, 50))
    canvas.polygon([(x + 8, y - 196), (x + 8, y - 24), (x + 112, y - 24)], (252, 250, 244))
    canvas.polygon([(x - 8, y - 168), (x - 8, y - 24), (x - 82, y - 24)], (244, 226, 190))
    canvas.polygon([(x + 3, y - 214), (x + 3, y - 198), (x + 34, y - 206)], (36, 96, 176))
    canvas.polygon([(x - 124, y - 12), (x + 134, y - 12), (x + 96, y + 36), (x - 90, y + 36)], (204, 44, 44))
    canvas.polygon([(x - 124, y - 12), (x + 134, y - 12), (x + 126, y), (x - 115, y)], (250, 246, 238))


def main():
    canvas = Canvas()
    draw_sky(canvas)
    draw_land(canvas)
    draw_boat(canvas, 676, 448)
    draw_house(canvas, 150, 470)
    draw_tree(canvas, 70, 600, 1.0)
    with open(sys.argv[1], "wb") as file:
        file.write(canvas.png())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main()
