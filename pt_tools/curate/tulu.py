"""Constraints as Tulu 3's RLVR data spell them (`func_name` and arguments), in the words of IFEval.

Two of IFEval's bounds stand for "exactly" and "around", which IFEval does not have. What has no equal in IFEval is an
instruction of its own, `tulu:…`. Two details differ: Tulu counts words between spaces, and it asks for a letter case
only, where IFEval asks for English too.
"""


def constraints(truth: dict) -> tuple[list[str], list[dict]]:
    """(instruction_id_list, kwargs) that mean what Tulu's function does; ValueError where none do."""
    name = truth.get("func_name")
    if name not in _MAP:
        raise ValueError(f"no constraint verifier means the same as {name}")
    try:
        pairs = _MAP[name](truth)
    except (KeyError, TypeError):
        raise ValueError(f"{name} lacks an argument") from None
    return [id_ for id_, _ in pairs], [kwargs for _, kwargs in pairs]


def _plain(id_):
    return lambda t: [(id_, {})]


def _given(id_, **names):
    """The same argument under IFEval's name."""
    def make(t):
        kwargs = {ours: t[theirs] for ours, theirs in names.items()}
        if any(value is None for value in kwargs.values()):
            raise KeyError
        return [(id_, kwargs)]
    return make


def _between(id_, number, relation, low, high, **more):
    pairs = []
    if low is not None:
        pairs.append((id_, {number: low, relation: "at least", **more}))
    if high is not None:
        pairs.append((id_, {number: high + 1, relation: "less than", **more}))  # IFEval's "less than" is strict
    return pairs


def _exactly(id_, number, relation, ours, theirs):
    return lambda t: _between(id_, number, relation, t["N"], t["N"] + 0, **{ours: _text(t[theirs])})


def _counted(id_, number, relation, slack):
    def make(t):
        n, around = t["N"] + 0, slack(t["N"])
        bounds = {"at least": (n, None), "at most": (None, n), "around": (n - around, n + around)}
        if t["quantifier"] not in bounds:
            raise KeyError
        return _between(id_, number, relation, *bounds[t["quantifier"]])
    return make


def _text(value):
    if not isinstance(value, str):
        raise TypeError
    return value


def _tenth(n):
    return max(round(n * 0.1), 1)


_MAP = {
    "validate_lowercase": _plain("change_case:english_lowercase"),
    "validate_uppercase": _plain("change_case:english_capital"),
    "validate_no_commas": _plain("punctuation:no_comma"),
    "validate_quotation": _plain("startend:quotation"),
    "validate_json_format": _plain("detectable_format:json_format"),
    "validate_title": _plain("detectable_format:title"),
    "validate_two_responses": _plain("combination:two_responses"),
    "validate_repeat_prompt": _given("combination:repeat_prompt", prompt_to_repeat="original_prompt"),
    "validate_end": _given("startend:end_checker", end_phrase="end_phrase"),
    "validate_choice": _given("tulu:choice", options="options"),
    "verify_paragraph_count": _given("tulu:starred_paragraphs", num_paragraphs="N"),
    "validate_forbidden_words": _given("keywords:forbidden_words", forbidden_words="forbidden_words"),
    "verify_keywords": _given("keywords:existence", keywords="keyword_list"),
    "verify_postscript": _given("detectable_content:postscript", postscript_marker="postscript_marker"),
    "validate_placeholders": _given("detectable_content:number_placeholders", num_placeholders="N"),
    "verify_bullet_points": _given("detectable_format:number_bullet_lists", num_bullets="N"),
    "validate_highlighted_sections": _given("detectable_format:number_highlighted_sections", num_highlights="N"),
    "validate_sections": _given("detectable_format:multiple_sections", num_sections="N",
                                section_spliter="section_splitter"),
    "validate_response_language": _given("language:response_language", language="language"),
    "validate_paragraphs": _given("length_constraints:nth_paragraph_first_word", num_paragraphs="N",
                                  nth_paragraph="i", first_word="first_word"),
    "verify_keyword_frequency": _exactly("keywords:frequency", "frequency", "relation", "keyword", "word"),
    "verify_letter_frequency": _exactly("keywords:letter_frequency", "let_frequency", "let_relation", "letter",
                                        "letter"),
    "validate_word_constraint": _counted("length_constraints:number_words", "num_words", "relation", _tenth),
    "verify_sentence_constraint": _counted("length_constraints:number_sentences", "num_sentences", "relation", _tenth),
    "validate_frequency_capital_words": _counted("change_case:capital_word_frequency", "capital_frequency",
                                                 "capital_relation", lambda n: 0),
}
