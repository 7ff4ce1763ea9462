import logging
import warnings
from collections.abc import Callable
from typing import Any

import pydicom
import pytest
from pydicom import DataElement, Dataset
from pydicom.tag import Tag

from mammoclip.artifacts import REJECT_REASONS
from mammoclip.dicom import read_header, read_mammogram, to_png_array
from mammoclip.dicom.header import rejecting
from mammoclip.errors import RejectedInput

Write = Callable[..., Any]


def rejected(path: Any) -> str:
    with pytest.raises(RejectedInput) as caught:
        read_header(path)
    assert caught.value.reason in REJECT_REASONS
    return caught.value.reason


def strip(dataset: Dataset) -> None:
    """Remove every attribute that names side or view."""
    for keyword in ("ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation"):
        if keyword in dataset:
            del dataset[keyword]


def code(meaning: str) -> Dataset:
    item = Dataset()
    item.CodeMeaning = meaning
    return item


def shared_groups(laterality: str) -> Dataset:
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = laterality
    group.FrameAnatomySequence = [anatomy]
    return group


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ImageLaterality": "L", "Laterality": "R"}, ("L", "ImageLaterality")),
        ({"Laterality": "R", "SharedFunctionalGroupsSequence": [shared_groups("L")]}, ("R", "Laterality")),
        ({"ImageLaterality": "", "Laterality": "L"}, ("L", "Laterality")),
        ({"ImageLaterality": "B", "Laterality": "R"}, ("R", "Laterality")),
        ({"SharedFunctionalGroupsSequence": [shared_groups("R")]}, ("R", "FrameLaterality")),
        ({"SharedFunctionalGroupsSequence": [shared_groups("B")]}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_laterality_comes_from_the_first_attribute_that_names_it(
    write_file: Write, attributes: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    header = read_header(write_file(change=lambda dataset: (strip(dataset), dataset.update(attributes))).path)
    assert (header.laterality, header.laterality_source) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ViewPosition": "MLO", "ViewCodeSequence": [code("cranio-caudal")]}, ("MLO", "ViewPosition")),
        ({"ViewPosition": "XCCL"}, ("XCCL", "ViewPosition")),
        ({"ViewPosition": "", "ViewCodeSequence": [code("cranio-caudal")]}, ("CC", "ViewCodeSequence")),
        ({"ViewPosition": "AP", "ViewCodeSequence": [code("Medio-Lateral Oblique")]}, ("MLO", "ViewCodeSequence")),
        (
            {"ViewCodeSequence": [code("latero-medial")], "PatientOrientation": "CC"},
            ("LM", "ViewCodeSequence"),
        ),
        ({"ViewCodeSequence": [code("unknown")], "PatientOrientation": "CC"}, ("CC", "PatientOrientation")),
        ({"PatientOrientation": "MLO"}, ("MLO", "PatientOrientation")),
        ({"PatientOrientation": ["P", "L"]}, ("CC", "PatientOrientation")),
        ({"PatientOrientation": ["A", "FR"]}, (None, None)),  # MLO or LMO: the side decides
        ({"PatientOrientation": ["A", "FR"], "ImageLaterality": "L"}, ("MLO", "PatientOrientation")),
        ({"PatientOrientation": ["P", "FL"], "ImageLaterality": "R"}, ("MLO", "PatientOrientation")),
        ({"PatientOrientation": ["A", "FL"], "ImageLaterality": "L"}, ("LMO", "PatientOrientation")),
        ({"PatientOrientation": ["A", "F"], "ImageLaterality": "L"}, (None, None)),  # ML or LM
        ({"PatientOrientation": ["L", "P"], "ImageLaterality": "L"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_the_view_comes_from_the_first_attribute_that_names_it(
    write_file: Write, attributes: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    header = read_header(write_file(change=lambda dataset: (strip(dataset), dataset.update(attributes))).path)
    assert (header.view, header.view_source) == expected


def concept(value: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "in another language"
    return item


def view_code(value: str, scheme: str, *modifiers: str) -> Dataset:
    item = concept(value, scheme)
    item.ViewModifierCodeSequence = [concept(modifier, scheme) for modifier in modifiers]
    return item


@pytest.mark.parametrize(
    ("value", "scheme", "view"),
    [
        ("399162004", "SCT", "CC"),
        ("399368009", "SCT", "MLO"),
        ("399260004", "SCT", "ML"),
        ("399352003", "SCT", "LM"),
        ("399099002", "SCT", "LMO"),
        ("399192008", "SCT", "XCCL"),
        ("399101009", "SCT", "XCCM"),
        ("399188001", "SCT", "SIO"),
        ("R-10242", "SRT", "CC"),
        ("R-10226", "SRT", "MLO"),
        ("R-10226", "SNM3", "MLO"),
        ("R-10242", "99MADE-UP", None),
        ("1234", "SCT", None),
    ],
)
def test_the_view_code_counts_not_its_meaning(write_file: Write, value: str, scheme: str, view: str | None) -> None:
    header = read_header(
        write_file(
            change=lambda dataset: (strip(dataset), dataset.update({"ViewCodeSequence": [concept(value, scheme)]}))
        ).path
    )
    assert header.view == view


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ViewPosition": "CC"}, ("CC", False, False, False)),
        ({"ViewPosition": "RCC"}, ("CC", False, False, False)),
        ({"ViewPosition": "L MLO"}, ("MLO", False, False, False)),
        ({"ViewPosition": "rmlo"}, ("MLO", False, False, False)),
        ({"ViewPosition": "LMO"}, ("LMO", False, False, False)),
        ({"ViewPosition": "LMLO"}, ("MLO", False, False, False)),
        ({"ViewPosition": "MCC"}, ("CC", True, False, False)),
        ({"ViewPosition": "SMLO"}, ("MLO", False, True, False)),
        ({"ViewPosition": "SIO"}, ("SIO", False, False, False)),
        ({"ViewPosition": "CCID"}, ("CC", False, False, True)),
        ({"ViewPosition": "CC", "EstimatedRadiographicMagnificationFactor": "1.8"}, ("CC", True, False, False)),
        ({"ViewPosition": "CC", "EstimatedRadiographicMagnificationFactor": "1.07"}, ("CC", False, False, False)),
        ({"ViewPosition": "CC", "EstimatedRadiographicMagnificationFactor": ""}, ("CC", False, False, False)),
        ({"ViewPosition": "CC", "EstimatedRadiographicMagnificationFactor": "1.5\\2"}, ("CC", False, False, False)),
        ({"ViewCodeSequence": [view_code("399162004", "SCT", "399163009")]}, ("CC", True, False, False)),
        ({"ViewCodeSequence": [view_code("399162004", "SCT", "399055006")]}, ("CC", False, True, False)),
        ({"ViewCodeSequence": [view_code("R-10226", "SRT", "R-102D5")]}, ("MLO", False, False, True)),
        (
            {"ViewPosition": "MLO", "ViewCodeSequence": [view_code("R-10226", "SRT", "R-102D6", "R-102D7")]},
            ("MLO", True, True, False),
        ),
    ],
)
def test_magnification_spot_and_displaced_implant_are_recognised(
    write_file: Write, attributes: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    header = read_header(write_file(change=lambda dataset: (strip(dataset), dataset.update(attributes))).path)
    assert (header.view, header.magnification, header.spot_compression, header.implant_displaced) == expected


TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPClassUID": TOMOSYNTHESIS, "NumberOfFrames": 60}, "tomosynthesis"),
        ({"SOPClassUID": TOMOSYNTHESIS}, "tomosynthesis"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.4"}, "tomosynthesis"),
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"Rows": 65535, "Columns": 65535}, "too_large"),
        ({"Rows": 10_001, "Columns": 10_000}, "too_large"),
    ],
)
def test_what_is_no_2d_mammogram_is_rejected(write_file: Write, attributes: dict[str, Any], reason: str) -> None:
    assert rejected(write_file(change=lambda dataset: dataset.update(attributes)).path) == reason


@pytest.mark.parametrize("sop_class", [TOMOSYNTHESIS, "1.2.840.10008.5.1.4.1.1.1.2"])
def test_a_2d_image_computed_from_a_tomosynthesis_is_kept_with_a_flag(write_file: Write, sop_class: str) -> None:
    synthetic = {"SOPClassUID": sop_class, "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}
    assert read_header(write_file(change=lambda dataset: dataset.update(synthetic)).path).synthetic_2d
    assert not read_header(write_file().path).synthetic_2d


def test_real_films_name_the_view_in_the_patient_orientation(real_files: list) -> None:
    found = [read_header(path) for path in real_files]
    assert [header.laterality for header in found] == list("LLRRLLRR")
    assert [header.view for header in found] == ["CC", "MLO"] * 4
    assert {(header.laterality_source, header.view_source) for header in found} == {
        ("Laterality", "PatientOrientation")
    }


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "rle", "jpeg_lossless", "jpeg_2000"])
def test_the_pixel_format_is_read_without_the_pixels(write_file: Write, syntax: str) -> None:
    written = write_file(syntax, bits=10)
    header = read_header(written.path)
    assert (header.rows, header.columns, header.bits_stored) == (*written.pixels.shape, 10)
    assert header.photometric == "MONOCHROME2"
    assert header.transfer_syntax == pydicom.dcmread(written.path).file_meta.TransferSyntaxUID
    assert header.presentation_intent == "FOR PRESENTATION"


def test_what_is_absent_is_none(write_file: Write) -> None:
    def change(dataset: Dataset) -> None:
        del dataset.PresentationIntentType
        dataset.Manufacturer = ""

    header = read_header(write_file(change=change).path)
    assert (header.manufacturer, header.presentation_intent) == (None, None)


@pytest.mark.parametrize(
    ("written", "read"),
    [("045Y", 45), ("600M", 50), ("089Y", 89), ("090Y", 90), ("104Y", 90), ("000Y", None), ("999Y", None),
     ("45Y", None), ("45", None), ("", None), ("ROE", None)],
)  # fmt: skip
def test_the_age_is_in_whole_years_and_tells_nobody_above_89(write_file: Write, written: str, read: int | None) -> None:
    def change(dataset: Dataset) -> None:
        dataset[Tag("PatientAge")] = DataElement(Tag("PatientAge"), "LO", written)

    assert read_header(write_file(change=change).path).age_years == read


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 128, b"\0" * 128 + b"DICO" + b"x" * 500])
def test_a_file_without_prefix_is_not_dicom(tmp_path: Any, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert rejected(tmp_path / "file") == "not_dicom"


def test_a_header_cut_inside_an_element_is_unreadable(write_file: Write) -> None:
    written = write_file()
    content = written.path.read_bytes()
    start = content.index(b"\x02\x00\x01\x00OB")  # in the file meta information, an element with a 4-byte length
    written.path.write_bytes(content[: start + 9])
    assert rejected(written.path) == "unreadable_header"


def test_a_header_without_transfer_syntax_is_unreadable(write_file: Write) -> None:
    written = write_file()
    content = written.path.read_bytes()
    written.path.write_bytes(content.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI", 1))
    assert rejected(written.path) == "unreadable_header"


def test_a_missing_file_is_unreadable(tmp_path: Any) -> None:
    assert rejected(tmp_path / "none.dicom") == "unreadable_header"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("not_mammography", lambda dataset: setattr(dataset, "Modality", "CT")),
        ("not_mammography", lambda dataset: delattr(dataset, "Modality")),
        ("multi_frame", lambda dataset: setattr(dataset, "NumberOfFrames", 2)),
        ("no_pixel_data", lambda dataset: delattr(dataset, "PixelData")),
        ("no_pixel_data", lambda dataset: delattr(dataset, "Rows")),
        ("unreadable_header", lambda dataset: delattr(dataset, "BitsStored")),
        ("unreadable_header", lambda dataset: delattr(dataset, "PhotometricInterpretation")),
    ],
)
def test_each_reason(write_file: Write, reason: str, change: Callable[[Dataset], None]) -> None:
    assert rejected(write_file(change=change).path) == reason


def test_one_frame_is_no_multi_frame(write_file: Write) -> None:
    assert read_header(write_file(change=lambda dataset: setattr(dataset, "NumberOfFrames", 1)).path).rows == 64


def test_values_that_break_the_standards_form_are_usable(write_file: Write) -> None:
    def change(dataset: Dataset) -> None:
        dataset[Tag("Manufacturer")] = DataElement(Tag("Manufacturer"), "LO", "x" * 100)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_file(change=change).path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(path).manufacturer == "x" * 100


SECRET = "ROE-4711"


def identify(dataset: Dataset) -> None:
    dataset.PatientName, dataset.PatientID = f"{SECRET}^Jane", SECRET
    for keyword in ("PatientBirthDate", "PatientAge", "StudyDate"):
        dataset[Tag(keyword)] = DataElement(Tag(keyword), "LO", SECRET)


@pytest.mark.parametrize(
    "keyword",
    ["Modality", "NumberOfFrames", "PhotometricInterpretation", "ImageLaterality", "ViewPosition", "WindowCenter",
     "WindowWidth", "VOILUTFunction", "RescaleSlope", "SpecificCharacterSet", None],
)  # fmt: skip
def test_no_detail_log_line_or_warning_holds_a_patient_identifier(
    write_file: Write, caplog: pytest.LogCaptureFixture, keyword: str | None
) -> None:
    """The identifier stands in its own attributes and, as a damaged header may have it, in one that is read."""

    def change(dataset: Dataset) -> None:
        identify(dataset)
        if keyword:
            dataset[Tag(keyword)] = DataElement(Tag(keyword), "LO", SECRET)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = write_file("implicit", change=change)
    assert SECRET.encode() in written.path.read_bytes()
    caplog.clear()
    said = []
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for size in (None, -100, 700):
            cut = written.path.with_name("cut.dicom")
            cut.write_bytes(written.path.read_bytes()[:size])
            for read in (read_header, lambda path: to_png_array(read_mammogram(path), "strict")):
                try:
                    read(cut)
                except RejectedInput as error:
                    said += [str(error), error.reason, error.detail, repr(error.__cause__)]
    said += [str(item.message) for item in caught] + caplog.messages
    assert len(said) >= 8
    assert not [sentence for sentence in said if SECRET in sentence]


@pytest.mark.parametrize("error", [KeyError("k"), StopIteration(), MemoryError(), OverflowError()])
def test_any_error_while_reading_is_a_rejection(error: Exception) -> None:
    with pytest.raises(RejectedInput) as caught, rejecting("undecodable", "it cannot be read"):
        raise error
    assert (caught.value.reason, caught.value.detail) == ("undecodable", f"it cannot be read ({type(error).__name__})")


def test_an_interrupt_and_an_earlier_rejection_pass() -> None:
    with pytest.raises(KeyboardInterrupt), rejecting("undecodable", "it cannot be read"):
        raise KeyboardInterrupt
    with pytest.raises(RejectedInput, match="no_breast"), rejecting("undecodable", "it cannot be read"):
        raise RejectedInput("no_breast", "nothing there")
