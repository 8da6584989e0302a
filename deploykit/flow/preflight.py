"""What can be refused before a model is loaded, which takes seconds with torch: refused at once.

Targets, precisions, options, limits, runners, the output folder, and the presence and readability
of what calibrates. Only plain Python and Pillow are needed for it; the model file is looked at as
bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from deploykit.bundle import check_replaceable
from deploykit.calibration.image_folder import refuse_one_image
from deploykit.errors import BundleError, DataError
from deploykit.flow.plan import ConvertRequest, choose_runners, plan_artifacts
from deploykit.model import Precision
from deploykit.parity.limits import check_limits
from deploykit.sources.detect import SourceKind, detect_kind
from deploykit.target import Target
from deploykit.temporary import temporary_folder
from deploykit_quantize.scope import Scope

#: The entry of a checkpoint that holds images to calibrate with.
_SAMPLE_KEY = b"calibration"
#: Sources that hold no such images, and cannot come quantized either. (An ONNX file can: it is
#: read in milliseconds, and says so itself.)
_WITHOUT_SAMPLE = frozenset(
    {
        SourceKind.SAFETENSORS,
        SourceKind.TORCHSCRIPT,
        SourceKind.KERAS,
        SourceKind.SAVED_MODEL,
    }
)


def check_before_loading(model: Path, request: ConvertRequest) -> None:
    """Refuse what cannot come to anything, whatever is in the model.

    Args:
        model: The source file or folder.
        request: What is asked for.

    Raises:
        UserError: an unknown target, precision, option, runner or limit; no or unreadable data to
            calibrate with; an output folder that cannot be made or replaced.
        SourceError: the model file is missing or of no known kind.
        MissingDependencyError: a package that is needed is not installed.
    """
    plan, _ = plan_artifacts(request)
    check_limits(request.limits, {precision for _, precision in plan})
    choose_runners(request, plan)
    for pattern in request.keep_float:
        Scope(pattern)
    if request.out is not None:
        check_writable(request.out)
    kind = detect_kind(model)
    if isinstance(request.calibration, Path):
        _check_calibration(request.calibration, request)
    elif (
        request.calibration is None
        and request.calibration_table is None
        and _is_calibrated(plan)
        and (
            kind in _WITHOUT_SAMPLE
            or (kind is SourceKind.CHECKPOINT and not _names_a_sample(model))
        )
    ):
        raise missing_calibration()
    if request.calibration_table is not None and not request.calibration_table.is_file():
        raise DataError(
            f"there is no calibration table {request.calibration_table}",
            expected="calibration.json of a bundle",
        )


def missing_calibration() -> DataError:
    """The error where int8 is asked for and nothing is there to calibrate with."""
    return DataError(
        "int8 needs data to calibrate with, and none were given",
        expected="16 or more samples like those that the model will see",
        advice="--calibrate FOLDER of images, or --calibrate FILE.npz/.npy of ready tensors "
        "(n,C,H,W float32) or images (n,H,W,C uint8); a checkpoint may also carry a "
        "'calibration' sample of its own; --w8 needs no data",
    )


def check_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be made, before minutes of work.

    Raises:
        BundleError: it holds something else, its parent is no folder, or is not writable.
    """
    check_replaceable(folder)
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise BundleError(
            f"{folder} cannot be made: {parent} is a file", advice="give another folder with --out"
        )
    try:
        with temporary_folder(parent / "deploykit"):
            pass
    except OSError as error:
        raise BundleError(
            f"{folder} cannot be made: {parent} is not writable ({error.strerror})",
            advice="give another folder with --out",
        ) from error


def _check_calibration(path: Path, request: ConvertRequest) -> None:
    if not path.exists():
        raise DataError(
            f"no calibration data at {path}",
            expected="a folder of images, an .npy or an .npz file",
        )
    refuse_one_image(path)
    if path.is_dir() and not any(path.rglob("*.npy")):  # arrays are looked at with the model
        from deploykit.calibration.image_folder import draw_images

        draw_images(path, request.calibration_limit, skip_unreadable=request.skip_unreadable)


def _is_calibrated(plan: Sequence[tuple[Target, Precision]]) -> bool:
    return any(precision is Precision.INT8 for _, precision in plan)


def _names_a_sample(path: Path) -> bool:
    """Whether a checkpoint's pickle has an entry that could be a sample; nothing is executed."""
    if not zipfile.is_zipfile(path):  # an older format of torch.save: not worth reading twice
        return True
    with zipfile.ZipFile(path) as archive:
        pickles = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
        return any(_SAMPLE_KEY in archive.read(name) for name in pickles)
