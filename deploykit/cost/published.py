"""What the papers print for their networks, and what we count for the same ones.

`benchmarks/published_totals.py` writes the table into docs/cost.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploykit.cost.layer import StageCost

_INPUT = (1, 3, 224, 224)


@dataclass(frozen=True)
class Published:
    """One network of a paper.

    Attributes:
        name: What the table calls it.
        arch: The architecture that we count.
        mult_adds_m: Millions of mult-adds, from the least to the most that is printed.
        parameters_m: Millions of parameters, likewise; None where none are printed.
        source: Which paper or papers.
        note: Why ours differ, if they do.
        arch_kwargs: Arguments of the architecture.
        tolerance: How far outside of what is printed ours may lie, relative.
    """

    name: str
    arch: str
    mult_adds_m: tuple[float, float]
    parameters_m: tuple[float, float] | None
    source: str
    note: str = ""
    arch_kwargs: Mapping[str, int] = field(default_factory=dict)
    tolerance: float = 0.02


PUBLISHED: tuple[Published, ...] = (
    Published(
        "MobileNetV1 1.0",
        "timm/mobilenetv1_100",
        (569, 569),
        (4.2, 4.2),
        "Howard et al. 2017",
        "rounding",
    ),
    Published(
        "MobileNetV2 1.0",
        "timm/mobilenetv2_100",
        (300, 300),
        (3.4, 3.5),
        "Sandler et al. 2018",
        "rounding; the paper prints 3.4 M, published models have 3.5 M",
    ),
    Published(
        "MobileNetV3 large 1.0",
        "torchvision/mobilenet_v3_large",
        (217, 219),
        (5.4, 5.4),
        "Howard et al. 2019",
        "the paper prints 219 M, the authors' code 217 M; 5.459 M without BatchNormalization's",
    ),
    Published(
        "MobileNetV3 small 1.0",
        "torchvision/mobilenet_v3_small",
        (56, 66),
        (2.5, 2.9),
        "Howard et al. 2019",
        "two versions of the network are printed; ours is the smaller one",
    ),
    Published(
        "ShuffleNetV1 1x, g = 3",
        "deploykit/shufflenet_v1",
        (137, 140),
        None,
        "Zhang et al. 2018",
        "the paper prints 140 M, other papers 137 M",
        {"groups": 3},
    ),
    Published(
        "ShuffleNetV2 1x",
        "torchvision/shufflenet_v2_x1_0",
        (146, 146),
        (2.3, 2.3),
        "Ma et al. 2018",
        "145.6 M with the windows of the max-pool and the mean",
    ),
    Published(
        "EfficientNet-B0",
        "timm/efficientnet_b0",
        (390, 390),
        (5.3, 5.3),
        "Tan and Le 2019",
        "rounding: 0.39 billion is printed",
    ),
    Published(
        "GhostNet 1.0x",
        "timm/ghostnet_100",
        (141, 141),
        (5.2, 5.2),
        "Han et al. 2020",
        "rounding",
    ),
    Published(
        "MnasNet-A1",
        "timm/semnasnet_100",
        (312, 312),
        (3.9, 3.9),
        "Tan et al. 2019",
        "rounding",
    ),
    Published(
        "MnasNet-B1",
        "timm/mnasnet_100",
        (315, 315),
        (4.4, 4.4),
        "Tan et al. 2019",
        "0.2 % fewer",
    ),
)

HEADER = (
    *("network", "mult-adds, printed", "ours", "parameters, printed", "ours"),
    *("FLOPs", "memory access", "source", "difference"),
)


def count_published(entry: Published) -> StageCost:
    """Count a network as it is defined, before fusion; exporting it takes seconds.

    Raises:
        SourceError: the architecture is not there.
        MissingDependencyError: torch, timm or torchvision is not installed.
    """
    from deploykit.cost.profile import profile_model
    from deploykit.sources.architecture import build_architecture
    from deploykit.sources.load import load
    from deploykit.sources.options import LoadOptions

    module = build_architecture(entry.arch, entry.arch_kwargs).module
    model = load(module, options=LoadOptions(input_shape=_INPUT), name="counted")
    return profile_model(model).before


def published_row(entry: Published, cost: StageCost) -> str:
    """A row of the table, in Markdown."""
    parameters = "-" if entry.parameters_m is None else f"{_range(entry.parameters_m)} M"
    cells = (
        entry.name,
        f"{_range(entry.mult_adds_m)} M",
        f"{cost.mult_adds / 1e6:.2f} M",
        parameters,
        f"{cost.parameters / 1e6:.3f} M",
        f"{cost.flops / 1e6:.1f} M",
        f"{cost.mac_bytes / 1e6:.1f} MB",
        entry.source,
        entry.note or "none",
    )
    return f"| {' | '.join(cells)} |"


def published_table(rows: Sequence[str]) -> str:
    """The whole table, in Markdown."""
    return "\n".join([f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}", *rows])


def is_within(entry: Published, cost: StageCost) -> bool:
    """Whether ours lie within what is printed, and the tolerance."""
    pairs = [(cost.mult_adds / 1e6, entry.mult_adds_m)]
    if entry.parameters_m is not None:
        pairs.append((cost.parameters / 1e6, entry.parameters_m))
    return all(
        low * (1 - entry.tolerance) <= ours <= high * (1 + entry.tolerance)
        for ours, (low, high) in pairs
    )


def _range(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"
