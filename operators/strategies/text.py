"""Rules as one line of text, both ways: `rsi(14) < 30 and close < bollinger(20,2).lower`.

`parse_rule(rule_text(node)) == node` for every valid tree. The grammar, loosest first:

    or   := and ("or" and)*                 and  := not ("and" not)*             not := "not" not | compare
    compare := sum (("<"|"<="|">"|">="|"=="|"!=") sum)*        a < b < c means a < b and b < c
    sum  := term (("+"|"-") term)*          term := unary (("*"|"/") unary)*     unary := "-" unary | value
    value := number | [timeframe ":"] name ["(" parameters ")"] ["." output] | "(" or ")"
           | ("crosses_above"|"crosses_below"|"min"|"max") "(" or "," or ")"
           | "abs" "(" or ")" | "lag" "(" or "," bars ")"
"""

import re
from typing import NoReturn, cast

from operators.strategies.rules import (
    ARITH_OPS,
    CALLS,
    COMPARE_OPS,
    CROSS_OPS,
    DEPTH_MAX,
    AllOf,
    AnyOf,
    Arith,
    ArithOp,
    Call,
    CallName,
    Compare,
    Cross,
    Lag,
    Level,
    Node,
    Not,
    Number,
    Ref,
    StrategySpec,
    clauses,
)
from schemas.errors import UserError

TEXT_MAX = 4096

_TOKEN = re.compile(r"""\s*(?:
    (?P<timeframe>\d+[smhd])\s*:
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<op><=|>=|==|!=|[-+*/<>(),.])
)""", re.VERBOSE)
_PARAMETERS = re.compile(r"\s*\(([^()]*)\)")
_OUTPUT = re.compile(r"\s*\.\s*([A-Za-z_]\w*)")
_WORDS = ("and", "or", "not")


class _Parser:
    """Recursive descent over the text; `at` is the place of the token that comes next."""

    def __init__(self, text: str) -> None:
        if len(text) > TEXT_MAX:
            raise UserError(f"a rule of {len(text)} characters; at most {TEXT_MAX} are allowed")
        self.text = text
        self.depth = 0
        self.end = 0
        self.advance()

    def advance(self) -> None:
        self.at = self.end
        found = _TOKEN.match(self.text, self.end)
        if found is None:
            rest = self.text[self.end:].lstrip()
            self.kind, self.token = "end", ""
            self.at = len(self.text) - len(rest)
            if rest:
                self.fail(f'"{rest[0]}" has no meaning here')
            return
        self.kind = str(found.lastgroup)
        self.token = found[self.kind]
        self.at, self.end = found.start(self.kind), found.end()

    def fail(self, what: str) -> NoReturn:
        raise UserError(f'{what}, at character {self.at + 1} of "{self.text}"')

    def wanted(self, what: str) -> NoReturn:
        self.fail(f"expected {what}, found " + (f'"{self.token}"' if self.kind != "end" else "the end"))

    def take(self, token: str) -> None:
        if self.kind != "op" or self.token != token:
            self.wanted(f'"{token}"')
        self.advance()

    def word(self, token: str) -> bool:
        if self.kind == "name" and self.token == token:
            self.advance()
            return True
        return False

    def either(self) -> Node:
        self.depth += 1
        if self.depth > 2 * DEPTH_MAX:
            self.fail("brackets too deep")
        args = [self.both()]
        while self.word("or"):
            args.append(self.both())
        self.depth -= 1
        return args[0] if len(args) == 1 else AnyOf(tuple(args))

    def both(self) -> Node:
        args = [self.negation()]
        while self.word("and"):
            args.append(self.negation())
        return args[0] if len(args) == 1 else AllOf(tuple(args))

    def negation(self) -> Node:
        nots = 0
        while self.word("not"):
            nots += 1
        node = self.compare()
        for _ in range(nots):
            node = Not(node)
        return node

    def compare(self) -> Node:
        left = self.sum()
        found: list[Node] = []
        while self.kind == "op" and self.token in COMPARE_OPS:
            op = self.token
            self.advance()
            right = self.sum()
            found.append(Compare(op, left, right))
            left = right
        if not found:
            return left
        return found[0] if len(found) == 1 else AllOf(tuple(found))

    def sum(self) -> Node:
        node = self.term()
        while self.kind == "op" and self.token in "+-":
            op = cast(ArithOp, self.token)
            self.advance()
            node = Arith(op, node, self.term())
        return node

    def term(self) -> Node:
        node = self.unary()
        while self.kind == "op" and self.token in "*/":
            op = cast(ArithOp, self.token)
            self.advance()
            node = Arith(op, node, self.unary())
        return node

    def unary(self) -> Node:
        minus = 0
        while self.kind == "op" and self.token == "-":
            minus += 1
            self.advance()
        node = self.value()
        for _ in range(minus):
            node = Number(-node.value) if isinstance(node, Number) else Arith("-", Number(0.0), node)
        return node

    def value(self) -> Node:
        if self.kind == "number":
            number = float(self.token)
            self.advance()
            return Number(number)
        if self.kind == "op" and self.token == "(":
            self.advance()
            node = self.either()
            self.take(")")
            return node
        timeframe = None
        if self.kind == "timeframe":
            timeframe = self.token
            self.advance()
        if self.kind != "name" or self.token in _WORDS:
            self.wanted("a value")
        if timeframe is None and (self.token in CALLS or self.token in CROSS_OPS or self.token == "lag"):
            return self.function(self.token)
        return Ref(self.reference(), timeframe)

    def reference(self) -> str:
        """A name with its parameters and output, without blanks."""
        name = self.token
        parameters = _PARAMETERS.match(self.text, self.end)
        if parameters:
            name += "(" + re.sub(r"\s+", "", parameters[1]) + ")"
            self.end = parameters.end()
        output = _OUTPUT.match(self.text, self.end)
        if output:
            name += "." + output[1]
            self.end = output.end()
        self.advance()
        return name

    def function(self, name: str) -> Node:
        self.advance()
        self.take("(")
        args = [self.either()]
        if name == "lag":
            self.take(",")
            if self.kind != "number" or not self.token.isdigit():
                self.wanted("a whole number of bars")
            node: Node = Lag(args[0], int(self.token))
            self.advance()
        elif name in CROSS_OPS:
            self.take(",")
            node = Cross(name, args[0], self.either())
        else:
            while len(args) < CALLS[name]:
                self.take(",")
                args.append(self.either())
            node = Call(cast(CallName, name), tuple(args))
        self.take(")")
        return node


def parse_rule(text: str) -> Node:
    """The tree of a line of text; UserError with the place where it goes wrong. Names and types are not checked."""
    parser = _Parser(text)
    node = parser.either()
    if parser.kind != "end":
        parser.wanted("the end or an operator")
    return node


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number."""
    if abs(value) < 1e15 and value == int(value):
        return str(int(value))
    return repr(value)


_OR, _AND, _NOT, _COMPARE, _SUM, _TERM, _VALUE = range(7)


def _strength(node: Node) -> int:
    """How tightly the node's text binds; a looser one inside a tighter one is put in brackets."""
    if isinstance(node, AnyOf):
        return _OR
    if isinstance(node, AllOf):
        return _AND
    if isinstance(node, Not):
        return _NOT
    if isinstance(node, Compare):
        return _COMPARE
    if isinstance(node, Arith):
        return _SUM if node.op in ARITH_OPS[:2] else _TERM
    return _VALUE


def rule_text(node: Node) -> str:
    """The tree as one line that `parse_rule` reads back."""

    def inner(child: Node, least: int) -> str:
        text = rule_text(child)
        return text if _strength(child) >= least else f"({text})"

    if isinstance(node, Number):
        return number_text(node.value)
    if isinstance(node, Ref):
        return node.name if node.timeframe is None else f"{node.timeframe}:{node.name}"
    if isinstance(node, AnyOf | AllOf):
        word = " or " if isinstance(node, AnyOf) else " and "
        return word.join(inner(arg, _strength(node) + 1) for arg in node.args)
    if isinstance(node, Not):
        return "not " + inner(node.arg, _NOT)
    if isinstance(node, Lag):
        return f"lag({rule_text(node.arg)}, {node.bars})"
    if isinstance(node, Call):
        return f"{node.name}({', '.join(rule_text(arg) for arg in node.args)})"
    if isinstance(node, Cross):
        return f"{node.op}({rule_text(node.left)}, {rule_text(node.right)})"
    if isinstance(node, Compare):
        return f"{inner(node.left, _SUM)} {node.op} {inner(node.right, _SUM)}"
    strength = _strength(node)
    return f"{inner(node.left, strength)} {node.op} {inner(node.right, strength + 1)}"


def level_text(level: Level) -> str:
    """A stop, target or trail in words."""
    text = rule_text(level.value)
    if level.kind == "price":
        return f"at {text}"
    return f"{text} %" if level.kind == "percent" else f"{text} away"


def to_text(spec: StrategySpec) -> str:
    """A strategy for people: a heading, then a line for each clause."""
    lines = [f"{spec.name} ({spec.side}, {spec.timeframe}) {spec.content_hash()}"]
    for clause, side, part in clauses(spec):
        heading = clause if spec.side != "both" else f"{clause} {side}"
        lines.append(f"  {heading}: {level_text(part) if isinstance(part, Level) else rule_text(part)}")
    if spec.hold_bars:
        lines.append(f"  hold at most {spec.hold_bars} bars")
    if spec.cooldown_bars:
        lines.append(f"  wait {spec.cooldown_bars} bars after an exit")
    return "\n".join(lines)
