"""CBIS-DDSM film mammograms, one folder per exam (CC BY 3.0, TCIA, 10.7937/K9/TCIA.2016.7O02S9CY).

Side and view come from the DICOM header: Laterality (0020,0060) and PatientOrientation (0020,0020). The folder names
the patient, because the DICOM PatientID of CBIS-DDSM is different for every image.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import polars as pl

from mammoclip.datasets import base


class CbisDdsm(base.Adapter):
    """Adapter of CBIS-DDSM exams laid out as ``<exam>/<image>.dcm``."""

    source = base.Source(
        title="CBIS-DDSM",
        kind="real film mammograms of CBIS-DDSM, cropped and resized",
        licence="CC BY 3.0",
        url="https://www.cancerimagingarchive.net/collection/cbis-ddsm",
        citation="Sawyer-Lee R, Gimenez F, Hoogi A, Rubin D (2016). Curated Breast Imaging Subset of Digital Database "
        "for Screening Mammography (CBIS-DDSM) [Data set]. The Cancer Imaging Archive.",
        doi="10.7937/K9/TCIA.2016.7O02S9CY",
        images="3,103 film mammograms of 1,566 patients; DICOM",
    )
    layout = "<exam>/<image>.dcm"

    def files(self, root: Path) -> pl.DataFrame:
        """List the DICOM files; exam folder and file name make the ids."""
        paths = [PurePosixPath(path) for path in base.find_images(root, root) if path.endswith(".dcm")]
        exams = ["-".join(path.parent.parts) or "exam" for path in paths]
        return pl.DataFrame(
            {
                "path": [str(path) for path in paths],
                "patient_id": exams,
                "study_id": exams,
                "image_id": [f"{exam}-{path.stem}" for exam, path in zip(exams, paths, strict=True)],
            },
            schema={name: dtype for name, dtype in base.FILES.items() if name in list(base.FILES)[:4]},
        ).with_columns(pl.lit(None, dtype).alias(name) for name, dtype in list(base.FILES.items())[4:])
