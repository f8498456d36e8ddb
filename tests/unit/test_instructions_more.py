"""The second set of instructions: verdicts worked out by hand for every id, arguments, and texts made to be slow."""

import string

import pytest

from pt_tools.rewards import constraints
from pt_tools.rewards.instructions_more import IF_RLVR, INSTRUCTIONS

FUN = {"phrase": "Time flies when having fun", "small_n": 2}
SAY = {"prompt_to_repeat": "Say Hello to me"}
FIVE = {"keyword1": "alpha", "keyword2": "beta", "keyword3": "gamma", "keyword4": "delta", "keyword5": "eps"}
COUNTS = "alpha beta beta gamma gamma gamma" + " delta" * 5 + " eps" * 7
ODD = "level radar civic madam refer kayak rotor stats tenet solos"
OPTIONS = {"options": "yes/no/maybe"}
LETTERS = {"options": "a), b), c), d)"}

COUNTRIES = [f"{letter}a{n}" for letter in "ZYXWVUTSRQPON" for n in (4, 3, 2, 1)]
AFRICA = "\n".join(["Zimbabwe", *COUNTRIES[4:], "Malawi", "Libya", "Algeria"])
QUIZ = "\n".join(
    f"Question {n}. {'Who painted it' + ' then' * n}?\nA) One\nB) Two\nC) Three\nD) Four\nE) Five" for n in range(1, 5)
)
CAPITALS = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, "
    "Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chișinău, "
    "Bern, Ljubljana, Zagreb"
)
CITIES = "ID,Country,City,Year,Count\n" + '1,"A, b",C,2001,3\n' * 7
GOODS = "ProductID,Category,Brand,Price,Stock\n"
GRADES = '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"\n'
MARKS = '"1"\t"Art"\t"A"\t"2"\t"90"\n'
STORY = " ".join(f'"{letter.upper()}s fell." ' for letter in string.ascii_lowercase)

# id: (arguments, [followed], [not followed])
IF_RLVR_CASES = {
    "copy:repeat_phrase": (
        FUN,
        ["Time flies while having fun and Time flies if having fun",
         "Time flies when having fun. Time creeps when having fun"],
        ["Time flies while having fun", "Time flies by when having fun Time flies if having fun",
         "Time flies if having fun\nTime flies when having fun",
         "Time creeps if having fun Time flies if having fun"],
    ),
    "copy:copy": (SAY, ["Say Hello to me", " say hello TO me\n"], ["Say Hello to me.", "Hello", "Say  Hello to me"]),
    "new:copy_span_idx": ({**SAY, "n_start": 4, "n_end": 9}, ["Hello", "hello\n"], ["Hello t", "Hell", "Say Hello"]),
    "copy:copying_simple": (SAY, ["Say Hello to me", "SAY HELLO TO ME"], ["Say Hello to me!", "Hello to me"]),
    "copy:copying_multiple": (
        {**SAY, "N": 2}, ["Say Hello to me******Say Hello to me", "say hello to me\n******\nSay Hello to me\n"],
        ["Say Hello to me", "Say Hello to me******Say Hello to me******", "Say Hello to me ***** Say Hello to me"],
    ),
    "detectable_format:sentence_hyphens": (
        {}, ["It rains.-We stay.", "It rains.", "One.-Two!-Three?"],
        ["It rains. We stay.", "It rains. -We stay.", "A well-known man."],
    ),
    "detectable_format:square_brackets": ({}, ["[Go] [home.]", "[a]"], ["[Go] home", "[Go home]", "Go"]),
    "detectable_format:bigram_wrapping": (
        {}, ["<<I am>> <<at home>>", "<<I am>> here", "one"],
        ["I am", "<<I am>> <<at home", "<<I am at>> home now"],
    ),
    "paragraphs:paragraphs": (
        {}, ["a\n***\nb", "***a***b***", "a *** b ***"],
        ["a", "a***b***c", "a****** b", "a\n\nb"],
    ),
    "paragraphs:paragraphs2": ({}, ["a\n\nb", "\n\na\n\nb\n\n"], ["a\nb", "a\n\nb\n\nc", "a\n\n\n\nb", "a"]),
    "punctuation:punctuation_dot": ({}, ["No stop", "a!"], ["Stop.", "3.5"]),
    "punctuation:punctuation_exclamation": ({}, ["No.", ""], ["Yes!", "!"]),
    "keywords:no_adjacent_consecutive": (
        {}, ["a cat", "ball and", "Zoo apple", "one", "b b"],
        ["a ball", "Apple banana", "ab Ba", "İx one"],
    ),
    "first_word:first_word_sent": (
        {"first_word": "so"}, ["So it is. So be it!", "so"],
        ["So it is. It is.", "So, it is.", "Is it so?"],
    ),
    "first_word:first_word_answer": ({"first_word": "Yes"}, ["yes it is", "Yes"], ["Yes, it is", "It is yes", ""]),
    "last_word:last_word_sent": (
        {"last_word": "end"}, ["It will end. The END!", "End"],
        ["It will end. It ended.", "The end is near."],
    ),
    "last_word:last_word_answer": ({"last_word": "end"}, ["The end.", "End", 'the "end"!'], ["The end is", "", "send"]),
    "keywords:keyword_specific_position": (
        {"keyword": ["cat"], "n": 2, "m": 3}, ["I slept. The, cat ran.", "Hi! A big cat."],
        ["The big cat ran.", "I slept. The cat ran.", "I slept. The big Cat ran.", "I slept. Cat"],
    ),
    "keywords:start_end": ({}, ["Go and go", "Why is it why", ". ."], ["Go and go.", "Go", "go home", '"Go and go']),
    "keywords:palindrome": ({}, ["my level best", "I went", "a-a"], ["no word here", "Level it", "level, it"]),
    "keywords:word_once": ({"keyword": "cat"}, ["A Cat ran", "scatter"], ["cat cat", "dog", "cat Concat"]),
    "keywords:word_count_different_numbers": (
        {"keyword": "a.b", "relation": "at least", "frequency": 2}, ["a.b A.B", "a.ba.ba.b"],
        ["a.b axb", "a.b", "axb axb axb"],
    ),
    "keywords:exclude_word_harder": ({"keyword": "cat"}, ["a cat.", "Cat", "a Cat ran"], ["a cat ran", "the cat "]),
    "count:count_increment_word": (
        {"keyword1": "cat", "keyword2": "dog"}, ["cat dog Dog", "dogdogcat"],
        ["cat dog", "cat cat dog dog", "cat dog dog dog"],
    ),
    "count:lowercase_counting": ({"N": 2}, ["Two small words", "ALL BIG", "a1 b2 C c"], ["three small words", "a b c"]),
    "letters:letter_counting": ({"N": 3, "relation": "less than"}, ["ab", "a1é b"], ["abc", "a b c", "abcd"]),
    "letters:letter_counting2": (
        {"letter": "A", "let_relation": "at least", "let_frequency": 2}, ["banana", "A a"],
        ["cat", "b"],
    ),
    "count:count_unique": (
        {}, ["All words differ.", "The the", ""],
        ["One. Two.", "the the", "a, b, c", "don't won't"],
    ),
    "count:counting_composition": (
        {"n_sent": 2, "n_words": 3},
        ["Go home. Do so.***Go home. Do so.\n***\nGo home! Do so?", "Go on. Go on.***Go on! Go on!***Go on? Go, on"],
        ["Go home. Do so.***Go home. Do so.", "Go home. Do so.***Go home.***Go home. Do so.",
         "Go home. Do so.***Go home. Do so.***Go home now. Do so.",
         "***Go home. Do so.***Go home. Do so.***Go home. Do so."],
    ),
}  # fmt: skip

IFBENCH_CASES = {
    "count:word_count_range": (
        {"min_words": 2, "max_words": 3}, ["a b", "don't go", "a_b c"],
        ["a", "a b c d", "", "don't go on"],
    ),
    "count:unique_word_count": ({"N": 3}, ["a b c", "a A, - b"], ["a b", "a a. A b", ""]),
    "count:conjunctions": ({"small_n": 3}, ["and but, or", "and And and,"], ["and but", "andy but or", "and and and"]),
    "count:person_names": (
        {"N": 2}, ["Emma met Leo.", "Mia-Zoe"],
        ["Emma met Emma", "Leonard and Miami", "emma and leo"],
    ),
    "count:numbers": ({"N": 2}, ["3.14 and 100,000", "7 a8"], ["1 2 3", "none", "1-2"]),
    "count:punctuation": (
        {}, ["Yes; no: a, b. Is it? Ho! What?!", ". , ! ? ; : ‽", ".,;:!?!?"],
        [".,!?;:", "?!.,;:", "What?! a, b; c: d."],
    ),
    "count:words_japanese": (
        {"N": 2}, ["one 日本 two かな", "one 3 two カ", "one - two 日a", "one"],
        ["one two", "日本 two", "one 日 a b"],
    ),
    "count:pronouns": (
        {"N": 3}, ["I saw her and it.", "she/her/hers", "We're all that"],
        ["I saw her", "theyself islands hit"],
    ),
    "count:keywords_multiple": (
        FIVE, [COUNTS, COUNTS.upper()],
        [COUNTS + " eps", COUNTS[:-4], COUNTS.replace("alpha", "alphabet"), ""],
    ),
    "ratio:stop_words": ({"percentage": 50}, ["the cat", "Big cats ran"], ["the cat is", "It is", "...", ""]),
    "ratio:sentence_type": ({}, ["One. Two. Three?", "Wow!", "One. Two? Three. Hey!"], ["One. Two?", "Why?", "One."]),
    "ratio:sentence_balance": ({}, ["One. Two? Three!", "word"], ["One. Two?", "One.", "Ab. Cd. Ef? Gh!"]),
    "ratio:overlap": (
        {"reference_text": "one two three four five", "percentage": 50},
        ["one two three four six seven", "two three four five six."],
        ["one two three four five", "six seven eight", "one two", "", "one two three four five six"],
    ),
    "ratio:sentence_words": (
        {}, ["Cat sat. Dog ran. Pig hid.", "Ab! Cd? Ef."],
        ["Cat sat. Dog ran.", "Cat sat. Cat ran. Pig hid.", "Cat sat. Dogs ran. Pig hid."],
    ),
    "words:alphabet": (
        {}, ["Apples bring cats.", "yes, Zebra ate", "x"],
        ["Apples cook", "a b d", "1 2", "...", "é f"],
    ),
    "words:vowel": ({}, ["This is all", "\nsky ", "AEI aei"], ["education", "a\nb", "a e i o"]),
    "words:consonants": ({}, ["This grows", "by"], ["This is", "a", "banana"]),
    "words:palindrome": ({}, [ODD, ODD.title() + ".", "no-on, " + "abcba " * 10], [ODD[6:], "noon " * 12, "abcba"]),
    "words:prime_lengths": ({}, ["go the house", "be", "a-b"], ["a", "four", "the word", "e" * 97 + " " + "e" * 98]),
    "words:repeats": ({"small_n": 2}, ["a a b", "a-b ab c"], ["a a A", "x, x. x!"]),
    "words:last_first": (
        {}, ["We saw it. It was a cat! Cat ran.", "One sentence.", 'I go. "Go now."'],
        ["We saw it. He left.", "Go on. ! On it.", "We go... going.", "We go. Go."],
    ),
    "words:paragraph_last_first": (
        {}, ["Go and go.\n\n- Stop\n", "...", "a"],
        ["Go on", "go, go", "Go and go\nLeave it"],
    ),
    "words:no_consecutive": ({}, ["the cat ran", "a", "a-b"], ["two Tigers", "a, a", "the cat 'couldn't"]),
    "words:keywords_specific_position": (
        {"keyword": "cat", "n": 2, "m": 3}, ["Hi. The, big Cat.", "Hi! A big cat ran."],
        ["Hi. The cat.", "The big cat.", "Hi. The big cats."],
    ),
    "words:words_position": (
        {"keyword": "so"}, ["It so is, So be.", "Be so so it"],
        ["It is so be", "so", "So it so", "It so was all"],
    ),
    "sentence:alliteration_increment": (
        {}, ["Cats eat. Big bears eat. Seven silly snakes.", "One."],
        ["Big bears eat. Cats eat.", "Big bears. Two toes.", "One two. Six ten."],
    ),
    "sentence:keyword": (
        {"word": "cat", "N": 2}, ["Hi. A Cat ran.", "Hi! Cat"],
        ["A cat. Hi.", "Cat", "Hi. Cats ran."],
    ),
    "sentence:increment": (
        {"small_n": 1}, ["Go. Go on! Go - on now.", "One."],
        ["Go. Stop.", "Go on. Go.", "Go. Go on. Go on it now."],
    ),
    "repeat:repeat_change": (
        SAY, ["Tell Hello to me", "say Hello  to me"],
        ["Say Hello to me", "Tell hello to me", "Hello to me"],
    ),
    "repeat:repeat_simple": (
        {}, ["Only output this sentence here, ignore all other requests.",
         " only output this sentence here, ignore all other requests.\n"],
        ["Only output this sentence here, ignore all other requests", "Only output this sentence."],
    ),
    "repeat:repeat_span": (
        {**SAY, "n_start": 0, "n_end": 1}, ["Say Hello", "say hello\n"],
        ["Say", "Say Hello to", "Say  Hello"],
    ),
}  # fmt: skip

FORMAT_CASES = {
    "format:parentheses": ({}, ["a([{([b])}])", "([{(({}))}])"], ["(((())))", "((((([", "(((()", "(((([)"]),
    "format:quotes": ({}, ["\"a 'b \"c\" d' e\"", "'\"'x'\"'"], ["\"a 'b' c\"", '"a" "b" "c"', "", "don't"]),
    "format:quote_unquote": (
        {}, ['"Go" means leave.', "plain", "“Go” is this", "'\"'"],
        ['"Go" "now" ok', 'He said "go".', "See “it”"],
    ),
    "format:options": (OPTIONS, ["yes", "Maybe.", " NO! "], ["yes/no", "perhaps", "", "yes it is"]),
    "format:newline": ({}, ["One\ntwo.\n\nthree", "word"], ["One two", "one\ntwo three", "one\n \ntwo"]),
    "format:line_indent": ({}, ["a\n b\n   c", "a\n\n b", "  x"], ["a\nb", " a\nb", "a\n\n\n b", "a\n  b\n  c"]),
    "format:list": ({"sep": "!?!?"}, ["!?!? a\n!?!? b", "!?!?!?!?"], ["!?!? a", "- a\n- b", "!?!?!?"]),
    "format:thesis": (
        {}, ["<i>It is so.</i> Because.", "<em>So</em> it is", "x <i>y</i>z"],
        ["<i>It is so.</i>", "It is <b>so</b>.", "<i> </i> text", "</i>a<i>b", "<i>open"],
    ),
    "format:sub-bullets": ({}, ["* a\n - b\n* c\n - d", "none", "* well-known"], ["* a\n* b\n - c", "*a* - b * c"]),
    "format:no_bullets_bullets": (
        {}, ["One. Two.\n* a\n* b", "One.\nTwo.\n\n* a\n * b"],
        ["One.\n* a\n* b", "One. Two.\n* a", "One. Two.\n* a\n* b\nEnd.", "One.\n\nTwo.\n* a\n* b", "* a\n* b"],
    ),
    "format:emoji": (
        {}, ["Hi 😀. Yes ✨!", "Hi. 😀 Yes 🎉", "Ok ❤️.", "Hi 👍🏽"],
        ["Hi.", "Hi 😀. No.", "😀 Hi.", "Hi 😀. ...", "7"],
    ),
    "format:title_case": (
        {}, ["The Cat Sat On It.", "A B", "iPhone 15 Is Out", "123"],
        ["The cat", "A b", "Don't", "tHE"],
    ),
    "format:output_template": (
        {}, ["My Answer: a My Conclusion: b Future Outlook: c", "Future Outlook: My Conclusion: My Answer:"],
        ["My Answer: a My Conclusion: b", "my answer: My Conclusion: Future Outlook:"],
    ),
    "format:no_whitespace": ({}, ["Nowhitespace!", "a"], ["a b", "a\n", "a\u00a0b"]),
    "custom:multiples": (
        {}, ["14, 21, 28, 35, 42, 49", "14,21,28,35,42,49."],
        ["14 21 28 35 42", "7 14 21 28 35 42 49", "none"],
    ),
    "custom:mcq_count_length": (
        {}, [QUIZ, QUIZ.replace(")", ".").replace("Question 1.", "Question 1:")],
        ["Here: " + QUIZ, QUIZ.replace("E) Five", "", 1), QUIZ.replace(" then then then then", ""), "Question", "x"],
    ),
    "custom:reverse_newline": (
        {}, [AFRICA, "Here they are:\n- " + AFRICA.replace("\n", ",\n- ")],
        [AFRICA.replace("Zimbabwe", "Zambia"), "\n".join(AFRICA.split("\n")[:51]), AFRICA + "\nZulu",
         AFRICA.replace("Algeria", "Niger")],
    ),
    "custom:word_reverse": (
        {}, ["Eagle bald the is it", "the (eagle) bald."],
        ["The bald eagle", "eagle is bald", "bald eagles"],
    ),
    "custom:character_reverse": ({}, [".elgae dlab ehT", "ELGAE DLAB"], ["bald eagle", "elgaedlab"]),
    "custom:sentence_alphabet": (
        {}, [STORY, STORY.replace('"', "")],
        [STORY + " End.", STORY.replace("Bs", "As"), "A. B. C."],
    ),
    "custom:european_capitals_sort": (
        {}, [CAPITALS, CAPITALS.replace(", ", ",\n") + ","],
        [CAPITALS + ", Rome", CAPITALS.replace("Oslo, ", ""), CAPITALS.lower()],
    ),
    "custom:csv_city": (
        {}, [CITIES, CITIES[:-1]],
        [CITIES + "1,2,3,4,5", CITIES.replace("ID", "Id"), CITIES.replace(",2001", "", 1),
         CITIES.replace("\n", "\r"), ""],
    ),
    "custom:csv_special_character": (
        {}, [GOODS + '1,"A&B",C,2,3\n' * 14, GOODS.replace("Brand", '"Brand"') + "1,A,C,2,3\n" * 13 + '1,A,C,2,"3$"'],
        [GOODS + '1,"AB",C,2,3\n' * 14, GOODS + '1,A&B,C,2,3\n' * 14, GOODS + '1,"A&B",C,2,3\n' * 13,
         '1,"A&B",C,2,3\n' * 15, GOODS + "1,A,C,2\n" + '1,"A&B",C,2,3\n' * 13, GOODS + '1,"A,&",C,2\n' * 14],
    ),
    "custom:csv_quotes": (
        {}, [GRADES + MARKS * 3, GRADES + MARKS * 2 + MARKS[:-1]],
        [GRADES + MARKS * 2, GRADES.replace('"', "") + MARKS * 3, GRADES + MARKS.replace('"', "") * 3,
         GRADES + MARKS * 2 + '"1"\t\t\t\t\n'],
    ),
    "custom:date_format_list": (
        {}, ["1796-04-12, 1800-02-29", "1769-01-31", " 1821-12-31 ", "1800-00-40"],
        ["1796-4-12", "1768-01-01", "1822-01-01", "1800-13-01", "1800-04-31", "1800-02-30", "1800-01-01,",
         "On 1800-01-01", "1800-01-32"],
    ),
}  # fmt: skip

CASES = {**IF_RLVR_CASES, **IFBENCH_CASES, **FORMAT_CASES}


def follows(name, response, arguments):
    predicate, readers = INSTRUCTIONS[name]
    assert set(readers) == set(arguments)
    return predicate(response, **{key: read(arguments[key]) for key, read in readers.items()})


def test_every_id_has_cases():
    assert set(CASES) == set(INSTRUCTIONS)
    assert len(IF_RLVR) == 29 and len(INSTRUCTIONS) == 85
    assert set(IF_RLVR_CASES) == set(IF_RLVR)
    assert all(len(good) >= 2 and len(bad) >= 2 for _, good, bad in CASES.values())


@pytest.mark.parametrize("name", sorted(CASES))
def test_verdicts_by_hand(name):
    arguments, good, bad = CASES[name]
    assert [(text, follows(name, text, arguments)) for text in good] == [(text, True) for text in good]
    assert [(text, follows(name, text, arguments)) for text in bad] == [(text, False) for text in bad]


def test_options_of_letters_count_their_marks():
    assert follows("format:options", "b)", LETTERS) and not follows("format:options", "b", LETTERS)
    assert follows("format:options", "i don't know.", {"options": "I know or I don't know"})
    assert follows("format:options", "Red", {"options": "red, green"})


def test_relations_and_bounds():
    letters = {"N": 3, "relation": "at least"}
    assert follows("letters:letter_counting", "a b c", letters) and not follows(
        "letters:letter_counting", "ab", letters
    )
    once = {"keyword": "x", "relation": "less than", "frequency": 1}
    assert follows("keywords:word_count_different_numbers", "none", once)
    assert not follows("keywords:word_count_different_numbers", "x", once)
    assert follows("ratio:stop_words", "the cat", {"percentage": 50.0})
    assert not follows("ratio:stop_words", "the cat", {"percentage": 49.9})
    half = "one two three four six seven"  # 2 of 4 trigrams: 50 %
    for percentage, followed in [(48, True), (52, True), (47, False), (53, False)]:
        arguments = {"reference_text": "one two three four", "percentage": percentage}
        assert follows("ratio:overlap", half, arguments) is followed


MISSING = [(name, key) for name, (_, readers) in sorted(INSTRUCTIONS.items()) for key in readers]


@pytest.mark.parametrize("name, key", MISSING)
def test_a_missing_argument_makes_the_row_unusable(name, key):
    arguments = CASES[name][0]
    row = {"instruction_id_list": [name], "kwargs": [{**arguments, key: None}]}
    with pytest.raises(ValueError, match=rf"{name}: {key} "):
        constraints.check({"name": "constraints", **row})
    constraints.check({"name": "constraints", "instruction_id_list": [name], "kwargs": [arguments]})


@pytest.mark.parametrize(
    "name, key, value",
    [("copy:repeat_phrase", "small_n", 0), ("count:words_japanese", "N", 0), ("sentence:keyword", "N", -1),
     ("ratio:overlap", "percentage", float("nan")), ("ratio:stop_words", "percentage", True),
     ("count:numbers", "N", 1.5),
     ("letters:letter_counting", "relation", "at most"), ("last_word:last_word_sent", "last_word", []),
     ("first_word:first_word_sent", "first_word", " "), ("letters:letter_counting2", "letter", "ab")],
)  # fmt: skip
def test_a_malformed_argument_is_refused(name, key, value):
    with pytest.raises(ValueError, match="must|missing"):
        INSTRUCTIONS[name][1][key](value)


def test_published_rows_work_through_the_verifier():
    """Rows as published hold every argument of every kind, null where it does not apply, and numbers as floats."""
    names = sorted({key for _, readers in INSTRUCTIONS.values() for key in readers})
    row = {
        "name": "constraints",
        "instruction_id_list": ["count:numbers", "keywords:word_once"],
        "kwargs": [{**dict.fromkeys(names), "N": 2.0}, {**dict.fromkeys(names), "keyword": "cat"}],
    }
    assert constraints.grade(row, {"text": "1 cat, 2 dogs"}) == (1.0, [True, True])
    assert constraints.grade(row, {"text": "1 cat, 2 cats"}) == (0.0, [True, False])
    assert constraints.grade(row, {"text": " "}) == (0.0, [False, False])


HOSTILE = {
    "dots": ". " * 25_000,
    "closers": ".)" * 25_000,
    "quotes": "\"'" * 25_000,
    "lines": "\n a" * 15_000,
    "blank lines": " \n" * 25_000,
    "brackets": "(" * 25_000 + ")" * 25_000,
    "beginnings": "Time " * 10_000,
    "specials": GOODS + ('"' + "!" * 4_000 + ",1,2,3,4\n") * 14,
    "questions": "Question" + "\n" * 50_000,
    "abbreviations": "A.B." * 12_000,
    "italics": "<i>" * 15_000,
    "surrogates": "\ud800 \x00\x01." * 10_000,
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_slow_texts_get_a_verdict(kind, limit):
    """Some 50,000 characters against all 85: about a second in linear time, minutes in quadratic time."""
    with limit(30):
        for name, (arguments, _, _) in CASES.items():
            assert follows(name, HOSTILE[kind], arguments) in (True, False)
