"""The rules of the house, read from the source: no ambient time, chance or I/O where it thinks; small files; rooms that say what they are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = [room for room in ("schemas", "operators", "telemetry", "brokers", "sources", "sinks", "dataflows", "research", "control", "dashboards", "cli",
                           "bench") if (ROOT / room).is_dir()]
FILES = sorted(path for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py"))
PURE = sorted(path for room in ("schemas", "operators") for path in (ROOT / room).rglob("*.py"))
AMBIENT = {
    "time", "datetime", "random", "uuid", "threading", "asyncio", "socket", "secrets", "requests", "httpx", "urllib", "urllib3", "http", "subprocess",
    "multiprocessing", "concurrent", "select", "signal", "tempfile", "aiohttp", "bytewax", "confluent_kafka", "clickhouse_connect", "chdb", "ccxt",
}
MAY_READ_THE_MACHINE = {"schemas/kernel_cache.py": "says where compiled code is kept; no row depends on it"}
"""os, pathlib and shutil are for these files alone, among those that think."""
EDGES = ("sources", "sinks", "control", "cli")
LINES_MAX = 400
LONGER: dict[str, int] = {"operators/market/bars_kernel.py": 469}
"""Files that are longer, and how long they may be: a number here only ever goes down."""
IDS = [path.relative_to(ROOT).as_posix() for path in FILES]
PURE_IDS = [path.relative_to(ROOT).as_posix() for path in PURE]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, wherever in the file."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def attributes(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted text of every attribute that is named."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            yield node.lineno, ast.unparse(node)


def ambient(module: ast.Module, may_read: bool) -> list[str]:
    """What a file that thinks must not touch."""
    banned = AMBIENT if may_read else AMBIENT | {"os", "pathlib", "shutil", "io", "glob", "sys"}
    found = [f"line {line}: imports {name}" for line, name in imported(module) if name.split(".")[0] in banned and name != "io.BytesIO"]
    found += [f"line {line}: {name}" for line, name in attributes(module)
              if name in ("np.random", "numpy.random") or (not may_read and name == "os.environ")]
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "input", "eval", "exec", "print", "hash"):
            found.append(f"line {node.lineno}: calls {node.func.id}()")
    return found


def is_set(node: ast.expr) -> bool:
    """Whether an expression is plainly a set."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("list", "tuple", "enumerate", "iter"):
        return bool(node.args) and is_set(node.args[0])
    return isinstance(node, ast.Set | ast.SetComp) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset"))


def set_orders(module: ast.Module) -> list[int]:
    """Lines in which the order of a set decides something: a loop over one, or a list of one."""
    found = []
    for node in ast.walk(module):
        loops = [node.iter] if isinstance(node, ast.For | ast.comprehension) else []
        made = [node] if isinstance(node, ast.Call) and is_set(node) and getattr(node.func, "id", "") in ("list", "tuple", "enumerate", "iter") else []
        found += [where.lineno for where in (*loops, *made) if is_set(where)]
    return found


def broad(module: ast.Module) -> list[int]:
    """Lines of `except Exception`, `except BaseException` and bare `except` that do not raise again as their last word."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            wide = node.type is None or any(isinstance(c, ast.Name) and c.id in ("Exception", "BaseException") for c in caught)
            if wide and not isinstance(node.body[-1], ast.Raise):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", PURE, ids=PURE_IDS)
def test_what_thinks_touches_no_clock_chance_thread_or_file(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    assert ambient(tree(path), name in MAY_READ_THE_MACHINE) == []
    assert set_orders(tree(path)) == []


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_file_says_what_it_is_and_stays_small(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    if name != "tests/__init__.py":
        assert ast.get_docstring(ast.parse(text)), f"{name} has no docstring"
    lines, allowed = len(text.splitlines()), LONGER.get(name, LINES_MAX)
    assert lines <= allowed, f"{name} has {lines} lines, {allowed} are allowed: split it by what it does"
    if not name.startswith(EDGES):
        assert broad(ast.parse(text)) == [], f"{name} swallows every exception; only {', '.join(EDGES)} may"


def test_the_ratchet_only_goes_down() -> None:
    for name, allowed in LONGER.items():
        path = ROOT / name
        assert path.exists(), f"{name} is gone; take it off the list"
        assert LINES_MAX < len(path.read_text(encoding="utf-8").splitlines()) <= allowed, f"{name}: take it off the list"


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "bench"])  # the benches of peers run in environments of their own
def test_every_package_says_what_the_room_is_for(room: str) -> None:
    folders = {path.parent for path in (ROOT / room).rglob("*.py")}
    for folder in sorted(folders):
        start = folder / "__init__.py"
        assert start.exists() and ast.get_docstring(tree(start)), f"{folder.relative_to(ROOT)} has no __init__.py with a docstring"


@pytest.mark.parametrize("bad", [
    "import time", "from datetime import datetime", "def f():\n    import random", "import os", "import numpy as np\nnp.random.default_rng()",
    "open('x')", "hash('x')",
])
def test_the_rule_on_ambient_things_finds_them(bad: str) -> None:
    assert len(ambient(ast.parse(bad), may_read=False)) == 1


@pytest.mark.parametrize("bad", ["for x in {1, 2}: pass", "[x for x in set(y)]", "list({1})", "for i, x in enumerate({1}): pass", "tuple(frozenset(x))"])
def test_the_rule_on_the_order_of_sets_finds_it(bad: str) -> None:
    assert set_orders(ast.parse(bad))


@pytest.mark.parametrize("good", ["for x in sorted({1, 2}): pass", "1 in {1, 2}", "len(set(y))"])
def test_the_rule_on_the_order_of_sets_lets_the_rest_be(good: str) -> None:
    assert not set_orders(ast.parse(good))


def test_the_rule_on_exceptions_finds_the_wide_ones() -> None:
    wide = ["except Exception:\n    pass", "except:\n    pass", "except (ValueError, Exception):\n    x = 1", "except BaseException:\n    y = 2"]
    assert all(broad(ast.parse(f"try:\n    z\n{w}")) for w in wide)
    narrow = ["except ValueError:\n    pass", "except BaseException:\n    tidy()\n    raise"]
    assert not any(broad(ast.parse(f"try:\n    z\n{n}")) for n in narrow)
