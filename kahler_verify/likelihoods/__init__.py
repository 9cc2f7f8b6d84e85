"""The laws that decoders return, and what the kernels of each family take of them.

A family is one derivation and one file here: it registers, for a type of torch distribution, the
generated module and the fields whose derivatives its kernels take.
"""

from importlib import import_module
from pkgutil import iter_modules

from kahler_verify.likelihoods.outputs import Fields, fields_of
from kahler_verify.likelihoods.register import FAMILIES, Likelihood, likelihood

for _file in iter_modules(__path__):  # each registers its families
    import_module(f"{__name__}.{_file.name}")

__all__ = ["FAMILIES", "Fields", "Likelihood", "fields_of", "likelihood"]
