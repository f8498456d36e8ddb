"""Synthesis: combinations, ids that stay, what is drawn, what is done, hostile templates and rows."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import jsonl, rows_of

from pt_tools import record
from pt_tools.curate import synth


PERSONAS = [{"persona": f"a baker of {i} loaves"} for i in range(8)] + [
    {"persona": "面包师"},
    {"id": "p9", "persona": "خباز", "x y": 5},
]
SEEDS = [{"prompt": "What is 2+2?", "domain": "math"}, {"instruction": "Name a colour.", "output": "Red."}]


@pytest.fixture
def here(tmp_path):
    jsonl(tmp_path / "personas.jsonl", PERSONAS)
    jsonl(tmp_path / "seeds.jsonl", SEEDS)
    (tmp_path / "math.jinja").write_text("Write a problem for {{ persona }}.\n")
    (tmp_path / "like.jinja").write_text(
        "{% if row['x y'] is defined %}{{ row['x y'] }}: {% endif %}\n{{ persona }} asks like: {{ seed }}"
    )
    return tmp_path


TEMPLATES = ("--template", "math.jinja", "--template", "like.jinja", "--seeds", "seeds.jsonl")


def test_all_combinations_by_hand(here, pt):
    """10 personas, one template without and one with 2 seed prompts: 10 * (1 + 2), in the order of the personas."""
    done = pt("pt-curate", "synth", "personas.jsonl", *TEMPLATES, check=0)
    made = rows_of(done.out)
    assert "rows: 30 in, 30 out" in done.err and len({rec["id"] for rec in made}) == 30
    texts = [rec["prompt"][0]["content"] for rec in made]
    assert texts[:3] == ["Write a problem for a baker of 0 loaves.", "a baker of 0 loaves asks like: What is 2+2?",
                         "a baker of 0 loaves asks like: Name a colour."]
    assert texts[-3:] == [
        "Write a problem for خباز.",
        "5: خباز asks like: What is 2+2?",
        "5: خباز asks like: Name a colour.",
    ]
    assert [rec["source"] for rec in made] == ["math", "like", "like"] * 10
    assert [rec.get("domain") for rec in made] == [None, "math", None] * 10
    assert made[-1]["synth"]["persona"] == "p9" and set(made[1]["synth"]) == {"template", "persona", "seed"}
    assert len({rec["synth"]["persona"] for rec in made}) == 10 and len({rec["synth"].get("seed") for rec in made}) == 3
    for rec in made:
        record.check(rec)


def test_ids_follow_from_what_a_request_is_made_of(here, pt):
    """Neither order nor further rows change an id; the template's text, the persona and the seed prompt do."""
    def ids(*argv):
        return {rec["prompt"][0]["content"]: rec["id"] for rec in rows_of(pt("pt-curate", "synth", *argv, check=0).out)}

    one = ids("personas.jsonl", *TEMPLATES)
    jsonl(here / "more.jsonl", [dict(reversed(row.items())) for row in reversed(PERSONAS)] + [{"persona": "new"}])
    jsonl(here / "seeds.jsonl", SEEDS[::-1])
    two = ids("more.jsonl", *TEMPLATES)
    assert one == {text: id for text, id in two.items() if "new" not in text} and len(two) == 33
    (here / "math.jinja").write_text("Write a problem for {{ persona }}. \n")  # the same prompt of another template
    three = ids("personas.jsonl", "--template", "math.jinja")
    assert three.keys() <= one.keys() and not set(three.values()) & set(one.values())


def test_repeated_rows_count_once(here, pt):
    jsonl(here / "twice.jsonl", PERSONAS[:3] + PERSONAS[:2] + [dict(reversed(PERSONAS[9].items())), PERSONAS[9]])
    jsonl(here / "seeds.jsonl", SEEDS + SEEDS)
    done = pt("pt-curate", "synth", "twice.jsonl", *TEMPLATES, check=0)
    assert len(rows_of(done.out)) == 4 * 3 and "repeated (3)" in done.err and "rows: 15 in, 12 out, 3 dropped" in done.err


# --- drawing ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(0, 5))
def test_an_order_is_a_permutation(n, seed):
    assert sorted(synth.shuffled(i, n, seed) for i in range(n)) == list(range(n))


def test_an_order_is_random():
    places = Counter()
    for seed in range(2000):
        places[synth.shuffled(0, 5, seed), synth.shuffled(1, 5, seed)] += 1
    assert len(places) == 20 and all(60 < n < 140 for n in places.values())  # 100 each; three standard deviations are 30
    halves = Counter(synth.shuffled(i, 10**9, 0) // (5 * 10**7) for i in range(2000))
    assert len(halves) == 20 and all(60 < n < 140 for n in halves.values())
    assert len({synth.shuffled(i, 10**15, 0) for i in range(1000)}) == 1000


def test_a_larger_count_has_the_smaller(here, pt):
    def drawn(count, seed=0):
        made = rows_of(pt("pt-curate", "synth", "personas.jsonl", *TEMPLATES, "--count", count, "--seed", seed, check=0).out)
        assert len(made) == min(count, 30)
        return [rec["id"] for rec in made]

    everything = drawn(30)
    few, more = drawn(7), drawn(19)
    assert set(few) < set(more) < set(everything) and few == [id for id in everything if id in set(few)]
    assert drawn(31) == everything and set(drawn(7, seed=1)) != set(few)


def test_every_combination_is_as_likely(here, pt):
    template = synth.Template(str(here / "math.jinja"))
    like = synth.Template(str(here / "like.jinja"))
    combinations = synth.Combinations(4, [template, like], SEEDS)
    found = Counter(int(n) for seed in range(900) for n in combinations.drawn(4, seed))
    assert len(found) == combinations.total == 12 and all(
        245 < n < 355 for n in found.values()
    )  # 300; three deviations are 42
    assert [combinations.of(n)[0] for n in range(12)] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert [combinations.of(n)[1:] for n in range(3)] == [(template, None), (like, SEEDS[0]), (like, SEEDS[1])]


# --- what is done -------------------------------------------------------------------------------------------------


def test_requests_that_are_answered_are_left_out(here, pt):
    argv = ("pt-curate", "synth", "personas.jsonl", *TEMPLATES, "--count", "20")
    made = rows_of(pt(*argv, check=0).out)
    answers = [{"text": "Fine."}], [{"text": "", "finish": "stop"}], [{"text": "x", "finish": "error"}], []
    jsonl(here / "answers.jsonl", [{**rec, "completions": answers[i % 4]} for i, rec in enumerate(made[:12])])
    done = pt(*argv, "--done", "answers.jsonl", check=0)
    assert (
        rows_of(done.out) == [rec for i, rec in enumerate(made) if i >= 12 or i % 4] and "answered already (3)" in done.err
    )
    counts = json.loads(pt(*argv, "--done", "answers.jsonl", "--dry-run", check=0).out)
    assert counts == {
        "personas": 10,
        "templates": 2,
        "seeds": 2,
        "combinations": 30,
        "drawn": 20,
        "answered": 3,
        "requests": 17,
    }
    all_ = jsonl(here / "all.jsonl", [{**rec, "completions": answers[0]} for rec in made])
    assert pt(*argv, "--done", "answers.jsonl", "--done", "all.jsonl", check=0).out == ""
    # A sampler that was killed leaves half a line.
    all_.write_text(all_.read_text()[:-20])
    assert "all.jsonl:20: not JSON" in pt(*argv, "--done", "all.jsonl", check=3).err
    assert rows_of(pt(*argv, "--done", "all.jsonl", "--on-error", "skip", check=0).out) == made[19:]


def test_sampling_goes_on(here, pt, policy):
    """Requests, answers of a model, the rest of the requests, and the answers as prompts."""
    argv = ("pt-curate", "synth", "personas.jsonl", "--template", "math.jinja")
    pt(*argv, "--count", "4", "-o", "r1.jsonl", check=0)
    sample = ("-m", policy, "--max-new-tokens", "8", "--seed", "3")
    pt("pt-sample", "r1.jsonl", *sample, "-o", "a1.jsonl", check=0)
    pt(*argv, "--done", "a1.jsonl", "-o", "r2.jsonl", check=0)
    first, rest = ({rec["id"] for rec in rows_of((here / name).read_text())} for name in ("a1.jsonl", "r2.jsonl"))
    answered = {rec["id"] for rec in rows_of((here / "a1.jsonl").read_text()) if rec["completions"][0]["text"].strip()}
    everything = {rec["id"] for rec in rows_of(pt(*argv, check=0).out)}
    assert len(first) == 4 and rest == everything - answered and len(everything) == 10
    (here / "answer.jinja").write_text("{{ completions[0].text }}")
    done = pt("pt-curate", "synth", "a1.jsonl", "--template", "answer.jinja", "--on-error", "skip", check=0)
    texts = [rec["completions"][0]["text"].strip() for rec in rows_of((here / "a1.jsonl").read_text())]
    prompts = rows_of(done.out)
    assert [rec["prompt"][0]["content"] for rec in prompts] == [
        text for text in texts if text and not record.TEMPLATE_TOKEN.search(text)
    ]
    assert all(rec["synth"]["persona"] in first for rec in prompts)


# --- hostile ------------------------------------------------------------------------------------------------------


def test_a_template_is_rendered_in_a_sandbox(here, pt):
    (here / "evil.jinja").write_text("{{ persona.__class__.__mro__ }}")
    done = pt("pt-curate", "synth", "personas.jsonl", "--template", "evil.jinja", check=3)
    assert "personas.jsonl:1: template evil: SecurityError" in done.err
    (here / "evil.jinja").write_text("{% set _ = row.update({'a': 1}) %}{{ persona }}")
    assert "SecurityError" in pt("pt-curate", "synth", "personas.jsonl", "--template", "evil.jinja", check=3).err
    # What a row says is data: a template in it stays text, and a chat template's marks are refused.
    jsonl(here / "rows.jsonl", [{"persona": "{{ 7*7 }} {% raw %}"}, {"persona": "a<|im_end|>b"}, {"persona": " "}, {"x": 1}])
    (here / "t.jinja").write_text("{{ persona }}")
    done = pt(
        "pt-curate", "synth", "rows.jsonl", "--template", "t.jinja", "--on-error", "skip", "--rejects", "bad.jsonl", check=0
    )
    assert [rec["prompt"][0]["content"] for rec in rows_of(done.out)] == ["{{ 7*7 }} {% raw %}"]
    assert "rows: 4 in, 1 out, 3 errored" in done.err
    assert [(bad["line"], bad["reason"]) for bad in rows_of((here / "bad.jsonl").read_text())] == [
        (2, "the text of template t contains the template token <|im_end|>"), (3, "the text of template t is empty"),
        (4, "template t: UndefinedError: 'persona' is undefined")]


@pytest.mark.parametrize(
    "argv,code,why",
    [
        ((), 2, "--template is required"),
        (("--template", "none.jinja"), 2, "none.jinja"),
        (("--template", "broken.jinja"), 2, "broken.jinja: "),
        (("--template", "fixed.jinja"), 2, "fixed has nothing of the persona's row"),
        (("--template", "math.jinja", "--seeds", "seeds.jsonl"), 2, "no template has {{ seed }}"),
        (("--template", "like.jinja"), 2, "give --seeds"),
        (("--template", "math.jinja", "--template", "math.jinja"), 2, "one is given twice"),
        (("--template", "math.jinja", "--dry-run", "-o", "x.jsonl"), 2, "leave out --out"),
        (("--template", "like.jinja", "--seeds", "bad.jsonl"), 3, "bad.jsonl:1: "),
        (("--template", "like.jinja", "--seeds", "empty.jsonl"), 3, "no seed prompts"),
        (("--template", "math.jinja", "--done", "none.jsonl"), 2, "none.jsonl"),
    ],
)
def test_wrong_use(here, pt, argv, code, why):
    (here / "broken.jinja").write_text("{{ persona ")
    (here / "fixed.jinja").write_text("Write a problem. {{ seed }}")
    jsonl(here / "bad.jsonl", [{"prompt": ""}])
    jsonl(here / "empty.jsonl", [])
    done = pt("pt-curate", "synth", "personas.jsonl", *argv, check=code)
    assert why in done.err and not (here / "x.jsonl").exists()


def test_real_seed_tasks(data, here, pt):
    """175 seed tasks of Self-Instruct as examples: all are used, from a pipe, into a packed file."""
    seeds = data / "sft" / "self_instruct_seeds.jsonl"
    done = pt("pt-curate", "synth", "--template", "like.jinja", "--seeds", seeds, "--count", "500", "-o", "r.jsonl.gz",
              input=(here / "personas.jsonl").read_bytes(), check=0)
    import gzip

    made = rows_of(gzip.decompress((here / "r.jsonl.gz").read_bytes()).decode())
    assert len(made) == 500 and len({rec["synth"]["seed"] for rec in made}) > 150 and len({rec["id"] for rec in made}) == 500
    assert "500 out" in done.err and not list(here.glob("*.run"))
