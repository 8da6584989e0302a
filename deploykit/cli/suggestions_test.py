from __future__ import annotations

import pytest

from deploykit.cli import main


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["convert", "m.pt", "--calibrte", "photos"], "(did you mean --calibrate?)"),
        (["verify", "b", "--fail-in=warning"], "(did you mean --fail-on?)"),
    ],
)
def test_an_unknown_flag_suggests_the_nearest(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert meant in capsys.readouterr().err


def test_nothing_near_suggests_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "b", "--zzzzzzzzz"])
    assert "did you mean" not in capsys.readouterr().err


def test_nothing_given_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 0
    assert "exit codes:" in capsys.readouterr().out
