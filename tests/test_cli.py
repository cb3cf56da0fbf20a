import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenq import __version__
from tokenq.cli import VERBS, main


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tokenq", *argv], capture_output=True, text=True, check=False)


def run_verb(body: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with one more verb, `act`, that does what `body` says."""
    lines = [
        "import sys",
        "from tokenq.cli import VERBS, main",
        "from tokenq.errors import DataError, Diverged",
        "def act(argv):",
        f"    {body}",
        "VERBS['act'] = (act, '')",
        "sys.exit(main(['act']))",
    ]
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


def test_help_is_instant_and_names_every_command() -> None:
    start = time.perf_counter()
    done = run("--help")
    assert time.perf_counter() - start < 1
    assert done.returncode == 0 and done.stderr == ""
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_nothing_heavy_is_imported_before_the_command_is_known() -> None:
    heavy = "print(sorted({'torch', 'numpy', 'yaml'} & {*sys.modules}))"
    code = f"import sys; from tokenq.cli import main; main(['--help']); {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tokenq {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], f"got no command, expected one of {', '.join(VERBS)}; see tokenq --help"),
        (["trian"], "did you mean 'train'?"),
        (["train", "--learning_rate", "fast"], "learning_rate: got 'fast' (str), expected float"),
        (["train", "absent.yaml"], "absent.yaml: No such file or directory; expected a YAML file"),
        (["pretrain", "--objective.bta", "1"], "unknown option '--objective.bta'"),
        (["evaluate"], "runs: missing, expected a list of str"),
        (["generate", "runs/a"], "prompt: got none"),
        (["env", "x"], "got 'x', expected nothing"),
    ],
)
def test_the_users_mistake_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tokenq: error: ") and message in err and err.count("\n") == 1


def test_python_m_tokenq_reports_the_status() -> None:
    done = run("trian")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("tokenq: error: got command 'trian'")


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"env"}))
def test_every_command_explains_its_options(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: tokenq {verb} ")


def test_print_config_resolves_a_file_and_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("objective: dqn\nmax_steps: 7\n")
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path / "a.yaml"), "--max_steps", "8", "--print_config"])
    shown = capsys.readouterr().out
    assert "max_steps: 8\n" in shown and "objective:\n  type: dqn\n" in shown


def test_env_names_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["tokenq"] == __version__ and lines["python"] == sys.version.split()[0] and lines["torch"]


@pytest.mark.parametrize(
    ("body", "status", "shown"),
    [
        ("raise DataError('row 3\\nis bad')", 2, "tokenq: error: row 3 is bad\n"),
        ("raise Diverged('loss is NaN')", 1, "tokenq: error: loss is NaN\n"),
        ("raise KeyboardInterrupt", 130, "tokenq: interrupted\n"),
        ("pass", 0, ""),
    ],
)
def test_status_of_every_end(body: str, status: int, shown: str) -> None:
    done = run_verb(body)
    assert (done.returncode, done.stderr) == (status, shown)


def test_a_fault_of_ours_shows_where_it_is() -> None:
    done = run_verb("1 / 0")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
