"""A non-finite number anywhere: exit 5, one line that names the tensor, and nothing made."""

import json

import pytest
from safetensors.torch import load_file, save_file

from test_signals import ROWS


@pytest.mark.parametrize("where", ["embed_tokens.weight", "mlp.down_proj.weight"])
@pytest.mark.parametrize("name", ROWS)
def test_nan_in_a_weight(pt, tmp_path, policy, name, where):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in policy.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensor = next(t for t in tensors if t.endswith(where))
    tensors[tensor][-1, 0] = float("nan")  # the last row of the embedding belongs to a token that no row here uses
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    done = pt(name, "rows.jsonl", "-m", "broken", "-o", "out", "--max-steps", "2", "--group-size" if name == "pt-rlvr" else "--seed", "4")
    assert done.returncode == 5 and done.out == "", done.err
    assert tensor in done.err and done.err.count("\n") == 1
    assert not list(tmp_path.glob("out*"))
