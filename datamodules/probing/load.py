"""What probes look at besides the tasks: embedded sets, or those in the data folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from clbench.core.errors import ClbenchError
from clbench.core.files import user_cache
from clbench.core.probe import CaptionedSet, Extra, GeneralSet, ProbeData
from clbench.datamodules.pixels.data_folder import data_cache, data_folder
from clbench.datamodules.probing import embedded as mini
from clbench.datamodules.probing import imagenet, karpathy

FIRST_ID: Final = 1_000_000
"""Of the classes that no task has: larger than any class of a benchmark."""


def probe_data(
    needs: Collection[Extra],
    wants: Collection[Extra],
    *,
    embedded: bool,
    image_size: int,
    data_root: str | None,
    cache_root: str | None,
    quick: bool = False,
    quiet: bool = True,
) -> ProbeData:
    """The data sets that probes ask for.

    Args:
        needs: kinds that must be there.
        wants: kinds that are used where they are there.
        embedded: whether the model is the embedded CLIP, which knows rendered pictures only.
        image_size: side of the images.
        data_root: the data folder; the user's if None.
        cache_root: where decoded images are kept.
        quick: few images only.
        quiet: show no progress.

    Raises:
        ClbenchError: a kind that must be there is not, or a data set is incomplete.
    """
    asked = {*needs, *wants}
    root, cache = data_folder(data_root), data_cache(data_root, cache_root)
    general: tuple[GeneralSet, ...] = ()
    captioned: tuple[CaptionedSet, ...] = ()
    if embedded:
        folder = cache.folder if data_root or cache_root else user_cache()
        if "general" in asked:
            general = mini.general_sets(folder, first_id=FIRST_ID, quick=quick)
        if "captioned" in asked:
            captioned = (mini.captioned_set(folder, quick=quick),)
    else:
        if "general" in asked:
            general = imagenet.general_sets(
                root, image_size, cache, first_id=FIRST_ID, quick=quick, quiet=quiet
            )
        if "captioned" in asked:
            captioned = karpathy.captioned_sets(root, image_size, cache, quick=quick, quiet=quiet)
    if "general" in needs and not general:
        raise ClbenchError(
            "the probe general needs images that no task trains, and none are there; any of these "
            f"will do:\n{_lines(imagenet.put_where(root))}"
        )
    if "captioned" in needs and not captioned:
        raise ClbenchError(
            "the probe retrieval needs images with captions, and none are there; any of these will "
            f"do:\n{_lines(karpathy.put_where(root))}"
        )
    return ProbeData(
        general,
        captioned,
        {
            "general": {one.name: one.images.digest() for one in general},
            "captioned": {one.name: mini.captions_digest(one) for one in captioned},
        },
    )


def _lines(put_where: Mapping[str, str]) -> str:
    return "\n".join(f"  {name}: {place}" for name, place in put_where.items())
