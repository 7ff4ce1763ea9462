"""Side, view and kind of exposure, from whichever attribute of the header names them."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

VIEWS = ("CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "XCC", "AT", "SIO", "ISO", "FB", "CV")
"""Values of ViewPosition (0018,5101), DICOM PS3.3 C.8.11.7."""

# PS3.16 CID 4014 and CID 4015.
_CODED_VIEWS: dict[Code, str] = {
    codes.CID4014.CranioCaudal: "CC",
    codes.CID4014.MedioLateralObliqueProjection: "MLO",
    codes.CID4014.MedioLateralProjection: "ML",
    codes.CID4014.LateroMedial: "LM",
    codes.CID4014.LateroMedialOblique: "LMO",
    codes.CID4014.CranioCaudalExaggeratedLaterally: "XCCL",
    codes.CID4014.CranioCaudalExaggeratedMedially: "XCCM",
    codes.CID4014.CaudoCranial: "FB",
    codes.CID4014.SuperolateralToInferomedialOblique: "SIO",
    codes.CID4014.InferomedialToSuperolateralOblique: "ISO",
}
_VIEW_MEANINGS = {code.meaning.lower(): view for code, view in _CODED_VIEWS.items()} | {
    "medio-lateral": "ML",
    "caudo-cranial (from below)": "FB",
}
# Vendors write the letters of the film markers into ViewPosition: side, magnification or spot, view, implant displaced.
_MARKER = re.compile(rf"[LR]?(?P<prefix>[MS]?)(?P<view>{'|'.join(VIEWS)})(?P<suffix>ID|M|S)?")
_CONTACT_MAGNIFICATION = 1.25
"""Estimated magnification above which the breast lay on a magnification stand: on the detector it is 1.0 to 1.1."""


class View(NamedTuple):
    """The view, the DICOM keyword that named it, and what makes it other than a plain full-field view."""

    view: str | None
    source: str | None
    magnification: bool
    spot_compression: bool
    implant_displaced: bool


def read_laterality(dataset: Dataset) -> tuple[str | None, str | None]:
    """Return L or R and the keyword it came from.

    ImageLaterality (0020,0062), else Laterality (0020,0060), else FrameLaterality (0020,9072) of the shared functional
    groups (5200,9229).
    """
    for keyword in ("ImageLaterality", "Laterality"):
        if dataset.get(keyword) in ("L", "R"):
            return str(dataset[keyword].value), keyword
    for group in dataset.get("SharedFunctionalGroupsSequence") or []:
        for anatomy in group.get("FrameAnatomySequence") or []:
            if anatomy.get("FrameLaterality") in ("L", "R"):
                return str(anatomy.FrameLaterality), "FrameLaterality"
    return None, None


def read_view(dataset: Dataset, laterality: str | None) -> View:
    """Return the view of an image whose side is known.

    ViewPosition (0018,5101), else ViewCodeSequence (0054,0220), else PatientOrientation (0020,0020), which either names
    the view (as in CBIS-DDSM) or gives it by its directions (PS3.3 C.8.11.7.1.1). Magnification and spot compression
    come from ViewModifierCodeSequence (0054,0222), from letters beside the view, or from
    EstimatedRadiographicMagnificationFactor (0018,1114).
    """
    coded, modifiers = _coded_view(dataset)
    marker = _MARKER.fullmatch(re.sub(r"[\s_-]", "", str(dataset.get("ViewPosition") or "").upper()))
    letters = {marker["prefix"], marker["suffix"]} if marker else set()
    view: str | None
    source: str | None
    if marker:
        view, source = marker["view"], "ViewPosition"
    elif coded:
        view, source = coded, "ViewCodeSequence"
    else:
        view = _oriented_view(dataset.get("PatientOrientation"), laterality)
        source = "PatientOrientation" if view else None
    return View(
        view,
        source,
        magnification=codes.CID4015.Magnification in modifiers
        or "M" in letters
        or _magnification_factor(dataset) > _CONTACT_MAGNIFICATION,
        spot_compression=codes.CID4015.SpotCompression in modifiers or "S" in letters,
        implant_displaced=codes.CID4015.ImplantDisplaced in modifiers or "ID" in letters,
    )


def _magnification_factor(dataset: Dataset) -> float:
    """Return the estimated factor; 1 where it is absent or no number, for which no image is given up."""
    try:
        return float(dataset.get("EstimatedRadiographicMagnificationFactor") or 1)
    except (TypeError, ValueError):
        return 1.0


def _coded_view(dataset: Dataset) -> tuple[str | None, list[Code]]:
    for item in dataset.get("ViewCodeSequence") or []:
        code, meaning = _read_code(item), str(item.get("CodeMeaning") or "").lower()
        named = (view for known, view in _CODED_VIEWS.items() if known == code)
        if view := next(named, _VIEW_MEANINGS.get(meaning)):
            return view, [_read_code(modifier) for modifier in item.get("ViewModifierCodeSequence") or []]
    return None, []


def _read_code(item: Dataset) -> Code:
    """Return a coded concept; pydicom holds SRT codes equal to those of SNOMED CT, SNM3 is an older name of SRT."""
    scheme = str(item.get("CodingSchemeDesignator") or "")
    return Code(str(item.get("CodeValue") or ""), {"SNM3": "SRT", "99SDM": "SRT"}.get(scheme, scheme), "")


def _oriented_view(orientation: object, laterality: str | None) -> str | None:
    """Return the view that PatientOrientation names, or that the direction down its columns tells.

    CC: towards the patient's right or left. MLO: towards the feet and the medial side, LMO: feet and lateral side.
    """
    directions = [orientation] if isinstance(orientation, str) else list(orientation or [])  # type: ignore[call-overload]
    named = "/".join(str(direction).strip().upper() for direction in directions)
    if named in VIEWS:
        return named
    if len(directions) != 2 or str(directions[0]).upper() not in ("A", "P"):
        return None
    down = set(str(directions[1]).upper())
    if len(down) == 1 and down <= {"L", "R"}:
        return "CC"
    if laterality and len(down) == 2 and "F" in down and down - {"F"} <= {"L", "R"}:
        return "LMO" if laterality in down else "MLO"
    return None
