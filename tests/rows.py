"""Records for tests: turns, files of them, and scored completions."""

import json


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def scored(*rewards, id="r", **more):
    completions = [{"text": f"answer {i}", "token_ids": [i, 9], "model": "m", "finish": "stop", "reward": r}
                   for i, r in enumerate(rewards)]
    return {"id": id, "source": "s", "domain": "d", "prompt": [user("u")], "prompt_ids": [1, 2], "tokenizer": "T",
            "template": "C", "completions": completions, **more}
