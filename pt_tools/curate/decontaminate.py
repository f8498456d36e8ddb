"""Train rows that overlap evaluation items, by the rules of Tulu 3 (section 3.2) and DeepSeek-R1 (supplement D.1).

Tulu 3: a word of an evaluation item is matched by a row if it lies in an n-gram (8 words) that the row has too; the item's
coverage by the row is its share of matched words; above one half (strictly) the row is contaminated. An item of several
fields has the mean of their coverages, as in open-instruct. DeepSeek-R1: any n-gram (10 words) in common is enough.

N-grams do not cross turns. A field without a turn of n words is matched by an equal text only, and an equal text always
matches. N-grams that are in more than `most` items are stock phrases: they match nothing, and words that lie in no others
do not count. Words are those of words.py, where open-instruct has spaCy's.
"""

from collections import defaultdict

from pt_tools.errors import BadData

INDEX = "evaluations"  # what the file of a saved index calls its settings
TULU_SHARE = 0.02  # a training set that overlaps more of an evaluation than this is contaminated (Tulu 3)
RULES = {"coverage": 8, "any": 10}  # and the n of their papers


class Index:
    """The evaluation items to look for. `n` = 0 looks for equal texts only; `rule` is one of RULES."""

    def __init__(self, n: int = 8, coverage: float = 0.5, rule: str = "coverage", most: int | None = None):
        self.n, self.coverage, self.rule, self.most = n, coverage, rule, most
        self.items = []  # (evaluation, id, fields, each a list of turns)
        self._analysed, self._count = [], 0  # of how many items
        self._overlap = None

    def add(self, evaluation: str, id: str, *fields: list[str]) -> None:
        """An item: the turns of its prompt, or of each of its fields."""
        self.items.append((evaluation, id, list(fields)))
        self._overlap = None

    def save(self, write) -> None:
        """Write all items, taken apart, by calls of `write(bytes)`."""
        import orjson

        from pt_tools.curate import columns, grams

        parts, data = self.analysed(), orjson.dumps(self.items)
        columns.write(write, INDEX, {"version": grams.VERSION}, {
            "numbers": ("U64", [len(parts.numbers)], [parts.numbers]), "starts": ("U64", [len(parts.starts)], [parts.starts]),
            "items": ("U8", [len(data)], [memoryview(data)])})

    def load(self, path: str) -> None:
        """Add the items of a saved index. BadData if it is none, or of another version."""
        import orjson

        from pt_tools.curate import columns, grams
        from pt_tools.curate.overlap import Analysed

        file = columns.File(path, INDEX)
        if file.settings["version"] != grams.VERSION:
            raise BadData(f"an index of version {file.settings['version']}, not {grams.VERSION}; make it again", path)
        self.analysed()
        self.items += [tuple(item) for item in orjson.loads(file.read("items").tobytes())]
        self._analysed.append(Analysed(*(file.read(name) for name in ("numbers", "starts"))))
        self._count = len(self.items)

    def analysed(self):
        """The items taken apart (overlap.Analysed)."""
        from pt_tools.curate import overlap

        if self._count < len(self.items):
            self._analysed.append(overlap.analyse(self.items[self._count:]))
            self._count = len(self.items)
        self._analysed = [overlap.joined(self._analysed)]
        return self._analysed[0]

    @property
    def sizes(self) -> dict[str, int]:
        """Items of every evaluation; those that share an id are one."""
        ids = defaultdict(set)
        for evaluation, id, _ in self.items:
            ids[evaluation].add(id)
        return {name: len(found) for name, found in ids.items()}

    def find(self, turns: list[str]) -> list[dict]:
        """The items that contaminate a row with these turns, as {eval, id, coverage, span}, best first.

        `span` is the longest run of matched words of the item.
        """
        return self.find_all([turns])[0]

    def find_all(self, rows: list[list[str]]) -> list[list[dict]]:
        """The same for many rows at once."""
        return self.overlap().find(rows)

    def overlap(self):
        """The items as arrays."""
        from pt_tools.curate.overlap import Overlap

        self._overlap = self._overlap or Overlap(self.items, self.analysed(), self.n, self.coverage, self.rule, self.most)
        return self._overlap


class Table:
    """How much of every evaluation every one of some sources overlaps."""

    def __init__(self, sources=()):
        self._items, self._rows = defaultdict(set), defaultdict(int)
        self._sources = set(sources)

    def add(self, source: str, hits: list[dict]) -> None:
        """The hits of a row."""
        for name in {hit["eval"] for hit in hits}:
            self._rows[source, name] += 1
        for hit in hits:
            self._items[source, hit["eval"]].add(hit["id"])

    def merge(self, other: "Table") -> None:
        """Add what another part of the rows counted."""
        self._sources |= other._sources
        for key, ids in other._items.items():
            self._items[key] |= ids
        for key, n in other._rows.items():
            self._rows[key] += n

    def rows(self, sizes: dict[str, int]) -> list[dict]:
        """One a source and evaluation: items of the evaluation, those hit, their share, rows that hit, over 2 %."""
        out = []
        for source in sorted(self._sources):
            for name, size in sizes.items():
                hit = len(self._items[source, name])
                out.append({"source": source, "eval": name, "items": size, "hit": hit, "share": hit / size,
                            "rows": self._rows[source, name], "contaminated": hit > TULU_SHARE * size})
        return out
