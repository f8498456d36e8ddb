"""Decontamination: hand-computed cases, a twin that goes word by word, other scripts, real data, and the command as a whole."""

import json
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pt_tools import record
from pt_tools.curate import overlap
from pt_tools.curate.decontaminate import Index, Table
from pt_tools.errors import BadData


def index_of(*prompts, n=8, coverage=0.5):
    index = Index(n, coverage)
    for i, prompt in enumerate(prompts):
        index.add("exam", f"e{i}", [prompt] if isinstance(prompt, str) else prompt)
    return index


def letters(text):
    return " ".join(text)


def test_coverage_by_hand():
    item = letters("abcdefghijklmnop")  # 16 words
    index = index_of(item)
    # 8 of 16 words is one half: not above it.
    assert index.find([letters("abcdefgh")]) == []
    assert index.find([letters("xxabcdefghixx")]) == [
        {"eval": "exam", "id": "e0", "coverage": 0.5625, "span": "a b c d e f g h i"}]
    # 7 words in a row are no 8-gram, however many there are.
    assert index.find([letters("abcdefg"), letters("hijklmn")]) == []
    # Two runs of 8 that overlap in the item are counted once: a-h and e-l are 12 words.
    assert index.find([letters("abcdefgh"), letters("efghijkl")])[0]["coverage"] == 0.75
    # The end of one turn and the start of the next are not one text.
    assert index.find([letters("abcdefgh"), letters("xxxx")]) == []
    assert index_of(letters("abcdefgh") + " " + letters("ijklmnopq"), coverage=0.4).find([letters("abcd"), letters("efgh")]) == []


def test_coverage_is_of_one_row():
    index = index_of(letters("abcdefghijklmnop"))
    assert index.find([letters("abcdefgh")]) == index.find([letters("ijklmnop")]) == []
    assert index.find([letters("abcdefgh"), letters("ijklmnop")])[0]["coverage"] == 1.0


def test_short_items_match_equal_prompts_only():
    index = index_of("What is 47+38?", letters("abcdefg"))
    assert index.find(["what is 47 + 38"])[0] == {"eval": "exam", "id": "e0", "coverage": 1.0, "span": "what is 47 38"}
    assert index.find(["What is 47-38?"]) == []
    assert index.find(["What is 47+38? Tell me."]) == []
    assert index.find(["Hi", "What is 47+38?"])[0]["id"] == "e0"  # one turn of several
    assert index.find([letters("abcdefg")])[0]["id"] == "e1"
    assert index.find([letters("xabcdefgx")]) == []


def test_equal_prompts_only():
    index = index_of(letters("abcdefghijkl"), n=0)
    assert index.find([letters("ABCDEFGHIJKL")])[0]["coverage"] == 1.0
    assert index.find([letters("abcdefghijklm")]) == []


def test_items_of_two_turns():
    index = index_of([letters("abcdefgh"), letters("ijk")])
    assert index.find([letters("abcdefgh")])[0]["coverage"] == pytest.approx(8 / 11, abs=1e-4)
    assert index.find([letters("ijk")]) == []


def naive_coverage(item, turns, n):
    """Word by word, from the definition."""
    split = [re.findall("[a-z]+", turn) for turn in turns]
    item_words = re.findall("[a-z]+", item)
    covered = 0
    for position in range(len(item_words)):
        starts = range(max(0, position - n + 1), min(position, len(item_words) - n) + 1)
        windows = [item_words[s:s + n] for s in starts]
        covered += any(turn[i:i + n] == w for w in windows for turn in split for i in range(len(turn) - n + 1))
    return covered / len(item_words)


SENTENCE = st.lists(st.sampled_from("abc"), min_size=1, max_size=14).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(SENTENCE, min_size=1, max_size=4), st.lists(SENTENCE, min_size=1, max_size=3), st.integers(1, 5),
       st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_decontamination_equals_a_naive_twin(items, turns, n, threshold):
    found = {hit["id"]: hit["coverage"] for hit in index_of(*items, n=n, coverage=threshold).find(turns)}
    wanted = {}
    for i, item in enumerate(items):
        coverage = naive_coverage(item, turns, n)
        if coverage > threshold or item in turns:
            wanted[f"e{i}"] = 1.0 if item in turns else round(coverage, 4)
    assert found == wanted


def test_table_and_the_rule_of_two_percent():
    totals = Table(["web", "books", "web"])
    hit = [{"eval": "exam", "id": f"e{i}"} for i in range(3)]
    totals.add("web", hit[:2])
    totals.add("web", hit[:1])
    totals.add("books", hit)
    rows = {(r["source"], r["eval"]): r for r in totals.rows({"exam": 100, "quiz": 50})}
    assert len(rows) == 4
    assert rows["web", "exam"] == {"source": "web", "eval": "exam", "items": 100, "hit": 2, "share": 0.02, "rows": 2,
                                   "contaminated": False}
    assert rows["books", "exam"]["contaminated"] is True and rows["books", "exam"]["rows"] == 1
    assert rows["books", "quiz"]["hit"] == 0


def test_the_tiny_world_is_clean(world):
    """The built-in world sets held-out prompts aside by its own rule; the published one finds nothing either."""
    import json

    def rows(name):
        return [json.loads(line) for line in (world / f"{name}.jsonl").open()]

    index = Index()
    for row in rows("heldout"):
        index.add("heldout", row["id"], record.user_turns(row))
    trained = [path.stem for path in world.glob("*.jsonl") if not path.stem.startswith(("heldout", "corpus"))]
    assert "sft" in trained and len(trained) > 3
    for name in trained:
        assert not any(index.find(record.user_turns(row)) for row in rows(name))
    assert all(index.find(record.user_turns(row)) for row in rows("heldout"))


# --- several fields, stock phrases, any n-gram --------------------------------------------------------------------


def test_fields_are_averaged():
    """open-instruct: the mean of the shares of the fields' words, each field by its own n-grams."""
    index = Index()
    index.add("exam", "e", [letters("abcdefghij")], [letters("klmnopqrstuvwxyz")])
    assert index.find([letters("abcdefghij")]) == []  # 1.0 and 0.0: one half is not above it
    (hit,) = index.find([letters("abcdefghij") + " 1 " + letters("klmnopqr")])  # 1.0 and 8 of 16
    assert hit["coverage"] == 0.75 and hit["span"] == letters("abcdefghij")
    short = Index()
    short.add("exam", "e", ["Why?"], [letters("abcdefghij")])
    assert short.find([letters("abcdefghij")]) == []
    assert short.find(["why", letters("abcdefgh")])[0]["coverage"] == 0.9  # (1 + 0.8) / 2: a short field is equal to a turn
    assert short.find(["why"]) == []


def test_any_shared_ngram():
    index = Index(3, rule="any")
    index.add("exam", "long", [letters("abcdefghijklmnopqrst")])
    index.add("exam", "short", ["x y"])
    assert index.find([letters("zcdez")]) == [{"eval": "exam", "id": "long", "coverage": 0.15, "span": "c d e"}]
    assert index.find([letters("zcdz")]) == [] and index.find(["x y z"]) == []
    assert index.find(["X, y."])[0]["id"] == "short"


def test_stock_phrases_match_nothing_and_do_not_count():
    stock, unique = letters("abcdefghij"), [letters("klmnopqrst"), letters("uvwxyz0123")]
    index = Index(most=1)
    for i, own in enumerate(unique):
        index.add("exam", f"e{i}", [f"{stock} {own}"])
    assert index.find([stock]) == []
    # 8-grams that begin in the stock phrase and end behind it are of one item only: c-q, with the last seven of the phrase.
    assert index.find([f"9 {stock} {unique[0]} 9"])[0]["coverage"] == 1.0
    (hit,) = index.find([unique[0]])
    assert hit["id"] == "e0" and hit["coverage"] == round(10 / 17, 4)  # the first three words lie in shared 8-grams only
    assert index.find([f"{stock} {unique[0]}"])[0]["coverage"] == 1.0
    without = Index()
    for i, own in enumerate(unique):
        without.add("exam", f"e{i}", [f"{stock} {own}"])
    assert without.find([unique[0]]) == []  # 10 of 20 words
    every = Index(rule="any", n=8, most=1)
    every.items = list(index.items)
    assert every.find([stock]) == [] and len(every.find([letters("ghijklmn")])) == 1


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=10)
FIELDS = st.lists(st.lists(WORDS.map(" ".join), min_size=1, max_size=2), min_size=1, max_size=2)


def naive_hits(items, turns, n, threshold, rule, most):
    """{item: coverage} from the definition: word by word, with exact fractions."""
    def ngrams(text):
        found = text.split()
        return [tuple(found[i:i + n]) for i in range(len(found) - n + 1)] if n else []

    have = {gram for turn in turns for gram in ngrams(turn)}
    spread = {gram: sum(any(gram in ngrams(text) for field in item for text in field) for item in items)
              for item in items for field in item for text in field for gram in ngrams(text)}
    hits = {}
    for number, fields in enumerate(items):
        shares, touched = [], False
        for field in fields:
            if field == turns or (len(field) == 1 and field[0] in turns):
                shares.append(Fraction(1))
                touched = True
                continue
            covered = counted = 0
            for text in field:
                found = ngrams(text)
                for word in range(len(text.split())):
                    around = [gram for i, gram in enumerate(found) if i <= word < i + n]
                    kept = [gram for gram in around if most is None or spread[gram] <= most]
                    covered += any(gram in have for gram in kept)
                    counted += bool(kept) or not around
            shares.append(Fraction(covered, counted) if counted else Fraction(0))
            touched |= covered > 0
        share = sum(shares) / len(shares)
        if share > Fraction(threshold) or (rule == "any" and touched):
            hits[number] = round(float(share), 4)
    return hits


@settings(max_examples=300)
@given(st.lists(FIELDS, min_size=1, max_size=5), st.lists(WORDS.map(" ".join), min_size=1, max_size=3), st.integers(0, 4),
       st.sampled_from([0.0, 0.25, 0.5]), st.sampled_from(["coverage", "any"]), st.sampled_from([None, 1, 2]), st.sampled_from([0, 8]))
def test_all_rules_against_the_twin(items, turns, n, threshold, rule, most, common):
    before, overlap.COMMON = overlap.COMMON, common
    try:
        index = Index(n, threshold, rule, most)
        for number, fields in enumerate(items):
            index.add("exam", str(number), *fields)
        assert {int(hit["id"]): hit["coverage"] for hit in index.find(turns)} == naive_hits(items, turns, n, threshold, rule, most)
    finally:
        overlap.COMMON = before


def test_rows_do_not_depend_on_what_is_beside_them():
    index = index_of(letters("abcdefghijkl"), "What is 1+1?", "東京は日本の首都です", n=5)
    rows = [[letters("abcdefghijkl")], [], ["what is 1 + 1"], ["x"], [letters("abcdefghij"), "東京は日本の首都ですか"], [""]]
    assert index.find_all(rows) == [index.find(turns) for turns in rows]
    assert [len(hits) for hits in index.find_all(rows)] == [1, 0, 1, 0, 2, 0] and index.find_all([]) == []


def test_scripts_without_spaces_and_from_right_to_left():
    index = index_of("北京是中华人民共和国的首都，也是全国的政治中心。", "ما هي عاصمة جمهورية مصر العربية وكم عدد سكانها اليوم؟")
    (hit,) = index.find(["请问：北京是中华人民共和国的首都 吗？"])
    assert hit["coverage"] == round(13 / 22, 4) and hit["span"] == " ".join("北京是中华人民共和国的首都"[:13])
    assert index.find(["北京是首都，也是中心。"]) == []
    assert index.find(["سؤال: ما هي عاصمة جمهورية مصر العربية وكم عدد سكانها"])[0]["id"] == "e1"


def test_a_saved_index_finds_the_same(tmp_path):
    items = [letters("abcdefghijkl"), "What is 1+1?", "東京は日本の首都です。人口は多い"]
    index = index_of(*items)
    with open(tmp_path / "index", "wb") as file:
        index.save(file.write)
    loaded = Index()
    loaded.add("quiz", "q", [letters("qrstuvwxyz")])
    loaded.load(str(tmp_path / "index"))
    loaded.add("quiz", "r", ["Late?"])
    rows = [[letters("abcdefghij")], ["what is 1+1"], ["東京は日本の首都です"], [letters("qrstuvwxyz")], ["late"]]
    found = loaded.find_all(rows)
    assert found[:3] == index.find_all(rows[:3]) and [hits[0]["id"] for hits in found[3:]] == ["q", "r"]
    assert loaded.sizes == {"quiz": 2, "exam": 3}
    data = (tmp_path / "index").read_bytes()
    (tmp_path / "torn").write_bytes(data[:-1])
    (tmp_path / "old").write_bytes(data.replace(b'\\"version\\": 1', b'\\"version\\": 0'))
    for name, why in (("torn", "not whole"), ("old", "another version|version 0")):
        with pytest.raises(BadData, match=why):
            Index().load(str(tmp_path / name))


def test_tables_of_parts_merge():
    one, two = Table(["web"]), Table(["web", "books"])
    one.add("web", [{"eval": "exam", "id": "a"}])
    two.add("web", [{"eval": "exam", "id": "a"}, {"eval": "exam", "id": "b"}])
    one.merge(two)
    assert [(r["source"], r["hit"], r["rows"]) for r in one.rows({"exam": 4})] == [("books", 0, 0), ("web", 2, 2)]


# --- the command, and real data -----------------------------------------------------------------------------------


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command(tmp_path, pt):
    rows = [{"id": f"r{i}", "source": "web", "messages": [{"role": "user", "content": f"Question {i}: {text}"}, {
        "role": "assistant", "content": answer}]} for i, (text, answer) in enumerate(
        [(letters("abcdefghij"), "x"), ("nothing", letters("abcdefghij")), ("nothing", letters("KLMNOPQRSTU")), ("clean", "y")])]
    jsonl(tmp_path / "a.jsonl", rows)
    jsonl(tmp_path / "exam.jsonl", [{"problem": letters("abcdefghij"), "solution": letters("klmnopqrstu"), "answer": "1"}])

    def kept(*more):
        done = pt("pt-curate", "decontaminate", "a.jsonl", "--against", *(more or ("exam.jsonl",)), check=0)
        return [json.loads(line)["id"] for line in done.out.splitlines()]

    assert kept() == ["r1", "r2", "r3"]
    assert kept("exam.jsonl", "--on", "all") == ["r2", "r3"]
    assert kept("exam.jsonl", "--on", "all", "--rule", "any", "--field", "prompt", "--field", "solution") == ["r3"]
    assert kept("exam.jsonl", "--field", "solution", "--on", "all") == ["r0", "r1", "r3"]
    assert kept("exam.jsonl", "--rule", "any", "--ngram", "11") == ["r0", "r1", "r2", "r3"]
    assert kept("exam.jsonl", "--save-index", "exam.index") == ["r1", "r2", "r3"] == kept("exam.index") == kept("exam.index", "-j", "2")
    line = (tmp_path / "a.jsonl").read_bytes().splitlines()[3]
    assert pt("pt-curate", "decontaminate", "a.jsonl", "--against", "exam.jsonl", check=0).stdout.splitlines()[2] == line
    assert "--field" in pt("pt-curate", "decontaminate", "a.jsonl", "--against", "exam.index", "--field", "prompt", check=2).err
    assert "no row has the field hint" in pt("pt-curate", "decontaminate", "a.jsonl", "--against", "exam.jsonl", "--field", "prompt",
                                             "--field", "hint", check=3).err
    assert "--coverage" in pt("pt-curate", "decontaminate", "a.jsonl", "--against", "exam.jsonl", "--rule", "any", "--coverage", "0.3",
                              check=2).err


def prompts_of(path):
    rows = json.loads(path.read_text()) if path.suffix == ".json" else [json.loads(line) for line in path.open()]
    for row in rows:
        try:
            yield record.ensure_id(record.convert(row))
        except ValueError:
            pass


def found_in(train, test):
    """{id of the test item: rows of train that it was found in} by the default rule."""
    index = Index()
    for rec in prompts_of(test):
        index.add("test", rec["id"], record.user_turns(rec))
    hits = {}
    for rec, found in zip(train, index.find_all([record.user_turns(rec) for rec in train])):
        for hit in found:
            hits.setdefault(hit["id"], []).append(rec)
    return index, hits


def test_gsm8k_train_against_its_test(data):
    """Looked at by eye: two test items are in train with other numbers or names, and nothing else is."""
    index, hits = found_in(list(prompts_of(data / "gsm8k" / "train.jsonl")), data / "gsm8k" / "test.jsonl")
    items = {id: fields[0][0] for _, id, fields in index.items}
    assert index.sizes == {"test": 1319}
    assert {items[id][:31]: [rec["prompt"][0]["content"][:33] for rec in rows] for id, rows in hits.items()} == {
        "Max bought stamps at the post o": ["Bella bought stamps at the post o"],
        "A plane travels 1200 miles in 3": ["A train travels 270 miles in 3 ho", "A train travels 360 miles in 3 ho"]}


def test_math_train_against_math500(data):
    """Looked at by eye: nearly all are problems of one template with other numbers; by Tulu 3's rule they count."""
    _, hits = found_in(list(prompts_of(data / "math" / "train.json")), data / "math" / "math500_test.jsonl")
    assert len(hits) == 55
    assert len(hits["test/counting_and_probability/1060.json"]) > 5  # "Determine the number of ways to arrange the letters of …"


def test_planted_prompts_in_dolly_are_all_found(data):
    """Every prompt of three evaluations, in another case and between other words; of Dolly's own rows one, which is there."""
    index, planted = Index(), []
    for name, path in (("gsm8k", data / "gsm8k" / "test.jsonl"), ("math", data / "math" / "math500_test.jsonl"), ("ifeval", data / "ifeval" / "input_data.jsonl")):
        for rec in prompts_of(path):
            index.add(name, rec["id"], record.user_turns(rec))
    dolly = [record.user_turns(rec) for rec in prompts_of(data / "dolly" / "dolly_3k.json")]
    for i, (_, _, fields) in enumerate(index.items):
        short = len(fields[0][0].split()) < 12
        before, behind = dolly[i % len(dolly)][0][:80], dolly[-i % len(dolly)][0][:80]
        planted.append([fields[0][0].upper() if short else f"{before} {fields[0][0].upper()} {behind}"])
    found = index.find_all(planted)
    missed = [item for item, hits in zip(index.items, found) if (item[0], item[1]) not in {(hit["eval"], hit["id"]) for hit in hits}]
    assert len(planted) > 2300 and not missed
    own = [(turns[0], hits) for turns, hits in zip(dolly, index.find_all(dolly)) if hits]
    assert [(text[:20], hits[0]["id"], hits[0]["coverage"]) for text, hits in own] == [("When did WWII begin?", "ifeval/1999", 0.5774)]
