"""Train rows whose prompts overlap evaluation prompts, by the rule of Tulu 3 (section 3.2).

A word of an evaluation item is matched by a row if it lies in an n-gram (8 words) that the row has too; the item's
coverage by the row is its share of matched words; above one half (strictly) the row is contaminated. Only user turns
count, n-grams do not cross turns, and words are runs of letters and digits in lower case. An item without a turn of n
words is matched by an equal prompt only, and an equal prompt always matches.
"""

from collections import defaultdict

from pt_tools.curate.words import prompt_key, words

TULU_SHARE = 0.02  # a training set that overlaps more of an evaluation than this is contaminated (Tulu 3)


class Index:
    """The evaluation items to look for. `n` = 0 looks for equal prompts only."""

    def __init__(self, n: int = 8, coverage: float = 0.5):
        self.n, self.coverage = n, coverage
        self.items = []  # (eval, id, words of all turns)
        self._ids = defaultdict(set)
        self._grams = defaultdict(list)  # n-gram -> (item, place in its words)
        self._prompts = defaultdict(list)  # prompt key -> items

    def add(self, evaluation: str, id: str, turns: list[str]) -> None:
        number, all_words = len(self.items), []
        for turn in turns:
            found = words(turn)
            for i, gram in enumerate(_grams(found, self.n)):
                self._grams[gram].append((number, len(all_words) + i))
            all_words += found
        self.items.append((evaluation, id, all_words))
        self._ids[evaluation].add(id)
        self._prompts[prompt_key(turns)].append(number)

    @property
    def sizes(self) -> dict[str, int]:
        """Items of every evaluation; those that share an id are one."""
        return {name: len(ids) for name, ids in self._ids.items()}

    def find(self, turns: list[str]) -> list[dict]:
        """The items that a row with these user turns covers, as {eval, id, coverage, span}, best first.

        `span` is the longest run of matched words of the item.
        """
        coverage = {item: (1.0, " ".join(self.items[item][2])) for item in self._equal(turns)}
        for item, places in self._shared(turns).items():
            if item not in coverage:
                matched, span = _covered(sorted(places), self.n, self.items[item][2])
                if matched > self.coverage * len(self.items[item][2]):
                    coverage[item] = (matched / len(self.items[item][2]), span)
        found = sorted(coverage.items(), key=lambda hit: (-hit[1][0], hit[0]))
        return [{"eval": self.items[item][0], "id": self.items[item][1], "coverage": round(share, 4), "span": span}
                for item, (share, span) in found]

    def _equal(self, turns):
        keys = {prompt_key(turns), *(prompt_key([turn]) for turn in turns)}
        return [item for key in keys for item in self._prompts.get(key, ())]

    def _shared(self, turns):
        places = defaultdict(set)
        grams = {gram for turn in turns for gram in _grams(words(turn), self.n)}
        for gram in grams:
            for item, place in self._grams.get(gram, ()):
                places[item].add(place)
        return places


def _grams(found: list[str], n: int):
    return zip(*(found[i:] for i in range(n))) if n else ()


def _covered(places: list[int], n: int, item: list[str]) -> tuple[int, str]:
    """How many words lie in n-grams that start at `places` (ascending), and the longest run of them."""
    runs = []
    for place in places:
        if runs and place <= runs[-1][1]:
            runs[-1][1] = place + n
        else:
            runs.append([place, place + n])
    start, end = max(runs, key=lambda run: run[1] - run[0])
    return sum(b - a for a, b in runs), " ".join(item[start:end])


class Table:
    """How much of every evaluation every source overlaps."""

    def __init__(self, sizes: dict[str, int]):
        self._sizes = sizes
        self._items, self._rows = defaultdict(set), defaultdict(int)
        self._sources = set()

    def add(self, source: str, hits: list[dict]) -> None:
        self._sources.add(source)
        for name in {hit["eval"] for hit in hits}:
            self._rows[source, name] += 1
        for hit in hits:
            self._items[source, hit["eval"]].add(hit["id"])

    def rows(self) -> list[dict]:
        """One a source and evaluation: items of the evaluation, those hit, their share, rows that hit, over 2 %."""
        out = []
        for source in sorted(self._sources):
            for name, size in self._sizes.items():
                hit = len(self._items[source, name])
                out.append({"source": source, "eval": name, "items": size, "hit": hit, "share": hit / size,
                            "rows": self._rows[source, name], "contaminated": hit > TULU_SHARE * size})
        return out
