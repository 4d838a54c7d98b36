"""The parts of pydantic used for recipes, suites and result files; no other file imports it."""

from __future__ import annotations

from spikewvat.errors import require

require("pydantic", extra="cli", purpose="reading recipes and result files")
core_schema = require(
    "pydantic_core", extra="cli", purpose="reading recipes and result files"
).core_schema

from pydantic import (  # noqa: E402 -- after the check
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.errors import PydanticSchemaGenerationError  # noqa: E402

__all__ = [
    "BaseModel",
    "ConfigDict",
    "Field",
    "PydanticSchemaGenerationError",
    "PydanticUserError",
    "TypeAdapter",
    "ValidationError",
    "core_schema",
    "field_validator",
    "model_validator",
]
