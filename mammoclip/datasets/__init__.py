"""One adapter per data set: raw layout to common raw tables."""

from mammoclip.datasets.base import Adapter
from mammoclip.datasets.cbis_ddsm import CbisDdsm
from mammoclip.datasets.cmmd import Cmmd
from mammoclip.datasets.csaw_cc import CsawCc
from mammoclip.datasets.embed import Embed
from mammoclip.datasets.image_label import ImageLabel
from mammoclip.datasets.image_report import ImageReport
from mammoclip.datasets.inbreast import InBreast
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.datasets.rsna import Rsna
from mammoclip.datasets.vindr import VinDr

ADAPTERS: dict[str, type[Adapter]] = {
    "vindr": VinDr,
    "rsna": Rsna,
    "embed": Embed,
    "cbis_ddsm": CbisDdsm,
    "cmmd": Cmmd,
    "inbreast": InBreast,
    "csaw_cc": CsawCc,
    "image_report": ImageReport,
    "image_label": ImageLabel,
    "phantom": Phantom,
}

__all__ = ["ADAPTERS", "Adapter"]
