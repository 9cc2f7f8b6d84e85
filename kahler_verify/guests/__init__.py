"""At home among other libraries: geomstats' learners, ArviZ' chains, a look during training.

Each of these libraries is imported only when its part is asked for.
"""

from kahler_verify.guests.arviz import to_inference_data
from kahler_verify.guests.geomstats import to_geomstats
from kahler_verify.guests.training_log import GeometryLog, lightning_callback

__all__ = ["GeometryLog", "lightning_callback", "to_geomstats", "to_inference_data"]
