"""Do two commits write the same bytes? `make oracle BASE=COMMIT [NAMES="ghostnet mnasnet"]`.

Both commits are checked out into a temporary folder and installed into light environments that
share this one's packages, so that only deploykit's own code differs. All ten families and, with
``--full-size``, the ten networks at 224 x 224 are converted to every target in every precision.
Exit code 1 if a file differs, is missing or is new; each is named.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HASHER = Path(__file__).resolve().parent / "hash_artifacts.py"


def install_checkout(commit: str, folder: Path) -> Path:
    """Check a commit out and make an environment that runs it.

    Args:
        commit: What git calls it.
        folder: A new folder is made in it.

    Returns:
        The environment's Python.
    """
    checkout = folder / "checkout"
    checkout.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive.stdout, check=True)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    packages = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # Behind the environment's own packages, so that its deploykit is found first.
    shared = [sysconfig.get_path("purelib"), *_linked_packages()]
    (Path(packages) / "zz_shared.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--editable", str(checkout)]
    subprocess.run([*install, *options], check=True)
    return python


def _linked_packages() -> list[str]:
    """Folders of packages that this environment itself takes from elsewhere."""
    own = Path(sysconfig.get_path("purelib"))
    lines = [line for path in own.glob("*.pth") for line in path.read_text().splitlines()]
    return [line for line in lines if line.endswith("site-packages") and Path(line).is_dir()]


def differences(
    base: Mapping[str, Mapping[str, str]], head: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """One line for each artefact that is not the same in both.

    Args:
        base: Source → path in the bundle → SHA-256.
        head: The same, of the other commit.
    """
    lines = []
    for source in sorted(base.keys() | head.keys()):
        old, new = base.get(source, {}), head.get(source, {})
        for path in sorted(old.keys() | new.keys()):
            if old.get(path) == new.get(path):
                continue
            what = "is new" if path not in old else "is missing" if path not in new else "differs"
            lines.append(f"{source}: {path} {what}")
    return lines


def _write_networks(folder: Path) -> None:
    from deploykit_zoo.checkpoint import write_checkpoint
    from deploykit_zoo.full_size import NETWORKS, full_size_checkpoint

    for name in NETWORKS:
        write_checkpoint(folder / f"{name}.pt", full_size_checkpoint(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; print what differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("names", nargs="*", help="parts of sources' names; default: all")
    parser.add_argument("--head", default="HEAD", help="the other commit")
    parser.add_argument("--full-size", action="store_true", help="the ten networks at 224 too")
    given = parser.parse_args(arguments)
    found = []
    with tempfile.TemporaryDirectory(prefix="oracle-") as temporary:
        folder = Path(temporary)
        networks = folder / "networks"
        networks.mkdir()
        if given.full_size:
            _write_networks(networks)
        for side, commit in (("base", given.base), ("head", given.head)):
            print(f"{commit}:", flush=True)
            python = install_checkout(commit, folder / side)
            out = folder / f"{side}.json"
            command = [sys.executable, str(HASHER), "--out", str(out), "--python", str(python)]
            subprocess.run([*command, "--networks", str(networks), *given.names], check=True)
            found.append(json.loads(out.read_text(encoding="utf-8")))
    changed = differences(*found)
    print("\n".join(changed) or f"all {sum(map(len, found[0].values()))} files are the same")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
