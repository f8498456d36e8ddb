"""The run key of a first start, whose inputs are hashed while they are read for the work.

A run key is compared with what earlier runs left. Where there is nothing of that, the start goes by a provisional key, in
which large inputs without a manifest stand for themselves with what the file system says of them (as for `digestcache`).
A command that reads them anyway hashes them on the way; what is left is hashed before the output is sealed with its
true key. A start that was killed leaves its provisional key in OUT.run/, and the next one takes up that one too.
"""

import os

from pt_tools import digestcache, outdir
from pt_tools.errors import BadModel


class LateKey:
    """The key of `key_of(digests)`, where `digests` is what `outdir.identity` takes. `unread` are paths to be hashed."""

    def __init__(self, key_of):
        self.key_of = key_of
        self.unread: set[str] = set()
        self.settled = True
        self.seen = key_of(self._stand_ins)

    def _stand_ins(self, paths, kind) -> dict:
        stats = {path: os.stat(path) for path in paths}
        found = {path: name for path, stat in stats.items() if (name := digestcache.stand_in(stat))}
        self.settled &= all(digestcache.is_settled(stats[path]) for path in found)
        self.unread |= {os.path.abspath(path) for path in found if digestcache.load(stats[path], kind) is None}
        return outdir.file_digests((path for path in stats if path not in found), kind) | found

    def begin(self, out) -> None:
        """Give `out` the key that its start goes by: the true one where there is something to compare it with."""
        if out.is_new() and self.settled:
            out.set_key(self.seen)
        else:
            out.set_key(self.key_of(outdir.file_digests), self.seen)
            self.unread.clear()

    def settle(self, out) -> None:
        """Give `out` the true key before it is sealed; `BadModel` if an input is not what it was."""
        if out.key != self.seen:
            return
        key = self.key_of(outdir.file_digests)
        if self.key_of(self._stand_ins) != self.seen:
            raise BadModel("an input changed while it was read; run the same line again", str(out.path))
        out.set_key(key, self.seen)
