"""The model that methods receive: CLIP loaded with open_clip, its layers within reach."""

from clbench.clip.loading import load_clip
from clbench.clip.model import CLIP

__all__ = ["CLIP", "load_clip"]
