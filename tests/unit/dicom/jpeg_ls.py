"""JPEG-LS (ITU-T T.87) of any precision, pixel by pixel: the encoder that is installed writes 8 and 16 bits only."""

from __future__ import annotations

import struct

import numpy as np

RESET = 64
RUN_LENGTH_BITS = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4, 4, 5, 5, 6, 6, 7, 7, *range(8, 16)]
"""Table J of A.2.1."""


def encode_jpeg_ls(pixels: np.ndarray, bits: int, near: int = 0) -> bytes:
    """Return the codestream of unsigned pixels; with ``near`` each value may be wrong by that much."""
    rows, columns = pixels.shape
    frame = struct.pack(">BHHBBBB", bits, rows, columns, 1, 1, 0x11, 0)
    scan = struct.pack(">BBBBBB", 1, 1, 0, near, 0, 0)
    data = _Encoder(bits, near).encode(pixels.astype(int).tolist())
    return b"\xff\xd8" + _segment(0xF7, frame) + _segment(0xDA, scan) + data + b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


class _Bits:
    """After a byte of ones the next byte starts with a zero (A.1)."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._pending = ""

    def put(self, value: int, length: int) -> None:
        self._pending += f"{value:0{length}b}" if length else ""
        while len(self._pending) >= (size := self._size()):
            self.data.append(int(self._pending[:size], 2))
            self._pending = self._pending[size:]

    def finish(self) -> bytes:
        if self._pending or self._size() == 7:
            self.put(0, self._size() - len(self._pending))
        return bytes(self.data)

    def _size(self) -> int:
        return 7 if self.data and self.data[-1] == 0xFF else 8


class _Encoder:
    def __init__(self, bits: int, near: int) -> None:
        self.near, self.step, self.maximum = near, 2 * near + 1, (1 << bits) - 1
        self.range = (self.maximum + 2 * near) // self.step + 1
        self.range_bits = (self.range - 1).bit_length()
        self.limit = 2 * (bits + max(8, bits))
        factor = (min(self.maximum, 4095) + 128) // 256
        self.thresholds = [factor + 2 + 3 * near, 4 * factor + 3 + 5 * near, 17 * factor + 4 + 7 * near]  # C.2.4.1.1.1
        # The last two contexts are those of the pixel that interrupts a run.
        self.a, self.n = [max(2, (self.range + 32) // 64)] * 367, [1] * 367
        self.b, self.c, self.negative = [0] * 365, [0] * 365, [0] * 367
        self.run_index = 0
        self.bits = _Bits()

    def encode(self, rows: list[list[int]]) -> bytes:
        width = len(rows[0])
        above = [0] * (width + 2)
        for row in rows:
            here = [above[1], *row, 0]
            x = 1
            while x <= width:
                a, b, c, d = here[x - 1], above[x], above[x - 1], above[x + 1]
                if all(abs(gradient) <= self.near for gradient in (d - b, b - c, c - a)):
                    x = self._run(here, above, x, width)
                else:
                    here[x] = self._regular(here[x], a, b, c, d)
                    x += 1
            here[width + 1] = here[width]
            above = here
        return self.bits.finish()

    def _regular(self, value: int, a: int, b: int, c: int, d: int) -> int:
        """A.3 to A.6; returns the value that the decoder will have."""
        context = 81 * self._level(d - b) + 9 * self._level(b - c) + self._level(c - a)
        sign, context = (-1, -context) if context < 0 else (1, context)
        predicted = min(a, b) if c >= max(a, b) else max(a, b) if c <= min(a, b) else a + b - c
        predicted = self._clamp(predicted + sign * self.c[context])
        error, rebuilt = self._quantise(value, predicted, sign)
        k = self._golomb_parameter(context, self.a[context])
        if self.near == 0 and k == 0 and 2 * self.b[context] <= -self.n[context]:
            mapped = 2 * error + 1 if error >= 0 else -2 * (error + 1)
        else:
            mapped = 2 * error if error >= 0 else -2 * error - 1
        self._golomb(mapped, k, self.limit)
        self.b[context] += error * self.step
        self.a[context] += abs(error)
        if self.n[context] == RESET:
            self.a[context] >>= 1
            self.b[context] >>= 1
            self.n[context] >>= 1
        self.n[context] += 1
        if self.b[context] <= -self.n[context]:
            self.b[context] = max(self.b[context] + self.n[context], 1 - self.n[context])
            self.c[context] = max(self.c[context] - 1, -128)
        elif self.b[context] > 0:
            self.b[context] = min(self.b[context] - self.n[context], 0)
            self.c[context] = min(self.c[context] + 1, 127)
        return rebuilt

    def _run(self, here: list[int], above: list[int], x: int, width: int) -> int:
        """A.7; returns the column after the run and the pixel that interrupts it."""
        value, start = here[x - 1], x
        while x <= width and abs(here[x] - value) <= self.near:
            here[x] = value
            x += 1
        length = x - start
        while length >= 1 << RUN_LENGTH_BITS[self.run_index]:
            self.bits.put(1, 1)
            length -= 1 << RUN_LENGTH_BITS[self.run_index]
            self.run_index = min(self.run_index + 1, 31)
        if x > width:
            self.bits.put(1, 1 if length else 0)
            return x
        self.bits.put(length, 1 + RUN_LENGTH_BITS[self.run_index])
        here[x] = self._interruption(here[x], value, above[x])
        self.run_index = max(self.run_index - 1, 0)
        return x + 1

    def _interruption(self, value: int, a: int, b: int) -> int:
        alike = int(abs(a - b) <= self.near)
        context = 365 + alike
        error, rebuilt = self._quantise(value, a if alike else b, -1 if not alike and a > b else 1)
        k = self._golomb_parameter(context, self.a[context] + (self.n[context] >> 1 if alike else 0))
        mostly_negative = 2 * self.negative[context] >= self.n[context]
        flipped = (k == 0 and error > 0 and not mostly_negative) or (error < 0 and (mostly_negative or k != 0))
        mapped = 2 * abs(error) - alike - int(flipped)
        self._golomb(mapped, k, self.limit - RUN_LENGTH_BITS[self.run_index] - 1)
        self.negative[context] += int(error < 0)
        self.a[context] += (mapped + 1 - alike) >> 1
        if self.n[context] == RESET:
            self.a[context] >>= 1
            self.n[context] >>= 1
            self.negative[context] >>= 1
        self.n[context] += 1
        return rebuilt

    def _level(self, gradient: int) -> int:
        magnitude = abs(gradient)
        level = int(magnitude > self.near) + sum(magnitude >= threshold for threshold in self.thresholds)
        return level if gradient >= 0 else -level

    def _quantise(self, value: int, predicted: int, sign: int) -> tuple[int, int]:
        """Return the error to code, modulo the range, and the value that follows from it."""
        error = sign * (value - predicted)
        error = (error + self.near) // self.step if error > 0 else -((self.near - error) // self.step)
        rebuilt = self._clamp(predicted + sign * error * self.step)
        error += self.range if error < 0 else 0
        return error - self.range if error >= (self.range + 1) // 2 else error, rebuilt

    def _golomb_parameter(self, context: int, total: int) -> int:
        k = 0
        while self.n[context] << k < total:
            k += 1
        return k

    def _golomb(self, value: int, k: int, limit: int) -> None:
        longest = limit - self.range_bits - 1
        if value >> k < longest:
            self.bits.put(1, (value >> k) + 1)
            self.bits.put(value & ((1 << k) - 1), k)
        else:
            self.bits.put(1, longest + 1)
            self.bits.put(value - 1, self.range_bits)

    def _clamp(self, value: int) -> int:
        return min(max(value, 0), self.maximum)
