from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from deploykit.errors import ContractError, MissingDependencyError, UserError
from deploykit.flow import plan as planning
from deploykit.flow.plan import ConvertRequest, choose_runners, plan_artifacts
from deploykit.model import Precision
from deploykit.runners.base import RunnerDefinition
from deploykit.target_definition import TargetDefinition
from deploykit.target_options import TargetOption
from deploykit.verdict import SkippedTarget


def runner(name: str, **fields: Any) -> RunnerDefinition:
    return RunnerDefinition(
        name=name, backend="nowhere:Nothing", requires="numpy", extra="", runs="x", description="",
        **fields,
    )  # fmt: skip


def target(name: str, precisions: tuple[Precision, ...], **fields: Any) -> TargetDefinition:
    """As much of a target as planning asks for; it can write nothing."""
    nothing = {"writer": "nowhere:nothing", "lowering_table": "nowhere:nothing"}
    return TargetDefinition(name=name, precisions=precisions, **nothing, **fields)


DEPTH = TargetOption("depth", (), "1", "for wide alone", precisions=("int8",))
TARGETS: Mapping[str, TargetDefinition] = {
    "narrow": target("narrow", (Precision.FP32,), runners=(runner("slow"),)),
    "wide": target(
        "wide",
        tuple(Precision),
        options=(DEPTH,),
        runners=(runner("fast"), runner("asked", on_request=True), runner("other")),
    ),
}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """`TARGETS` are what is installed; returns: name → why one is not, to be filled in."""
    missing: dict[str, str] = {}
    runners = {r.name: r for target in TARGETS.values() for r in target.runners}
    monkeypatch.setattr(planning, "available_targets", lambda: dict.fromkeys(TARGETS, ""))
    monkeypatch.setattr(planning, "find_target", TARGETS.__getitem__)
    monkeypatch.setattr(planning, "find_runner", runners.__getitem__)
    monkeypatch.setattr(planning, "why_not_installed", lambda name: missing.get(name, ""))
    return missing


def planned(*targets: str, **fields: Any) -> list[tuple[str, str]]:
    plan, _ = plan_artifacts(ConvertRequest(targets, **fields))
    return [(target.name, precision.value) for target, precision in plan]


def test_each_target_that_is_named_has_each_precision_once() -> None:
    assert planned("wide", "wide", precisions=("int8", "fp32", "int8")) == [
        ("wide", "int8"),
        ("wide", "fp32"),
    ]


def test_without_a_precision_each_target_has_its_default_or_what_its_options_are_for() -> None:
    assert planned("all") == [("narrow", "fp32"), ("wide", "fp32")]
    assert planned("all", options={"wide": {"depth": "3"}}) == [
        ("narrow", "fp32"),
        ("wide", "int8"),
    ]


def test_all_names_the_precisions_that_a_target_does_not_write() -> None:
    plan, skipped = plan_artifacts(ConvertRequest(("all",), ("fp32", "w8")))
    assert [(t.name, p.value) for t, p in plan] == [
        ("narrow", "fp32"),
        ("wide", "fp32"),
        ("wide", "w8"),
    ]
    assert skipped == [SkippedTarget("narrow", "w8", "narrow writes fp32")]


def test_all_names_the_targets_that_are_not_installed(installed: dict[str, str]) -> None:
    installed["wide"] = "wide-kit is not installed: pip install 'deploykit[wide]'"
    plan, skipped = plan_artifacts(ConvertRequest(("all",), ("fp32",)))
    assert [t.name for t, _ in plan] == ["narrow"]
    assert skipped == [SkippedTarget("wide", "", installed["wide"])]
    assert not skipped[0].refused


def test_all_with_nothing_left_says_why_of_each(installed: dict[str, str]) -> None:
    installed["wide"] = "wide-kit is not installed"
    with pytest.raises(UserError, match="no target can be written") as caught:
        planned("all", precisions=("int8",))
    assert "narrow int8: narrow writes fp32" in caught.value.found
    assert "wide: wide-kit is not installed" in caught.value.found


def test_a_target_that_is_named_must_write_the_precision() -> None:
    with pytest.raises(UserError, match="narrow cannot be written as int8") as caught:
        planned("wide", "narrow", precisions=("int8",))
    assert caught.value.expected == "one of fp32"


@pytest.mark.parametrize("targets", [("all",), ("wide",)])
def test_an_unknown_precision_is_refused_with_the_known_ones(targets: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="unknown precision 'int4'") as caught:
        planned(*targets, precisions=("int4",))
    assert "fp32, fp16, w8, int8" in caught.value.expected


def test_nothing_to_make_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to make"):
        planned(precisions=("fp32",))


@pytest.mark.parametrize("targets", [("all",), ("wide",)])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"narrow": {"depth": "3"}}, "the target narrow has no option 'depth'|for narrow, which"),
        ({"nobody": {"depth": "3"}}, "for nobody, which nothing is written for"),
        ({"wide": {"depth": "deep"}}, "option depth is 'deep'"),
        ({"wide": {"width": "3"}}, "no option 'width'"),
    ],
)
def test_options_that_nobody_has_are_refused(
    targets: tuple[str, ...], options: Mapping[str, Mapping[str, str]], words: str
) -> None:
    with pytest.raises((ContractError, UserError), match=words):
        planned(*targets, precisions=("int8",), options=options)


def test_runners_are_those_of_each_target_but_those_on_request() -> None:
    request = ConvertRequest(("all",), ("fp32",))
    plan, _ = plan_artifacts(request)
    assert choose_runners(request, plan) == {"narrow": ("slow",), "wide": ("fast", "other")}


def test_a_runner_that_is_named_verifies_alone_even_on_request() -> None:
    request = ConvertRequest(("all",), ("fp32",), runners=("asked",))
    plan, _ = plan_artifacts(request)
    assert choose_runners(request, plan) == {"narrow": (), "wide": ("asked",)}


def test_a_runner_of_no_planned_target_is_refused_with_the_known_ones() -> None:
    request = ConvertRequest(("narrow",), ("fp32",), runners=("fast",))
    plan, _ = plan_artifacts(request)
    with pytest.raises(UserError, match="no runner of narrow is called fast") as caught:
        choose_runners(request, plan)
    assert caught.value.expected == "one of slow"


def test_without_verification_no_runner_is_chosen_or_asked_for_its_package() -> None:
    request = ConvertRequest(("wide",), ("fp32",), verify=False)
    plan, _ = plan_artifacts(request)
    assert choose_runners(request, plan) == {"wide": ()}


def test_a_runner_whose_package_is_missing_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    request = ConvertRequest(("wide",), ("fp32",))
    plan, _ = plan_artifacts(request)
    with pytest.raises(MissingDependencyError, match="'fast' needs the package 'numpy'"):
        choose_runners(request, plan)
