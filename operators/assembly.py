"""From a configuration to operators: the market shard's chain and the account's desk. Everything that runs them uses these two."""

from collections.abc import Sequence
from dataclasses import dataclass

from operators.desk.desk import DeskOperator
from operators.market.bars import Bars, BarsConfig
from operators.market.features import Features
from operators.market.features.registry import expand
from operators.market.quality import Quality, QualityConfig
from operators.protocol import Chain, Operator
from operators.strategies.orchestrator import Strategies, allocations
from operators.strategies.rules import StrategySpec, required_features
from schemas.config import Config
from schemas.errors import UserError


@dataclass(frozen=True)
class Plan:
    """A configuration with its strategies read and its features resolved."""

    config: Config
    specs: tuple[StrategySpec, ...]
    intervals_ns: tuple[int, ...]
    features: dict[int, tuple[str, ...]]
    weights: tuple[float, ...]

    @property
    def strategy_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.specs)


def plan(config: Config, specs: Sequence[StrategySpec]) -> Plan:
    """Resolve which bars and features are needed; UserError for what does not exist."""
    needed: dict[int, list[str]] = {ns: list(names) for ns, names in required_features(specs).items()} if specs else {}
    for interval_ns, names in config.features.items():
        needed.setdefault(interval_ns, []).extend(names)
    for spec in specs:
        needed.setdefault(spec.interval_ns, [])
    features = {ns: tuple(dict.fromkeys(r.text for r in expand(names))) for ns, names in sorted(needed.items())}
    intervals = tuple(sorted({*config.intervals_ns, *features}))
    weights = config.allocation or (allocations(specs) if specs else ())
    if len(weights) != len(specs):
        raise UserError(f"allocation has {len(weights)} shares for {len(specs)} strategies; give one for each")
    return Plan(config, tuple(specs), intervals, features, tuple(weights))


def market_chain(plan: Plan) -> Chain:
    """quality → bars → features → strategies, for one shard."""
    config = plan.config
    try:
        quality = QualityConfig(**config.quality)
    except TypeError as error:
        raise UserError(f"quality: {str(error).split('() ')[-1]}") from None
    bars = BarsConfig(plan.intervals_ns, config.tick_bars, config.volume_bars, config.dollar_bars)
    steps: list[Operator] = [Quality(quality), Bars(bars), Features(plan.features)]
    if plan.specs:
        steps.append(Strategies(plan.specs, conflict=config.conflict))
    return Chain(steps, "market")


def desk(plan: Plan, external: bool = False) -> DeskOperator:
    """The money side of the account. external: its orders are approvals for a venue whose reports are on the tape, instead of being
    filled by the paper venue."""
    return DeskOperator(plan.config.policy, plan.strategy_names, plan.weights, plan.config.account, external)
