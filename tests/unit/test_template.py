"""--chat-template: the file is used, saved with the model, and renders what Tulu 3 trains on."""

from pathlib import Path

TULU = Path(__file__).resolve().parents[2] / "scripts/recipes/tulu.jinja"
CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]


def test_the_tulu_template(policy):
    from pt_tools import models, tokens

    tok = models.load_tokenizer(str(policy), str(TULU))
    assert tok.apply_chat_template(CHAT, tokenize=False) == f"<|system|>\nS\n<|user|>\nU\n<|assistant|>\nA{tok.eos_token}"
    assert tok.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True) == \
        "<|system|>\nS\n<|user|>\nU\n<|assistant|>\n"
    ids, labels = tokens.encode_chat(tok, CHAT)
    assert tok.decode([i for i, label in zip(ids, labels) if label != -100]) == f"A{tok.eos_token}"


def test_it_is_saved_and_changes_the_run_key(pt, policy, tmp_path):
    from pt_tools import models, outdir

    (tmp_path / "x.jsonl").write_text('{"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}\n')
    run = ("pt-sft", "x.jsonl", "-m", policy, "--max-steps", "1")
    pt(*run, "-o", "plain", check=0)
    pt(*run, "-o", "tulu", "--chat-template", TULU, check=0)
    assert models.load_tokenizer(str(tmp_path / "tulu")).chat_template == TULU.read_text()
    keys = [outdir.read_manifest(tmp_path / name)["key"] for name in ("plain", "tulu")]
    assert keys[0] != keys[1]
    done = pt(*run, "-o", "none", "--chat-template", "nowhere.jinja")
    assert done.returncode == 2 and "nowhere.jinja" in done.err
