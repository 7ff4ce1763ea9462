"""What divides test images into subgroups: density, age, manufacturer, view, implant, size of the lesion."""

from __future__ import annotations

import polars as pl

from mammoclip.evaluation.subgroups import age_decades, size_bins

LESION_SIZE = "lesion size"
"""Known of images with a lesion alone, so its groups are compared with all negatives."""

SIZE_EDGES = (0.05, 0.1, 0.2)
"""Of the bins of the size of a lesion: the longer side of its box over the height of the PNG."""

_DENSITIES = dict(enumerate("ABCD"))


def subgroups_of(
    images: pl.DataFrame, index: pl.DataFrame, attributes: pl.DataFrame, findings: pl.DataFrame, attribute: str
) -> pl.DataFrame:
    """Return image_id and a column per subgroup, each the group of the image or null where it is not known.

    The size of a lesion is the longer side of its box over the height of the PNG, of the largest box of the image with
    the finding ``attribute``. Age and implant are those of the data set's tables, else of the DICOM headers. Columns
    without any known group are left out.

    Args:
        images: table of this name.
        index: table of this name.
        attributes: table of this name.
        findings: table of this name.
        attribute: finding whose boxes are measured.
    """
    frame = images.select("image_id", "view", "height_px").join(
        index.select("image_id", "manufacturer", "age_years", header_implant="implant"),
        on="image_id",
        how="left",
        maintain_order="left",
    )
    for name in ("density", "age", "implant"):
        stated = attributes.filter(pl.col("attribute") == name).select("image_id", pl.col("value").alias(name))
        frame = frame.join(stated.unique("image_id"), on="image_id", how="left", maintain_order="left")
    side = pl.max_horizontal(pl.col("x_max") - pl.col("x_min"), pl.col("y_max") - pl.col("y_min"))
    lesions = findings.filter(pl.col("finding") == attribute).group_by("image_id").agg(side=side.max())
    frame = frame.join(lesions, on="image_id", how="left", maintain_order="left")
    share = frame.select(pl.col("side") / pl.col("height_px"))["side"]
    age = pl.when(pl.col("age").is_between(0, 120)).then("age").otherwise("age_years")
    implant = pl.coalesce("implant", pl.col("header_implant").cast(pl.Int32))
    groups = frame.select(
        "image_id",
        pl.col("density").replace_strict(_DENSITIES, default=None, return_dtype=pl.Enum(list("ABCD"))),
        age_decades(frame.select(age)["age"]).alias("age"),
        "manufacturer",
        "view",
        implant.replace_strict({0: "no", 1: "yes"}, default=None, return_dtype=pl.String).alias("implant"),
        size_bins(share, SIZE_EDGES).alias(LESION_SIZE),
    )
    return groups.select("image_id", *(name for name in groups.columns[1:] if groups[name].n_unique() > 1))
