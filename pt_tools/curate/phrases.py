"""Phrases in texts: lists of a user's own, refusals, and what assistants say of themselves."""

import functools
import re
import unicodedata

from pt_tools.curate.words import words

BEGINNING = 400  # characters of an answer in which a refusal stands


class Phrases:
    """Phrases to be found in any case and spacing, as whole words; marks such as those of "c++" are parts of a phrase."""

    def __init__(self, phrases):
        self._by_first, marked = {}, []
        for phrase in filter(None, map(str.strip, phrases)):
            found = tuple(words(phrase))
            if found and all(char.isalnum() or char in " -'’" or unicodedata.category(char)[0] == "M" for char in phrase):
                self._by_first.setdefault(found[0], []).append((found, phrase))
            else:
                marked.append(phrase)
        if not self._by_first and not marked:
            raise ValueError("there are no phrases")
        self._marked = re.compile("|".join(map(_bordered, marked)), re.I) if marked else None

    def find(self, text: str) -> str:
        """The first phrase that occurs, "" if none does."""
        marked = self._marked and self._marked.search(text)
        if marked:
            return marked[0]
        if not self._by_first:
            return ""
        found = words(text)
        if self._by_first.keys().isdisjoint(found):
            return ""
        for i, word in enumerate(found):
            for phrase, name in self._by_first.get(word, ()):
                if tuple(found[i:i + len(phrase)]) == phrase:
                    return name
        return ""


def _bordered(phrase):
    """A pattern for a phrase whose first and last letters begin and end a word."""
    first, last = phrase[0].isalnum(), phrase[-1].isalnum()
    return (r"(?<!\w)" if first else "") + r"\s+".join(map(re.escape, phrase.split())) + (r"(?!\w)" if last else "")


def read(path: str) -> list[str]:
    """The phrases of a file: one a line, but for blank lines and those that begin with #. ValueError if it has none."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip() and not line.startswith("#")]
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8") from None


# --- refusals -----------------------------------------------------------------------------------------------------

_CANNOT = (r"(?:can(?:no|['’])?t|can not|won['’]?t|will not|(?:am|['’]m) (?:unable|not able) to|must not|should not|"
           r"refuse to)")
_REFUSALS = (
    rf"\bI {_CANNOT} (?:(?:in good conscience|ethically|legally|directly|really|possibly|just|actually) )?"
    r"(?:assist|help(?! but\b)|provide|fulfill?|comply|create|write|generate|answer|engage|support|continue|"
    r"do (?:that|this|so)|participate|give you|offer|share|discuss|respond|complete|produce|condone|promote|facilitate|accommodate|proceed|"
    r"tell you)\b",
    r"\bI(?:['’]m| am) (?:very |so |really |truly |deeply )?(?:sorry|afraid)\b[^.!?\n]{0,40}\bI?(?: |['’])?"
    r"(?:can(?:no|['’])?t|unable|not able|won['’]?t|not comfortable|not allowed|must decline)\b",
    r"\b(?:sorry|apologi[sz]e)[,.]? (?:but )?(?:I |this |that |we )?"
    r"(?:can(?:no|['’])?t|can not|unable|isn['’]t something|is not something)\b",
    r"\bI(?:['’]d| would) (?:prefer|rather) not\b",
    r"\bI(?:['’]m| am) not (?:comfortable|allowed|willing|permitted|going to (?:help|assist|provide|answer))\b",
    r"\bI (?:must|have to|need to) (?:respectfully |politely )?(?:decline|refuse)\b",
    r"\bI (?:do not|don['’]t) feel comfortable\b",
    r"\bagainst my (?:programming|guidelines|ethic\w*|polic\w+|values|principles)\b",
    r"\b(?:is|would be) (?:not appropriate|inappropriate) for me to\b",
    r"(?:抱歉|对不起|不好意思|遗憾)[^。！？\n]{0,20}(?:不能|无法|没办法|不可以)|我(?:不能|无法)(?:提供|协助|帮助|回答|满足|参与|生成)",
    r"申し訳(?:ありません|ございません)[^。\n]{0,40}(?:できません|できない|かねます)|죄송[^.\n]{0,50}(?:수 없|어렵)",
    r"\blo siento,? (?:pero )?no puedo|\bdésolée?,?[^.\n]{0,20}ne (?:peux|puis) pas|\bne (?:peux|puis) pas vous aider",
    r"\bich kann\b[^.!?\n]{0,40}\bnicht (?:weiter)?helfen\b|\btut mir leid[^.\n]{0,30}\bkann ich\b|\b(?:извините|простите|к сожалению)[^.\n]{0,20}не могу",
    r"(?:آسف|عذر)[^.\n]{0,25}لا (?:أستطيع|يمكنني)|מצטערת?[^.\n]{0,20}לא (?:יכול|אוכל)",
)


# Words without one of which no pattern fits: to look for them is far quicker.
_OF_REFUSALS = ("sorry", "afraid", "apolog", "cannot", "can't", "can’t", "cant ", "can not", "won't", "won’t", "wont ", "will not",
                "unable", "not able", "must not", "should not", "refuse", "rather not", "prefer not", "not comfortable",
                "feel comfortable", "not allowed", "not willing", "not permitted", "not going to", "decline", "against my",
                "appropriate for me", "不能", "无法", "没办法", "不可以", "申し訳", "죄송", "lo siento", "ne peux pas", "ne puis pas",
                "nicht helfen", "nicht weiterhelfen", "tut mir leid", "не могу", "آسف", "عذر", "מצטער")
_OF_SELVES = ("language model", "artificial intelligence", "machine learning model", "chatbot", "virtual assistant",
              "digital assistant", "computer program", "a.i.", "gpt", "claude", "bard", "gemini", "copilot", "llama", "qwen",
              "mistral", "deepseek", "grok", "ernie", "kimi", "vicuna", "alpaca", "openai", "by anthropic", "by google", "by meta",
              "by microsoft", "by alibaba", "by baidu", "by xai", "by moonshot", "by ai2", "by lmsys", "by cohere",
              "by stability", "knowledge cut", "my training", "my knowledge", "as of my", "my last", "my latest",
              "my most recent", "the internet", "real-time", "real time", "up-to-date", "up to date", "current information",
              "current data", "current access", "作为", "我是", "截止", "als ki", "als eine ki", "intelligenz", "sprachmodell",
              "en tant qu", "como ", "как ии", "искусственный интеллект", "языковая модель")
_AI_ALONE = re.compile(r" ai(?![a-z])")


@functools.cache
def _any(patterns):
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.I)


def refusal(text: str) -> str:
    """The words of a refusal at the beginning of an answer, "" if there are none."""
    from pt_tools.rewards import common

    text = common.part(text, "answer").strip()[:BEGINNING]
    found = may_refuse(text.lower()) and _any(_REFUSALS).search(text)
    return found[0] if found else ""


def may_refuse(lower: str) -> bool:
    return any(hint in lower for hint in _OF_REFUSALS)


# --- of themselves ------------------------------------------------------------------------------------------------

_AI = (r"(?:(?:advanced|helpful|responsible|large|text-based|trained|ethical) ){0,2}(?:AI|A\.I\.|artificial intelligence|"
       r"(?:AI )?language model|machine learning model|chatbot|virtual assistant|digital assistant|computer program)\b")
_MODELS = (r"(?:ChatGPT|GPT-?[345]\w*|Claude|Bard|Gemini|Copilot|LLaMA|Qwen|Mistral|DeepSeek|Grok|ERNIE|Kimi|Vicuna|"
           r"Alpaca)\b")
_MAKERS = (r"(?:OpenAI|Anthropic|Google|Meta|Microsoft|Mistral|Alibaba|DeepSeek|Baidu|xAI|Moonshot|AI2|LMSYS|Cohere|"
           r"Stability)\b")
_MADE_BY = rf"(?:trained|created|developed|made|built|designed|programmed) by {_MAKERS}"
_SELF = (
    rf"\bas an? {_AI}(?:[^.!?\n]{{0,60}}?\b(?:I|my|me)\b|,)",
    rf"\bI(?:['’]m| am)(?: (?:just|only|merely|simply|actually|still))* an? {_AI}",
    rf"\b(?:I(?:['’]m| am)|my name is|as|call me) {_MODELS}",
    rf"\bI(?: was|['’]ve been| have been|['’]m| am)\b[^.!?\n]{{0,40}}\b{_MADE_BY}",
    rf"\b(?:language model|AI assistant|AI model|chatbot) (?:that was |which was )?{_MADE_BY}[^.!?\n]{{0,60}}\bI\b",
    r"\bOpenAI(?:['’]s)? (?:content |usage |use[- ]case |safety )?(?:polic(?:y|ies)|guidelines)",
    r"\bknowledge cut[- ]?off\b",
    r"\bmy (?:training data|training|knowledge)(?: base)? (?:only )?"
    r"(?:cut[- ]?off|goes|extends|is limited|ends|ended|was last|is current)",
    r"\bas of my (?:last|latest|most recent|current|knowledge|training)\b[^.!?\n]{0,20}"
    r"(?:update|cut[- ]?off|training|knowledge|data)",
    r"\bmy (?:last|latest|most recent) (?:knowledge |training )?(?:update|cut[- ]?off)",
    r"\bI (?:do not|don['’]t|cannot|can['’]t) (?:have|access|provide|browse)(?: access to)? "
    r"(?:the internet|(?:real[- ]time|up[- ]to[- ]date|current) (?:information|data|access))",
    r"作为(?:一个|一名|一款)?(?:人工智能|AI|大?语言模型|聊天机器人)|(?:知识|训练数据)库?(?:的)?截止",
    r"我是(?:一个|一款|由)?[^。！？\n]{0,12}(?:OpenAI|ChatGPT|人工智能|语言模型|AI助手)",
    r"\bals (?:eine? )?(?:KI(?![\w-])|KI-(?:Sprachmodell|Modell|Assistent)|künstliche Intelligenz|(?:großes )?Sprachmodell)"
    r"[^.!?\n]{0,60}?\b(?:ich|mir|mich)\b",
    r"\ben tant qu(?:e |['’])(?:une? )?(?:IA\b|intelligence artificielle|(?:grand )?modèle de langage)[^.!?\n]{0,60}?\b(?:je|j['’])",
    r"\bcomo (?:una? )?(?:IA\b|inteligencia artificial|modelo de lenguaje)[^.!?\n]{0,60}?\b(?:no puedo|no tengo|puedo|mi|mis)\b",
    r"\bкак (?:большая )?(?:языковая модель|искусственный интеллект|ИИ\b)[^.!?\n]{0,60}?\b(?:я|мне|меня)\b",
)


def self_reference(text: str) -> str:
    """What an assistant says of itself as a machine, of its maker or of the end of its knowledge, "" if nothing."""
    found = may_tell(text.lower()) and _any(_SELF).search(text)
    return found[0] if found else ""


def may_tell(lower: str) -> bool:
    return any(hint in lower for hint in _OF_SELVES) or _AI_ALONE.search(lower) is not None
