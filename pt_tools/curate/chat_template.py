"""A tokenizer's chat template, rendered as `transformers` does, without importing it.

The same environment: Jinja's immutable sandbox, blocks trimmed, loop controls, `tojson` without HTML escapes,
`raise_exception`, `strftime_now`, the generation block; the special tokens are variables; thoughts are called
`reasoning_content` and `thinking`.
"""

import json
import os


class ChatTemplate:
    """The chat template of a directory with a tokenizer, or that in the Jinja file `path`; `text` is None if there is none.

    `special` are the tokenizer's special tokens by name. ValueError for files that cannot be read or are no template.
    """

    def __init__(self, directory, path=None):
        config = _config(directory)
        self.text = _read(path) if path else _own(directory, config)
        self.special = {name: token for name in config if name.endswith("_token") and (token := _token(config[name]))}
        self._template = _compiled(self.text) if self.text is not None else None

    def render(self, messages, generate=False, tools=None) -> str:
        """The text of a conversation, with the beginning of an answer if `generate`. ValueError if the template fails."""
        if self._template is None:
            raise ValueError("the tokenizer has no chat template; name one with --chat-template")
        try:
            return self._template.render(messages=[_shown(turn) for turn in messages], tools=tools, documents=None,
                                         add_generation_prompt=generate, **self.special)
        except Exception as error:  # jinja raises whatever the template's own code raises
            raise ValueError(f"chat template: {(str(error) or type(error).__name__).splitlines()[0]}") from None


def _shown(turn):
    if "train" not in turn and "reasoning_content" not in turn:
        return turn
    turn = {key: value for key, value in turn.items() if key != "train"}
    return {"thinking": turn["reasoning_content"], **turn} if turn.get("reasoning_content") is not None else turn


def _config(directory):
    path = os.path.join(directory, "tokenizer_config.json")
    if not os.path.isfile(path):
        return {}
    try:
        config = json.loads(_read(path))
    except ValueError:
        raise ValueError(f"{path}: not JSON") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: not an object")
    return config


def _own(directory, config):
    path = os.path.join(directory, "chat_template.jinja")
    if os.path.isfile(path):
        return _read(path)
    text = config.get("chat_template")
    if isinstance(text, list):  # several by name
        found = [one for one in text if isinstance(one, dict) and one.get("name") == "default"]
        text = found[0].get("template") if found else None
    return text if isinstance(text, str) else None


def _token(value):
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def _compiled(text):
    import datetime

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} marks what a model says; here it is shown and no more."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)

    def refuse(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise ValueError(f"chat template: {str(error).splitlines()[0]}") from None
