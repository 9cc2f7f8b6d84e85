"""Checkpoints: safetensors with the configuration as JSON in the header. Loading runs no code.

A file is written under another name and then renamed, so that what stands under its name is whole.
A model that would not come back as it is (tied weights, exchanged layers, hooks) is refused.
Nothing in it is trusted: the configuration is validated, the tensors it implies are listed without
allocating them, and the file must hold exactly those, of those shapes and types, all finite.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kahler_verify.errors import CheckpointError, InputError
from kahler_verify.files import write_with
from kahler_verify.models.quantised import QuantisedVAEConfig
from kahler_verify.models.real_vae import RealVAE, RealVAEConfig
from kahler_verify.models.vae import ComplexVAE, VAEConfig

__all__ = [
    "FORMAT",
    "VERSION",
    "Checkpoint",
    "checked_tensors",
    "in_both_precisions",
    "load_checkpoint",
    "loaded_model",
    "save_checkpoint",
]

Config = VAEConfig | RealVAEConfig
Model = ComplexVAE | RealVAE

FORMAT = "kahler_verify.complex_vae"
REAL_FORMAT = "kahler_verify.real_vae"
QUANTISED_FORMAT = "kahler_verify.quantised_vae"
VERSION = 1
_CONFIGS: Mapping[str, type[Config]] = {
    FORMAT: VAEConfig,
    QUANTISED_FORMAT: QuantisedVAEConfig,
    REAL_FORMAT: RealVAEConfig,
}
_LARGEST_HEADER = 64 << 20
_POSITIVE = (".scale", ".codebook.counts")
_NOT_NEGATIVE = (".precision.weights", ".precision.bandwidths")


@dataclass(frozen=True)
class Checkpoint:
    """A model and what the file says of how it came about (held-out ELBO, seconds, versions)."""

    model: Model
    report: dict[str, Any]

    @property
    def config(self) -> Config:
        """The model's configuration."""
        return self.model.config


def save_checkpoint(
    path: str | Path, model: Model, *, report: Mapping[str, Any] | None = None
) -> None:
    """Write a model to ``path``; ``report`` is kept with it, as JSON.

    Raises:
        CheckpointError: a weight is not finite, weights are neither all float32 nor all float64, or
            are tied; the model is not the one that its configuration makes (a layer was exchanged
            or wrapped, or has hooks); the report is not JSON; or the file cannot be written.
    """
    path = Path(path)
    tensors = checked_tensors(path, model)
    try:
        written = json.dumps(dict(report or {}), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected a report of finite numbers, strings, lists and dictionaries, as "
            f"JSON has them, but {error}"
        ) from error
    write_tensors(
        path,
        tensors,
        {
            "format": format_of(model.config),
            "version": str(VERSION),
            "config": json.dumps(model.config.to_dict(), sort_keys=True),
            "report": written,
        },
    )


def checked_tensors(path: Path, model: Model) -> dict[str, Tensor]:
    """The tensors of a model that will come back as it is.

    Raises:
        CheckpointError: see :func:`save_checkpoint`.
    """
    expected = _empty_model(path, model.config)
    _require_structure(path, model, expected)
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    require_tensors(path, tensors, expected.state_dict())
    return tensors


def _require_structure(path: Path, model: Model, expected: Model) -> None:
    """The model must be the one that its configuration makes: else the file would be another's."""
    found, wanted = _structure(model), _structure(expected)
    for name in sorted(set(found) | set(wanted)):
        if found.get(name) != wanted.get(name):
            raise CheckpointError(
                f"{path}: expected the model that its configuration makes, with "
                f"{wanted.get(name, 'nothing')} at {name or 'the top'}, but got "
                f"{found.get(name, 'nothing')}; a checkpoint holds configuration and weights only, "
                "so that a changed model would not come back"
            )
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.device.type == "meta":
            raise CheckpointError(f"{path}: expected weights, but {name} is on the meta device")
        first = owners.setdefault(parameter.untyped_storage().data_ptr(), name)
        if first != name and _overlap(model.get_parameter(first), parameter):
            raise CheckpointError(
                f"{path}: expected weights of their own for every layer, but {first} and {name} "
                "share theirs; a checkpoint would untie them. Give one of them a clone"
            )


def _structure(model: Model) -> dict[str, str]:
    """What each module is, in words: its class, its settings, and what was hung on it."""
    out = {}
    for name, module in model.named_modules(remove_duplicate=False):
        kind = type(module)
        hooks = any(
            getattr(module, attribute, None)
            for attribute in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        )
        own = "forward" in vars(module)  # patched on the instance
        out[name] = f"{kind.__module__}.{kind.__qualname__}({module.extra_repr()})" + (
            " with hooks" if hooks else " with a forward of its own" if own else ""
        )
    return out


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one storage share elements."""

    def ends(x: Tensor) -> tuple[int, int]:
        span = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
        return int(x.storage_offset()), int(x.storage_offset() + span)

    (first, last), (other, end) = ends(a), ends(b)
    return a.numel() > 0 and b.numel() > 0 and first <= end and other <= last


def in_both_precisions(checkpoint: Checkpoint) -> tuple[Model, Model]:
    """Copies of a checkpoint's model in float64 and in float32, fixed, for evaluation."""
    double, single = (checkpoint.config.build() for _ in range(2))
    for copy, dtype in ((double, torch.float64), (single, torch.float32)):
        copy.load_state_dict(checkpoint.model.state_dict())
        copy.to(dtype).requires_grad_(False).eval()
    return double, single


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a model that ``save_checkpoint`` wrote; in evaluation mode, on the CPU.

    Raises:
        CheckpointError: the file is not a whole and sane checkpoint; the message says what was
            expected and what came.
    """
    path = Path(path)
    metadata, tensors = read_tensors(path, tuple(_CONFIGS), VERSION)
    config = config_from_json(path, metadata)
    report = _parse_object(path, metadata, "report")
    return Checkpoint(loaded_model(path, config, tensors), report)


def loaded_model(path: Path, config: Config, tensors: dict[str, Tensor]) -> Model:
    """The model of a configuration with these tensors, in evaluation mode.

    Raises:
        CheckpointError: they are not its own.
    """
    model = _empty_model(path, config)
    require_tensors(path, tensors, model.state_dict())
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


def _empty_model(path: Path, config: Config) -> Model:
    try:
        with torch.device("meta"):  # shapes without memory
            return config.build()
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its configuration makes no model ({error})") from error


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file whole or not at all; see :mod:`kahler_verify.files`.

    Raises:
        CheckpointError: the file cannot be written.
    """
    # clones: slices of one flat buffer have their own places in a file
    plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    try:
        write_with(path, lambda place: save_file(plain, place, metadata=dict(metadata)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error


def read_tensors(
    path: Path, expected_formats: tuple[str, ...], expected_version: int
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a safetensors file whose metadata carry this format and version."""
    if not path.is_file():
        raise CheckpointError(
            f"expected a checkpoint at {path}, but it is "
            f"{'not a file' if path.exists() else 'not there'}"
        )
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(10)
        if len(start) < 10:
            raise CheckpointError(f"{path}: expected a safetensors file, but it has {size} bytes")
        pickled = start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"
        if pickled and start[8:9] != b"{":  # a header's length may begin with such bytes
            raise CheckpointError(
                f"{path}: expected a safetensors file, but this is a pickle or a torch.save "
                "archive, which is not read because it could run code"
            )
        header = int.from_bytes(start[:8], "little")
        if start[8:9] != b"{" or header > _LARGEST_HEADER:
            raise CheckpointError(f"{path}: expected a safetensors file, but its header is not one")
        if header + 8 > size:
            raise CheckpointError(
                f"{path}: expected {header + 8} bytes or more, but it is truncated to {size}"
            )
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            _require_format(path, metadata, expected_formats, expected_version)
            # Copies: safetensors' own are views of the mapped file, aligned for real numbers only;
            # read as complex128 they crash the process.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a whole safetensors file, but it is foreign, damaged or truncated "
            f"({error})"
        ) from error
    return metadata, tensors


def _require_format(
    path: Path, metadata: Mapping[str, str], expected: tuple[str, ...], version: int
) -> None:
    found = metadata.get("format")
    if found not in expected:
        formats = " or ".join(map(repr, expected))
        raise CheckpointError(f"{path}: expected the format {formats}, but got {_short(found)}")
    if metadata.get("version") != str(version):
        raise CheckpointError(
            f"{path}: expected version {version} of {found}, "
            f"but got {_short(metadata.get('version'))}"
        )


def format_of(config: Config) -> str:
    """The format of checkpoints of such a configuration."""
    return next(name for name, kind in _CONFIGS.items() if type(config) is kind)


def config_from_json(path: Path, metadata: Mapping[str, str]) -> Config:
    """The validated configuration in a file's metadata, of the kind that ``model`` names."""
    kind = _CONFIGS.get(metadata.get("model", metadata.get("format", "")), VAEConfig)
    values = _parse_object(path, metadata, "config")
    try:
        return kind.from_dict(values)
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration is not valid: {error}") from error


def _parse_object(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    if key not in metadata:
        raise CheckpointError(f"{path}: expected {key!r} in its metadata, but it is missing")
    try:
        values = json.loads(metadata[key])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected {key!r} to be JSON, but {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path}: expected {key!r} to be a JSON object, but got {_short(values)}"
        )
    return values


def require_tensors(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Exactly the expected names, shapes and (one) floating-point type, and finite values."""
    missing = sorted(set(expected) - set(tensors))
    extra = sorted(set(tensors) - set(expected))
    if missing or extra:
        raise CheckpointError(
            f"{path}: expected the {len(expected)} tensors of its configuration; "
            f"missing: {_some(missing)}; unknown: {_some(extra)}"
        )
    for name, like in expected.items():
        found = tensors[name]
        if found.shape != like.shape:
            raise CheckpointError(
                f"{path}: expected {name} to have shape {tuple(like.shape)}, "
                f"but got {tuple(found.shape)}"
            )
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) != 1 or not dtypes <= {torch.float32, torch.float64}:
        raise CheckpointError(
            f"{path}: expected tensors all float32 or all float64, "
            f"but got {sorted(map(str, dtypes))}"
        )
    _require_finite(path, tensors)


def _require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise CheckpointError(
                f"{path}: expected finite weights, but {bad} of {tensor.numel()} entries of "
                f"{name} are NaN or infinite"
            )
        if name.endswith(_POSITIVE) and not bool((tensor > 0).all()):
            raise CheckpointError(f"{path}: expected {name} to be positive, but it is not")
        if name.endswith(_NOT_NEGATIVE) and not bool((tensor >= 0).all()):
            raise CheckpointError(f"{path}: expected {name} not to be negative, but it is")


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(map(_short, names[:4])) + (", ..." if len(names) > 4 else "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
