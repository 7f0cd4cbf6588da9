"""The types are the configuration.

A `Component` is a frozen, validated value that does its own work: `IWAE(k=50)` is both the setting and the
objective. Components come in *families* (objectives, priors, networks, data sources, …): an abstract subclass of
`Component` made with `family=True`. Every concrete subclass of a family is known by a short name, so that

    objective=iwae objective.k=50        on the command line,
    objective: {type: iwae, k: 50}       in a recipe's YAML, and
    objective=IWAE(k=50)                 in Python

are the same thing. There is no table of names beside the classes: to add a component, write its class.
"""

from __future__ import annotations

__all__ = ["Component", "OneOf", "apply_overrides", "parse_overrides"]

import contextlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, model_serializer
from pydantic_core import core_schema

from latentia.errors import ConfigurationError, nearest


class Component(BaseModel):
    """A frozen value object with a type name; see the module's docstring.

    Subclasses may set their name with `class StandardNormal(Prior, name="normal")`; without it, the name is the
    class's own in lower case with hyphens (`BetaTCVAE` → `beta-tcvae`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    type_name: ClassVar[str] = ""
    _family: ClassVar[type[Component] | None] = None
    _members: ClassVar[dict[str, type[Component]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, *, family: bool = False, name: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if family:
            cls._family, cls._members = cls, {}
        elif cls._family is not None and not inspect.isabstract(cls):
            cls.type_name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
            cls._family._members[cls.type_name] = cls

    def __init_subclass__(cls, *, family: bool = False, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def members(cls) -> Mapping[str, type[Self]]:
        """The concrete members of this family by name, in order of definition."""
        return cls._members  # pyright: ignore[reportReturnType]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Make a member of this family from a name, a mapping with a `type`, or a member.

        Raises:
            ConfigurationError: listing every fault at once, each with its dotted key.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{value!r} is no {cls._label()}; give one of {', '.join(cls.members())}")
        fields = dict(value)
        kind = fields.pop("type", cls.type_name or None)
        member = cls if kind == cls.type_name else cls.members().get(str(kind))
        if member is None:
            raise ConfigurationError(
                [("", f"there is no {cls._label()} named {kind!r}. {nearest(str(kind), cls.members())}")]
            )
        try:
            return member.model_validate(fields)  # pyright: ignore[reportReturnType]
        except ValidationError as error:
            raise ConfigurationError(list(_problems(member, error))) from None

    @classmethod
    def _label(cls) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", (cls._family or cls).__name__).lower()

    @model_serializer(mode="wrap")
    def _serialise(self, handler: Any) -> dict[str, Any]:
        return {"type": self.type_name, **handler(self)} if self.type_name else handler(self)

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, every default written out: what `parse` takes back and what goes into recipe.yaml."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The component as YAML, keys in the order of their definition."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)


class _Choose:
    """Pydantic's side of `OneOf`: a field that takes a family's member by name, by mapping or as it is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        choices = get_args(source) or (
            source,
        )  # `OneOf[Source | ToyLaw]` has two families, `OneOf[Network | None]` one
        families: list[type[Component]] = [choice for choice in choices if choice is not type(None)]

        def parse(value: Any) -> Component | None:
            if value is None and type(None) in choices:
                return None
            name = value.get("type") if isinstance(value, Mapping) else value
            for family in families:
                if isinstance(value, family) or name in family.members():
                    return family.parse(value)
            if len(families) > 1:
                known = [name for family in families for name in family.members()]
                raise ConfigurationError(f"there is nothing named {name!r} here. {nearest(str(name), known)}")
            return families[0].parse(value)

        return core_schema.no_info_plain_validator_function(
            parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda member: None if member is None else member.to_mapping()
            ),
        )


_T = TypeVar("_T")
OneOf = Annotated[_T, _Choose()]
"""`OneOf[Prior]`: a field that holds one member of the family `Prior`; `OneOf[Prior | None]` may be null."""


def _problems(cls: type[BaseModel], error: ValidationError) -> Iterator[tuple[str, str]]:
    """Each fault of a validation as (dotted key, message with the cure)."""
    for fault in error.errors():
        path = [str(part) for part in fault["loc"]]
        key = ".".join(path)
        inner = (fault.get("ctx") or {}).get("error")
        if isinstance(inner, ConfigurationError):
            for sub_key, message in inner.problems:
                yield ".".join(part for part in (key, sub_key) if part), message
        elif fault["type"] == "extra_forbidden":
            yield key, f"there is no such key. {nearest(path[-1], cls.model_fields)}"
        else:
            message = str(inner) if inner is not None else fault["msg"]
            given = fault.get("input")
            shown = f" (given: {given!r})" if isinstance(given, str | int | float | list | tuple) else ""
            yield key, message[:1].lower() + message[1:] + shown


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` arguments; values are YAML, so `[10,30]`, `1e-3`, `true` and `null` mean what they look like.

    Raises:
        ConfigurationError: naming every argument that is not of the form key=value.
    """
    overrides: dict[str, Any] = {}
    problems = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            problems.append((argument, "write settings as key=value, such as epochs=20"))
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
            with contextlib.suppress(ValueError):
                value = float(value)
        overrides[key] = value
    if problems:
        raise ConfigurationError(problems)
    return overrides


def apply_overrides(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay dotted overrides over a nested mapping; a plain name where a component stands replaces the component.

    Shorter keys go first, whatever their order: `data.binarise=static data=mnist` is `{type: mnist, binarise: static}`.
    """
    result = _deep_copy(mapping)
    for key in sorted(overrides, key=lambda key: key.count(".")):
        *parents, leaf = key.split(".")
        place = result
        for parent in parents:
            if isinstance(place.get(parent), str):
                place[parent] = {"type": place[parent]}
            elif not isinstance(place.get(parent), dict):
                place[parent] = {}
            place = place[parent]
        value = overrides[key]
        place[leaf] = {"type": value} if isinstance(place.get(leaf), dict) and isinstance(value, str) else value
    return result


def _deep_copy(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}
