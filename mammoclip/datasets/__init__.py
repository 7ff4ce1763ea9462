"""One adapter per data set: raw layout to common raw tables."""

from mammoclip.datasets.base import Adapter
from mammoclip.datasets.cbis_ddsm import CbisDdsm
from mammoclip.datasets.image_label import ImageLabel
from mammoclip.datasets.image_report import ImageReport
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.datasets.rsna import Rsna
from mammoclip.datasets.vindr import VinDr

ADAPTERS: dict[str, type[Adapter]] = {
    "vindr": VinDr,
    "rsna": Rsna,
    "phantom": Phantom,
    "image_report": ImageReport,
    "image_label": ImageLabel,
    "cbis_ddsm": CbisDdsm,
}

__all__ = ["ADAPTERS", "Adapter"]
