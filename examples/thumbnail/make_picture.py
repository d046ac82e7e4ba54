"""Makes expected/picture.png: a sky, hills and a sun with a soft edge, 240 x 160, with opacity.

Needs Python 3 alone: python3 make_picture.py expected/picture.png
"""

import struct
import sys
import zlib

WIDTH, HEIGHT = 240, 160
SUN_X, SUN_Y, SUN_RADIUS = 180, 45, 24


def pixel(x, y):
    hill = 110 + ((x * 7) % 60) // 6 + abs(x - 90) // 6
    if y > hill:
        return 40 + (y - hill) // 2, 120 - (y - hill) // 3, 60, 255
    distance = ((x - SUN_X) ** 2 + (y - SUN_Y) ** 2) ** 0.5
    if distance < SUN_RADIUS:
        return 255, 220, 90, 255
    glow = max(0, 60 - int(distance - SUN_RADIUS))
    return min(255, 110 + y // 2 + glow), min(255, 160 + y // 3 + glow // 2), 235, 200 + y // 4


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def picture():
    rows = b"".join(
        b"\0" + b"".join(bytes(pixel(x, y)) for x in range(WIDTH)) for y in range(HEIGHT)
    )
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 6, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as file:
        file.write(picture())
