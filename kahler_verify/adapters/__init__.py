"""Other people's models, seen as decoders: what to call, which tensor is meant, and of which law.

Libraries are known by the names of their types, and none is imported here: whoever hands over a
model has loaded its library.
"""

from kahler_verify.adapters.decoder import AdaptedDecoder, adapted, described
from kahler_verify.adapters.outputs import LAWS, Output, negative_binomial, read

__all__ = [
    "LAWS",
    "AdaptedDecoder",
    "Output",
    "adapted",
    "described",
    "negative_binomial",
    "read",
]
