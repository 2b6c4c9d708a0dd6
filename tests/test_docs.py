"""The documentation is run: generated pages follow the code, the life of a tick executes, commands and links exist.

A block of code under `<!-- runs -->` is executed, the shell ones line by line in an empty folder, into which the blocks under
`<!-- file: NAME -->` are written first; of every other shell block the commands and options must exist.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

from cli.main import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SHELL = re.compile(r"(<!-- runs -->\n+)?```bash\n(.*?)```", re.DOTALL)
NOTEBOOK = re.compile(r"<!-- runs -->\n+```python\n(.*?)```", re.DOTALL)
FILE = re.compile(r"<!-- file: (\S+) -->\n+```\w+\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def names(pages: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in pages]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_policy_page_follows_the_schema(generate: ModuleType) -> None:
    assert (DOCS / "policy.md").read_text("utf-8") == generate.policy_page(), "run: python docs/generate.py"


def test_features_page_follows_the_register(generate: ModuleType) -> None:
    assert (DOCS / "features.md").read_text("utf-8") == generate.features_page(), "run: python docs/generate.py"


def test_learning_page_follows_the_configuration(generate: ModuleType) -> None:
    page = (DOCS / "learning.md").read_text("utf-8")
    assert generate.learning_page(page) == page, "run: python docs/generate.py"


def test_topics_page_and_schema_files_follow_the_tables(generate: ModuleType) -> None:
    page = (DOCS / "topics.md").read_text("utf-8")
    assert generate.topics_page(page) == page, "run: python docs/generate.py"
    files = generate.schema_files()
    assert sorted(files) == sorted((DOCS / "schemas").glob("*.json"))
    for path, text in files.items():
        assert path.read_text("utf-8") == text, "run: python docs/generate.py"


def test_life_of_a_tick_executes(generate: ModuleType) -> None:
    page = (DOCS / "life_of_a_tick.md").read_text("utf-8")
    assert generate.executed(page) == page, "run: python docs/generate.py"


def lines(block: str) -> list[str]:
    found = block.replace("\\\n", " ").splitlines()
    return [line.strip() for line in found if line.strip() and not line.strip().startswith("#")]


def blocks(page: Path) -> list[tuple[bool, list[str]]]:
    return [(bool(marked), lines(text)) for marked, text in SHELL.findall(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_marked_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name, text in FILE.findall(page.read_text("utf-8")):
        (tmp_path / name).write_text(text, "utf-8")
    commands = [line for marked, found in blocks(page) if marked for line in found]
    for line in commands:
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path})
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    monkeypatch.chdir(tmp_path)
    for code in NOTEBOOK.findall(page.read_text("utf-8")):
        exec(compile(code, str(page), "exec"), {"__name__": "page"})


def parsed(words: list[str]) -> None:
    """Fail where the command line names a command or an option that does not exist."""
    command = typer.main.get_command(app)
    at = 0
    while hasattr(command, "commands") and at < len(words) and words[at] in command.commands:
        command = command.commands[words[at]]
        at += 1
    assert not hasattr(command, "commands") or "-" in words[at][:1], f"no such command: {words}"
    options = {o for p in command.params for o in p.opts} | {"--help", "-h"}
    for word in words[at:]:
        if word.startswith("--"):
            assert word.split("=")[0] in options, f"no such option {word}: {words}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_exist(page: Path) -> None:
    for _, found in blocks(page):
        for line in found:
            words = shlex.split(line, comments=True)
            if words and words[0] == "penstock":
                parsed(words[1 : words.index("|")] if "|" in words else words[1:])


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
