"""N-grams that rows share with evaluation items: items as arrays, rows looked up a block at a time.

N-grams and whole texts are compared as 64-bit numbers (see grams.py).
"""

import functools
from collections import defaultdict
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import orjson

from pt_tools.curate.grams import different, hash_words, ngrams, runs
from pt_tools.curate.words import prompt_key, words

TABLE_BITS = 20
COMMON = 8  # items with an n-gram above which it pays to see whether a hit can hang on it
EPSILON = 1e-12  # a mean of shares is not above the threshold by rounding alone


@dataclass
class Analysed:
    """Items taken apart: numbers of all words, and where those of every turn begin (turns + 1,)."""

    numbers: np.ndarray
    starts: np.ndarray


def analyse(items: list) -> Analysed:
    """Items (evaluation, id, fields, each a list of turns) taken apart."""
    return Analysed(*hash_words([text for _, _, of_item in items for turns in of_item for text in turns]))


def joined(parts: list[Analysed]) -> Analysed:
    """Several parts as one, in order."""
    starts, end = [np.zeros(1, np.int64)], 0
    for part in parts:
        starts.append(part.starts[1:].astype(np.int64) + end)
        end += len(part.numbers)
    return Analysed(np.concatenate([np.zeros(0, np.uint64), *(part.numbers for part in parts)]), np.concatenate(starts))


def _key(turns):
    """64 bits for texts that are equal but for case, spacing and punctuation."""
    return int.from_bytes(blake2b(orjson.dumps(prompt_key(turns)), digest_size=8).digest(), "little")


class Overlap:
    """Items, their fields, turns and words, numbered in order.

    `gram`, `place`, `field` have an entry for every n-gram of the items that is no stock phrase: its number among the
    different ones (`grams`, sorted), the word where it begins, and its field. `size` is how many words of a field count.
    """

    def __init__(self, items: list, analysed: "Analysed", n: int, coverage: float, rule: str, most: int | None):
        self.items, self.n, self.coverage, self.any = items, n, coverage, rule == "any"
        fields = [(item, turns) for item, (_, _, of_item) in enumerate(items) for turns in of_item]
        self.item_of = np.array([item for item, _ in fields], np.int64)
        turn_field = np.repeat(np.arange(len(fields)), [len(turns) for _, turns in fields])
        numbers, starts = analysed.numbers, analysed.starts
        bags = _bags(numbers, starts)
        order = np.argsort(bags, kind="stable")
        self.bags, self.bag_field = bags[order], turn_field[order]
        grams, first = self._ngrams(numbers, starts)
        self.place = np.arange(len(grams)) + np.repeat(starts[:-1] - first[:-1], np.diff(first))
        self.field = np.repeat(turn_field, np.diff(first))
        self.grams, self.gram = np.unique(grams, return_inverse=True)
        self._leave_out_stock(most, np.repeat(turn_field, np.diff(starts)))
        self.first_field = np.searchsorted(self.item_of, np.arange(len(items) + 1))
        self.first_word = starts[np.searchsorted(turn_field, np.arange(len(fields) + 1))]  # of a field
        self.first = np.searchsorted(self.item_of[self.field], np.arange(len(items) + 1))
        self._post()
        self.turns = [turns for _, turns in fields]
        self._words_of = functools.cache(lambda item: [word for turns in items[item][2] for turn in turns for word in words(turn)])
        self._key_of = functools.cache(lambda field: _key(self.turns[field]))

    def _ngrams(self, numbers, starts):
        return ngrams(numbers, starts, self.n) if self.n else (np.zeros(0, np.uint64), np.zeros(len(starts), np.int64))

    def _leave_out_stock(self, most, word_field):
        codes = different(self.gram * len(self.items) + self.item_of[self.field])
        self.spread = np.bincount(codes // max(1, len(self.items)), minlength=len(self.grams))  # items that have it
        counts = np.ones(len(word_field), bool)
        if most is not None:
            kept = self.spread[self.gram] <= most
            counts = self._covered(self.place[kept], len(counts)) | ~self._covered(self.place, len(counts))
            self.gram, self.place, self.field = self.gram[kept], self.place[kept], self.field[kept]
        self.size = np.bincount(word_field[counts], minlength=len(self.item_of)).tolist()

    def _covered(self, places, words):
        """Which of the words lie in an n-gram that begins at one of the places."""
        edges = np.bincount(places, minlength=words + 1) - np.bincount(places + self.n, minlength=words + 1)
        return np.cumsum(edges)[:words] > 0

    def _post(self):
        """For every different n-gram the items that a match of it may decide; and tables that tell most others off."""
        item = self.item_of[self.field]
        decisive = np.ones(len(self.gram), bool)
        if not self.any:
            for one in different(item[self.spread[self.gram] > COMMON]).tolist():
                decisive[self.first[one]:self.first[one + 1]] = self._decisive(one)
        codes = different(self.gram[decisive] * len(self.items) + item[decisive])
        grams, items = np.divmod(codes, max(1, len(self.items)))
        self.posted = items.tolist()
        self.post = np.searchsorted(grams, np.arange(len(self.grams) + 1))
        self.tables = np.zeros((2, 2**TABLE_BITS), bool)
        for number, table in enumerate(self.tables):
            table[_bits(self.grams, number)] = True

    def _decisive(self, item):
        """All n-grams of an item but the most common ones that do not make a hit together: it takes one of the others."""
        gram = self.gram[self.first[item]:self.first[item + 1]]
        common = different(gram[self.spread[gram] > COMMON])
        common = common[np.argsort(-self.spread[common], kind="stable")].tolist()
        left_out = common if self._stays_below(item, common) else []
        for one in common[len(left_out):]:
            if not self._stays_below(item, [*left_out, one]):
                break
            left_out = [*left_out, one]
        chosen = np.zeros(len(self.grams), bool)
        chosen[left_out] = True
        return ~chosen[gram]

    def _stays_below(self, item, grams):
        return self._share(item, self._matched(item, np.array(sorted(grams), np.int64))) <= self.coverage

    def _matched(self, item, grams, equal=()):
        """Runs [field, first word, word behind] of an item's words that the n-grams `grams` (ascending) cover."""
        some = slice(self.first[item], self.first[item + 1])
        gram = self.gram[some]
        same = grams[np.minimum(np.searchsorted(grams, gram), len(grams) - 1)] == gram if len(grams) else np.zeros(len(gram), bool)
        runs = []
        for field, place in zip(self.field[some][same].tolist(), self.place[some][same].tolist()):
            if field in equal:
                continue
            if runs and runs[-1][0] == field and place <= runs[-1][2]:
                runs[-1][2] = place + self.n
            else:
                runs.append([field, place, place + self.n])
        return runs + [[field, *self.first_word[field:field + 2].tolist()] for field in equal]

    def _share(self, item, runs, equal=()):
        """Coverage of an item by runs of matched words; `equal` are fields matched as a whole."""
        fields = range(*self.first_field[item:item + 2].tolist())
        covered = dict.fromkeys(fields, 0)
        for field, start, end in runs:
            covered[field] += end - start
        shares = [1.0 if field in equal else covered[field] / self.size[field] if self.size[field] else 0.0 for field in fields]
        return sum(shares) / len(shares)

    # --- rows -----------------------------------------------------------------------------------------------------

    def find(self, rows: list[list[str]]) -> list[list[dict]]:
        """See decontaminate.Index.find_all."""
        texts, row_of, others, row_of_other = [], [], [], []  # ASCII texts that are together are sooner taken apart
        for row, turns in enumerate(rows):
            for text in turns:
                if text.isascii():
                    texts.append(text)
                    row_of.append(row)
                else:
                    others.append(text)
                    row_of_other.append(row)
        numbers, starts = hash_words(texts + others)
        row_of = np.array(row_of + row_of_other, np.int64)
        bags = _bags(numbers, starts)
        equal = self._equal_fields(rows, row_of, bags)
        row, gram = self._shared(numbers, starts, row_of)
        decide = set(row[self.post[gram + 1] > self.post[gram]].tolist())
        hits, some = [[] for _ in rows], sorted({*decide, *equal})
        for one, start, end in zip(some, *(np.searchsorted(row, some, side).tolist() for side in ("left", "right"))):
            hits[one] = self._hits(gram[start:end], equal.get(one, {}))
        return hits

    def _shared(self, numbers, starts, row_of):
        """(rows, n-grams) of all different pairs of a row and an n-gram that it shares with the items, ascending."""
        grams = runs(numbers, self.n) if self.n and len(self.grams) else np.zeros(0, np.uint64)
        at = np.flatnonzero(self.tables[0][_bits(grams, 0)])
        at = at[self.tables[1][_bits(grams[at], 1)]]
        gram = np.minimum(np.searchsorted(self.grams, grams[at]), max(0, len(self.grams) - 1))
        text = np.searchsorted(starts, at, "right") - 1
        same = (self.grams[gram] == grams[at]) & (at + self.n <= starts[text + 1])
        return np.divmod(different(row_of[text[same]] * len(self.grams) + gram[same]), max(1, len(self.grams)))

    def _equal_fields(self, rows, row_of, bags):
        """{row: {item: fields that are equal to the row's turns, or to one of them}}; few rows have a turn with an item's words."""
        start = np.searchsorted(self.bags, bags)
        known, found = defaultdict(set), {}
        within = np.flatnonzero(start < len(self.bags))
        for turn in within[self.bags[start[within]] == bags[within]].tolist():
            end = np.searchsorted(self.bags, bags[turn], "right")
            known[int(row_of[turn])].update(self.bag_field[start[turn]:end].tolist())
        for row, fields in known.items():
            keys = {_key(rows[row]), *(_key([turn]) for turn in rows[row])}
            for field in sorted(fields):
                if self._key_of(field) in keys:
                    found.setdefault(row, defaultdict(set))[int(self.item_of[field])].add(field)
        return found

    def _hits(self, grams, equal):
        """The hits of a row that shares these n-grams, and these fields as a whole."""
        items = {*equal}
        for start, end in zip(self.post[grams].tolist(), self.post[grams + 1].tolist()):
            items.update(self.posted[start:end])
        found = []
        for item in items:
            whole = equal.get(item, ())
            runs = self._matched(item, grams, whole)
            share = self._share(item, runs, whole)
            if runs and (self.any or share > self.coverage + EPSILON):
                found.append((-share, item, max(runs, key=lambda run: run[2] - run[1])))
        return [self._hit(item, -share, span) for share, item, span in sorted(found, key=lambda hit: hit[:2])]

    def _hit(self, item, share, span):
        name, id, _ = self.items[item]
        flat = self._words_of(item)
        start = self.first_word[self.first_field[item]]
        return {"eval": name, "id": id, "coverage": round(share, 4), "span": " ".join(flat[span[1] - start:span[2] - start])}


def _bits(grams, number):
    """The first or second TABLE_BITS bits of each n-gram."""
    bits = grams >> np.uint64(64 - (number + 1) * TABLE_BITS)
    return (bits & np.uint64(2**TABLE_BITS - 1) if number else bits).view(np.int64)


def _bags(numbers, starts):
    """A number for every text that does not change with the order of its words; equal texts have the same."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(numbers)])
    return sums[starts[1:]] - sums[starts[:-1]]
