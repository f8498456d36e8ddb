"""Reading .zst files to their end: zstandard's own reader takes a file that was cut off for a whole one."""

import io

import zstandard

CHUNK = 2**14  # packed bytes at once: bounds what they may unpack to


def open_file(path: str) -> io.BufferedReader:
    """The unpacked bytes. Reading raises EOFError where the file ends inside a frame, OSError where it is damaged."""
    return io.BufferedReader(_Frames(open(path, "rb")))


class _Frames(io.RawIOBase):
    def __init__(self, file):
        self._file, self._frame, self._out = file, None, memoryview(b"")

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self._out:
            data = self._next()
            if not data:
                return 0
            try:
                self._out = memoryview(self._frame.decompress(data))
            except zstandard.ZstdError as error:
                raise OSError(str(error)) from None
        size = min(len(buffer), len(self._out))
        buffer[:size], self._out = self._out[:size], self._out[size:]
        return size

    def _next(self):
        """Further packed bytes, with the frame that they belong to begun; none at the end."""
        if self._frame is None or self._frame.eof:
            data = (self._frame.unused_data if self._frame else b"") or self._file.read(CHUNK)
            self._frame = zstandard.ZstdDecompressor().decompressobj() if data else None
            return data
        data = self._file.read(CHUNK)
        if not data:
            raise EOFError("the file ends inside a frame: it was cut off")
        return data

    def close(self):
        self._file.close()
        super().close()
