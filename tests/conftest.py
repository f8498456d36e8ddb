"""Shared by all tests: paths, real commands as processes, and the tiny models that they run on."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Nothing here may depend on how quick the machine is, and the same commit gives the same verdict every time.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The real public data sets, where they are at hand (PT_DATA, or ../shared/data)."""
    path = Path(os.environ.get("PT_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip("no real data here; set PT_DATA")
    return path


@pytest.fixture
def pt(tmp_path):
    """Run a command as a real process in tmp_path: pt("pt-sft", "rows.jsonl", …, input=b"") → CompletedProcess."""

    def run(*argv, input=None, check=None, cwd=tmp_path, **more):
        argv = [str(Path(sys.executable).parent / argv[0]), *map(str, argv[1:])]
        if isinstance(input, str):
            input = input.encode()
        done = subprocess.run(argv, input=input, capture_output=True, cwd=cwd, timeout=300, **more)
        done.out, done.err = done.stdout.decode(), done.stderr.decode()
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}, wanted {check}\n{done.err}"
        return done

    return run


@pytest.fixture
def limit():
    """`with limit(seconds)`: so much processor time, not time by the clock, else the test fails instead of hanging."""

    @contextlib.contextmanager
    def limited(seconds):
        before = signal.signal(signal.SIGPROF, lambda *_: pytest.fail(f"more than {seconds} s of processor time"))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    return limited


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The tiny world of seed 5, once for all tests: corpus, prompts, and blank/ (config and tokenizer)."""
    path = tmp_path_factory.mktemp("world")
    subprocess.run([sys.executable, str(ROOT / "scripts/tiny/world.py"), "--seed", "5", "-o", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def policy(world, tmp_path_factory) -> Path:
    """A model directory of the tiny world with random weights."""
    from pt_tools import models

    path = tmp_path_factory.mktemp("model") / "policy"
    model = models.from_config(str(world / "blank"), seed=1)
    models.save_model(model, models.load_tokenizer(str(world / "blank")), path)
    return path
