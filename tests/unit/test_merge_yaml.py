"""mergekit's YAML as it is: every key that is read, what it means for each tensor, and what is refused by name and line."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from pt_tools.errors import Usage
from pt_tools.merge import build, mergekit_yaml, methods
from pt_tools.merge.spec import Ref

LAYERS = 5


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Models base, a, b and c of five layers."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "a", "b", "c"):
        (tmp_path / name).mkdir()
        tensors = {f"model.layers.{n}.{part}.weight": np.ones((2, 2), np.float32)
                   for n in range(LAYERS) for part in ("self_attn.q", "mlp.up")}
        tensors |= {"model.embed_tokens.weight": np.ones((3, 2), np.float32), "model.norm.weight": np.ones(2, np.float32)}
        save_file(tensors, tmp_path / name / "model.safetensors")
        config = {"num_hidden_layers": LAYERS, "tie_word_embeddings": True, "vocab_size": 3}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    return tmp_path


def planned(text):
    """Name → planned tensor."""
    with open("merge.yml", "w") as file:
        file.write(text)
    spec = mergekit_yaml.read("merge.yml")
    built = build.build(spec, methods.get(spec.method), shard_size=10**9, seed=0)
    return {item.name: item for item in built.plan.items}, built


def sources(item):
    """(model, layer) of an item's sources; the layer None outside the layers."""
    parts = [(one.tensor.path.split("/")[0], one.tensor.name.split(".")) for one in item.sources]
    return [(model, int(name[2]) if name[1] == "layers" else None) for model, name in parts]


Q, UP = "model.layers.{}.self_attn.q.weight", "model.layers.{}.mlp.up.weight"

SLERP = """
slices:
  - sources:
      - {model: a, layer_range: [0, 5]}
      - {model: b, layer_range: [0, 5]}
merge_method: slerp
base_model: a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 1]
    - filter: mlp
      value: [1, 0]
    - value: 0.25
dtype: bfloat16
"""


def test_gradients_and_filters(here):
    items, built = planned(SLERP)
    assert [items[Q.format(n)].parameters.shared["t"] for n in range(LAYERS)] == [0, 0.25, 0.5, 0.75, 1]
    assert [items[UP.format(n)].parameters.shared["t"] for n in range(LAYERS)] == [1, 0.75, 0.5, 0.25, 0]
    assert items["model.norm.weight"].parameters.shared["t"] == 0.25
    assert {item.dtype for item in items.values()} == {"BF16"} and built.config["dtype"] == "bfloat16"


def test_what_is_in_no_layer_has_the_first_value_of_a_gradient(here):
    items, _ = planned("merge_method: slerp\nbase_model: b\nmodels:\n- model: a\n- model: b\nparameters: {t: [0.1, 0.9]}\n")
    assert items["model.embed_tokens.weight"].parameters.shared["t"] == items["model.norm.weight"].parameters.shared["t"] == 0.1
    assert sources(items[Q.format(0)]) == [("b", 0), ("a", 0)]  # the base is where t = 0


def test_the_nearest_level_that_has_a_fitting_value_wins(here):
    items, _ = planned("""
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 3]}
      - {model: a, layer_range: [0, 3], parameters: {weight: {filter: self_attn, value: 0.1}}}
      - {model: b, layer_range: [0, 3]}
    parameters: {weight: [{filter: layers.1, value: 0.2}], lambda: 3}
  - sources:
      - {model: base, layer_range: [3, 5]}
      - {model: a, layer_range: [3, 5]}
      - {model: b, layer_range: [3, 5], parameters: {weight: 0.4}}
parameters: {weight: [{filter: "*", value: 0.9}], lambda: 2, normalize: 1, density: 0.5, int8_mask: true}
""")
    weights = {name: [one["weight"] for one in item.parameters.own] for name, item in items.items()}
    assert weights[Q.format(0)] == [0.1, 0.9] and weights[Q.format(1)] == [0.1, 0.2] and weights[UP.format(1)] == [0.2, 0.2]
    assert weights[Q.format(4)] == [0.9, 0.4] and weights[UP.format(0)] == [0.9, 0.9]
    assert items[Q.format(0)].parameters.shared == {"lambda": 3, "normalize": True}
    assert items[Q.format(4)].parameters.shared["lambda"] == 2


def test_slices_are_stacked_and_a_filter_sees_each_models_own_name(here):
    items, built = planned("""
merge_method: linear
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: b, layer_range: [3, 5]}, {model: c, layer_range: [0, 2]}]
parameters: {weight: [{filter: layers.3., value: 0.7}, {value: 0.2}]}
""")
    assert built.config["num_hidden_layers"] == 4 and sources(items[Q.format(1)]) == [("a", 1)]
    assert sources(items[Q.format(2)]) == [("b", 3), ("c", 0)] and sources(items[UP.format(3)]) == [("b", 4), ("c", 1)]
    assert [one["weight"] for one in items[Q.format(2)].parameters.own] == [0.7, 0.2]
    assert sources(items["model.embed_tokens.weight"]) == [("a", None)]  # of the first slice …
    assert sources(items["model.norm.weight"]) == [("b", None), ("c", None)]  # … and of the last


def test_what_it_takes_for_granted_of_methods(here):
    ties = "merge_method: {}\nbase_model: base\nmodels:\n- model: a\n  parameters: {{weight: 1}}\n- model: base\n{}"
    for method, more, rescale in (("dare_ties", "", "l1"), ("della_linear", "parameters: {rescale: false}\n", "none"),
                                  ("ties", "", "none"), ("ties", "parameters: {rescale: true}\n", "l1"),
                                  ("dare_linear", "parameters: {rescale: [{filter: mlp, value: inverse}]}\n", "l1")):
        items, _ = planned(ties.format(method, more))
        assert items[Q.format(0)].parameters.shared["rescale"] == rescale
    assert items[UP.format(0)].parameters.shared["rescale"] == "inverse"


def read(text):
    with open("merge.yml", "w") as file:
        file.write(text)
    return mergekit_yaml.read("merge.yml")


def test_formats_tokenizers_and_adapters(here):
    base = "merge_method: linear\nmodels:\n- model: a+b\n- model: c\n"
    spec = read(base + "dtype: float16\nout_dtype: bfloat16\nchat_template: auto\n"
                "tokenizer: {source: union, pad_to_multiple_of: 64}\n")
    assert (spec.dtype, spec.tokenizer, spec.pad_to_multiple_of, spec.chat_template) == ("bfloat16", "union", 64, "auto")
    assert spec.models() == [Ref("a", "b"), Ref("c")]
    assert read(base + "tokenizer_source: base\n").tokenizer == "base" and read(base).tokenizer is None
    assert read(base + "tokenizer: {source: {model: c}}\n").tokenizer == "c" and read(base + "tokenizer: {}\n").tokenizer == "union"


def test_anchors_and_merged_keys(here):
    items, _ = planned("merge_method: linear\nmodels:\n- &first {model: a, parameters: {weight: 0.3}}\n- {<<: *first, model: b}\n")
    assert [one["weight"] for one in items[Q.format(0)].parameters.own] == [0.3, 0.3]
    assert sources(items[Q.format(0)]) == [("a", 0), ("b", 0)]


MODELS = "merge_method: linear\nmodels:\n- model: a\n"
REFUSED = [
    ("- 1\n", "merge.yml: the merge is not a mapping"), ("models: [{model: a}]\n", "merge.yml: merge_method is missing"),
    ("merge_method: linear\n", "merge.yml: exactly one of models and slices must be given"),
    (MODELS + "modules: {}\n", "merge.yml:4: the merge: key 'modules' is not supported"),
    (MODELS + "  layer_range: [0, 1]\n", "merge.yml:4: a model: key 'layer_range' is not supported"),
    (MODELS + "tokenizer:\n  source: base\n  tokens: {x: {source: a}}\n", "merge.yml:6: tokenizer: key 'tokens' is not supported"),
    (MODELS + "tokenizer_source: base\ntokenizer: {source: base}\n", "merge.yml:4: tokenizer and tokenizer_source exclude each other"),
    (MODELS + "dtype: int8\n", "merge.yml:4: dtype int8 is not supported; one of bfloat16, float16, float32"),
    (MODELS + "base_model: {model: {path: a}}\n", "merge.yml:4: base_model is not the name of a model"),
    (MODELS + "parameters: {weight: x}\n", "merge.yml:4: parameter weight: 'x' is not a number"),
    (MODELS + "parameters: {weight: []}\n", "merge.yml:4: parameter weight is empty"),
    (MODELS + "parameters: {weight: [{filter: a}]}\n",
     "merge.yml:4: parameter weight: an entry needs a value, and a filter that is a string"),
    (MODELS + "parameters: {weight: [{filters: a, value: 1}]}\n", "merge.yml:4: parameter weight: key 'filters' is not supported"),
    ("merge_method: linear\nslices:\n- sources: [{model: a}]\n", "merge.yml:3: every source of a slice needs a layer_range"),
    ("merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [2, 2]}]\n",
     "merge.yml:3: layer_range is not [first, after the last]"),
    ("merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 1]}]\n  residual_weight: 1\n",
     "merge.yml:4: a slice: key 'residual_weight' is not supported"),
    (MODELS + "dtype: float16\ndtype: float16\n", "merge.yml:1: not YAML: a key stands twice"),
    ("merge_method: [\n", "merge.yml:2: not YAML"),
    ("a: !!python/object/apply:os.system [x]\n", "merge.yml:1: not YAML: could not determine"),
    (MODELS + "---\n" + MODELS, "merge.yml:4: not YAML: but found another document"), ("\x00", "merge.yml: not YAML"),
    ("[" * 5000, "merge.yml: not YAML"), (MODELS + "  1: 2\n", "merge.yml:4: a model: key 1 is not supported"),
    (MODELS + "? [a, b]\n: 1\n", "merge.yml:4: not YAML"),
]


@pytest.mark.parametrize("text, line", REFUSED, ids=range(len(REFUSED)))
def test_refused_by_name_and_line(here, text, line):
    with pytest.raises(Usage) as caught:
        read(text)
    assert str(caught.value).startswith(line)


WRONG = [
    (MODELS + "parameters: {t: 0.5}\n", "linear has no parameter t (it has: normalize, weight)"),
    ("merge_method: linear\nmodels:\n- model: a\n  parameters: {normalize: true}\n",
     "normalize is a parameter of the merge, not of one model"),
    (MODELS + "parameters: {weight: .nan}\n", "weight: nan is not a number of float32"),
    (MODELS + "parameters: {weight: 1e39}\n", "weight: 1e+39 is not a number of float32"),
    (MODELS + "parameters: {weight: true}\n", "weight: True is not a number of float32"),
    (MODELS + "parameters: {normalize: 0.5}\n", "normalize: 0.5 is not true or false"),
    (MODELS + "parameters: {weight: 0}\n", "linear: the weights sum to 0, so they cannot be normalised"),
    ("merge_method: ties\nmodels:\n- model: a\n", "ties needs a base model"),
    ("merge_method: slerp\nmodels:\n- model: a\n", "slerp takes 2 models, not 1"),
    ("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [3, 6]}]\n", "a has layers 0 to 4; 3-6 asks for more"),
    ("merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 2]}]\n",
     "the layer ranges of a slice differ in length"),
    ("merge_method: arcee_fusion\nmodels:\n- model: a\n", "no such method: arcee_fusion"),
    (MODELS + "tokenizer_source: c\n", "--tokenizer-from: c is none of the models (a)"),
    (MODELS + "chat_template: chatml\n",
     "chat_template 'chatml' is not a Jinja template; mergekit's built-in names are not supported"),
]


@pytest.mark.parametrize("text, line", WRONG, ids=range(len(WRONG)))
def test_merges_that_cannot_be_meant(here, text, line):
    with pytest.raises(Usage) as caught:
        planned(text)
    assert str(caught.value).startswith(line)
