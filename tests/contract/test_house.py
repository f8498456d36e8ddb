"""Who may import whom, how large things may grow, and what may never appear in the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pt_tools"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "transformers", "trl", "accelerate", "datasets"}
BELOW = ("models", "tokens", "rollout", "kvcache", "scoring", "evaluation", "localchat", "objectives", "teachers", "trainers", "merge")
PURE = ("objectives", "merge.methods", "curate", "rewards")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def below(name: str) -> bool:
    return name.split(".")[0] in BELOW


def imports(path: Path, module_level: bool) -> set[str]:
    """Dotted names that a file imports; at module level only, or anywhere."""
    tree = ast.parse(path.read_text())
    inside = set()
    if module_level:
        functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
        inside = {child for function in functions for child in ast.walk(function)}
    out = set()
    for node in ast.walk(tree):
        if node in inside:
            continue
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            out |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return out


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def ours(names: set[str]) -> set[str]:
    return {name.removeprefix("pt_tools.") for name in names if name.startswith("pt_tools.")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports(path):
    name, top, everywhere = name_of(path), imports(path, True), imports(path, False)
    if not below(name):
        assert not tops(top) & HEAVY, "nothing above the torch line imports torch"
        assert not {n for n in ours(top) if below(n)}, "engines are imported inside functions only"
    if below(name) or name.split(".")[0] in ("curate", "rewards"):
        assert "click" not in tops(everywhere), "engines never import click"
    if not name.startswith("commands"):
        assert not {n for n in ours(everywhere) if n.startswith("commands")}, "nothing imports commands"
    if "trl" in tops(everywhere):
        assert name.split(".")[0] in ("trainers", "teachers", "rollout"), "trl is imported in few places"
    if name.startswith(PURE):
        assert not ours(everywhere) & {"stream", "outdir", "job"}, "pure rooms do no record I/O"


def test_the_walker_sees_what_it_should(tmp_path):
    (tmp_path / "x.py").write_text("import torch.nn\nfrom pt_tools import models\ndef f():\n    import trl\n")
    assert imports(tmp_path / "x.py", True) == {"torch.nn", "pt_tools", "pt_tools.models"}
    assert imports(tmp_path / "x.py", False) == {"torch.nn", "pt_tools", "pt_tools.models", "trl"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sizes(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{node.name} is too long"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_pickle_no_eval_no_remote_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("load", "save"), "weights and state are safetensors and JSON"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__")
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
    assert not tops(imports(path, False)) & {"pickle", "dill", "cloudpickle", "joblib"}


def test_no_heavy_import_in_a_real_process():
    """Importing every command and everything above the line loads neither torch nor a slow library."""
    above = [f"pt_tools.{name_of(p)}" for p in FILES if not below(name_of(p)) and name_of(p) != ""]
    code = f"import sys, importlib\nfor m in {above!r}: importlib.import_module(m)\n" \
           "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
