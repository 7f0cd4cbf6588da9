"""The types are the configuration.

A `Component` is a frozen, validated value that does its own work: `IWAE(k=50)` is both the setting and the
objective. Components come in *families* (objectives, priors, networks, data sources, …): an abstract subclass of
`Component` made with `family=True`. Every concrete subclass of a family is known by a short name, so that

    objective=iwae objective.k=50        on the command line,
    objective: {type: iwae, k: 50}       in a recipe's YAML, and
    objective=IWAE(k=50)                 in Python

are equivalent. The classes are the only table of names: to add a component, write its class.
"""

from __future__ import annotations

__all__ = ["Component", "OneOf", "apply_overrides", "parse_overrides"]

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, model_serializer
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from latentia.errors import ConfigurationError, nearest
from latentia.files import parse_yaml


def _path_of(cls: type) -> str:
    """Module and name of a class: equal for a class that is defined again, as when a notebook cell is repeated."""
    return f"{cls.__module__}.{cls.__qualname__}"


class Component(BaseModel):
    """A frozen value object with a type name; see the module's docstring.

    Subclasses may set their name with `class StandardNormal(Prior, name="normal")`; without it, the name is the
    class's own in lower case with hyphens (`FlowPrior` → `flow-prior`). Two classes of one family may not share a name;
    a class that is defined again, as in a notebook, replaces its earlier definition.

    Raises:
        ConfigurationError: listing every fault at once, each with its dotted key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    type_name: ClassVar[str] = ""
    _family: ClassVar[type[Component] | None] = None
    _members: ClassVar[dict[str, type[Component]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, *, family: bool = False, name: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.type_name = ""
        if family:
            cls._family, cls._members = cls, {}
        elif cls._family is not None and not inspect.isabstract(cls):
            cls.type_name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
            taken = cls._members.get(cls.type_name)
            if taken is not None and _path_of(taken) != _path_of(cls):
                raise ConfigurationError(
                    f"the {cls._label()} {cls.type_name!r} is {_path_of(taken)} already; "
                    f'give this one another name: class {cls.__name__}(…, name="…")'
                )
            cls._members[cls.type_name] = cls

    def __init_subclass__(cls, *, family: bool = False, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigurationError(list(_problems(type(self), error))) from None

    @classmethod
    def members(cls) -> Mapping[str, type[Self]]:
        """The concrete members of this family by name, in order of definition; of a member, it and its subclasses."""
        return {name: member for name, member in cls._members.items() if issubclass(member, cls)}

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Make a member of this family from a name, a mapping with a `type`, or a member.

        A component of no family has no name, and is made from a mapping without a `type`.

        Raises:
            ConfigurationError: listing every fault at once, each with its dotted key.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            known = ", ".join(cls.members()) or "a mapping of its keys"
            other = (
                f"{value.type_name} belongs to the family {value._label()!r}" if isinstance(value, Component) else ""
            )
            given = (
                f"{other}, and not to {cls._label()!r}" if other else f"{_shown(value)} is not a known {cls._label()}"
            )
            raise ConfigurationError(f"{given}; give one of: {known}")
        fields = {str(key): item for key, item in value.items()}
        kind = str(fields.pop("type", cls.type_name))
        member = cls if cls._family is None and not kind else cls.members().get(kind)
        if member is None and not kind:
            raise ConfigurationError([("type", f"say which {cls._label()} it is: one of {', '.join(cls.members())}")])
        if member is None:
            hint = cls._hint(kind) or nearest(kind, cls.members())
            raise ConfigurationError(f"there is no {cls._label()} named {kind!r}. {hint}")
        return member(**fields)

    @classmethod
    def _hint(cls, name: str) -> str:  # noqa: ARG003
        """The cure for a name that no member has, where a family knows a better one than the nearest name."""
        return ""

    @classmethod
    def from_value(cls, value: Any) -> Any:  # noqa: ARG003
        """A member made of a value that is neither a name nor a mapping, such as data; None where there is none."""
        return None

    @classmethod
    def _label(cls) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", (cls._family or cls).__name__).lower()

    @model_serializer(mode="wrap")
    def _serialize(self, handler: Any) -> dict[str, Any]:
        return {"type": self.type_name, **handler(self)} if self.type_name else handler(self)

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, every default written out: what `parse` takes back and what goes into recipe.yaml."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The component as YAML, keys in the order of their definition."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)

    def explain(self) -> str:
        """The component as YAML, each key with a comment: its description, and the names or range that it takes."""
        lines = list(_explained(self, ""))
        width = min(48, max((len(line) for line, _ in lines), default=0))
        return "".join(f"{line:{width}}  # {words}\n" if words else f"{line}\n" for line, words in lines)


def _shown(value: Any) -> str:
    """A value for a message: as it is where that is short, else its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return f"{value!r:.99}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    about = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    about += f" and type {dtype}" if dtype is not None and about else ""
    return f"a value of the type {type(value).__name__}{about}"


def _explained(component: Component, indent: str) -> Iterator[tuple[str, str]]:
    """(line of YAML, comment) for each key of a component and of the components in it."""
    plain, written = component.to_mapping(), _attribute_docs(type(component))
    if component.type_name:
        yield f"{indent}type: {component.type_name}", ""
    for name, about in type(component).model_fields.items():
        if about.exclude:
            continue
        key, value = about.alias or name, getattr(component, name)
        words = about.description or written.get(name, "")
        takes = _takes(about)
        comment = "; ".join(part for part in (words, takes) if part)
        if isinstance(value, Component):
            yield f"{indent}{key}:", comment
            yield from _explained(value, f"{indent}  ")
        else:
            text = yaml.safe_dump(plain[key], default_flow_style=True, allow_unicode=True, width=10**6).split("\n")[0]
            yield f"{indent}{key}: {text}", comment


def _takes(about: FieldInfo) -> str:
    """What a field takes: the names of its family's members, the words of a Literal, or a range."""
    if any(isinstance(part, _Choose) for part in about.metadata):
        return "one of: " + ", ".join(name for family in _families(about.annotation) for name in family.members())
    parts = [about.annotation, *get_args(about.annotation)]
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    if words:
        return "one of: " + ", ".join(map(str, words))
    bounds = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = [(name, getattr(part, name, None)) for part in about.metadata for name in bounds]
    return ", ".join(f"{bounds[name]} {limit}" for name, limit in limits if limit is not None)


def _attribute_docs(cls: type) -> dict[str, str]:
    """The first sentences in the `Attributes:` sections of a class's docstring and those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for match in re.finditer(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE):
            sentence = re.split(r"(?<!et al)\. ", " ".join(match.group(2).split()))[0]
            found[match.group(1)] = sentence.rstrip(".").replace("`", "")
    return found


def _families(annotation: Any) -> list[type[Component]]:
    choices = get_args(annotation) or (annotation,)
    return [choice for choice in choices if choice is not type(None)]


class _Choose:
    """Pydantic's side of `OneOf`: a field that takes a family's member by name, by mapping or as it is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        # `OneOf[Source | ToyDistribution]` has two families, `OneOf[Network | None]` one
        choices, families = get_args(source) or (source,), _families(source)

        def parse(value: Any) -> Component | None:
            if value is None and type(None) in choices:
                return None
            name = value.get("type") if isinstance(value, Mapping) else value
            for family in families:
                if isinstance(value, family) or (isinstance(name, str) and name in family.members()):
                    return family.parse(value)
            is_data = not (isinstance(value, Mapping) and "type" in value)
            if is_data and not isinstance(value, Component | str | bool | int | float | None):
                for family in families:
                    made = family.from_value(value)
                    if made is not None:
                        return made
            if len(families) > 1:  # name them all, where one family's own message would hide the others
                known = [name for family in families for name in family.members()]
                hints = [family._hint(name) for family in families if isinstance(name, str)]
                hint = "".join(hints) or nearest(str(name)[:99], known)
                raise ConfigurationError(f"there is nothing named {_shown(name)} here. {hint}")
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


def _problems(cls: type[Component], error: ValidationError) -> Iterator[tuple[str, str]]:
    """Each fault of a validation as (dotted key, message with the cure)."""
    for fault in error.errors():
        path = [str(part) for part in fault["loc"]]
        key = ".".join(path)
        inner = (fault.get("ctx") or {}).get("error")
        if isinstance(inner, ConfigurationError):
            for sub_key, message in inner.problems:
                yield ".".join(part for part in (key, sub_key) if part), message
        elif fault["type"] == "extra_forbidden":
            parts = [known for known in _keys(cls) if path[-1] in known.split("_")]
            owners = [] if path[1:] else _members_with(cls, key)
            if len(parts) > 1:  # `optimizer` of a recipe with two of them
                yield key, f"there is no such key; choose {' or '.join(parts)}"
            elif owners and issubclass(cls, Component):
                yield key, f"{cls.type_name} has no such key; choose {' or '.join(owners)}"
            elif not path[1:] and (inside := _parts_with(cls, SYNONYMS.get(key, key))):
                yield key, f"there is no such key. Did you mean {' or '.join(inside)}?"
            else:
                yield key, f"there is no such key. {nearest(path[-1], _keys(cls))}"
        elif fault["type"] in ("tuple_type", "list_type"):
            words = re.findall(r"[A-Za-z_]\w*|\d+(?:\.\d+)?", str(fault["input"])) or ["16"]
            yield key, f"give a list, such as [{', '.join(words)}] (given: {fault['input']!r})"
        elif fault["type"] == "missing":
            yield key, "this setting has no default; give it a value"
        else:
            message = str(inner) if inner is not None else fault["msg"]
            given = fault.get("input")
            plain = isinstance(given, str | int | float | list | tuple)
            arrays = isinstance(getattr(given, "shape", None), tuple)
            shown = f" (given: {given!r:.99})" if plain else f" (given: {_shown(given)})" if arrays else ""
            yield key, message[:1].lower() + message[1:] + shown


SYNONYMS = {"learning_rate": "lr"}  # keys of other libraries


def _keys(cls: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in cls.model_fields.items()]


def _parts_with(cls: type[BaseModel], key: str) -> list[str]:
    """Dotted keys of the default components of a recipe that have this key: `lr` is `optimizer.lr`."""
    parts = {
        field.alias or name: field.get_default(call_default_factory=True)
        for name, field in cls.model_fields.items()
        if not field.is_required()
    }
    return [f"{name}.{key}" for name, part in parts.items() if isinstance(part, Component) and key in _keys(type(part))]


def _members_with(cls: type[BaseModel], key: str) -> list[str]:
    """The other members of a component's family that have this key."""
    family = cls._family if issubclass(cls, Component) else None
    return [] if family is None else [name for name, member in family.members().items() if key in _keys(member)]


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` arguments; values are YAML, so `[10,30]` is a list, `1e-3` a number and `null` nothing.

    An empty value is null; only the first `=` divides key and value; of a key given twice the last one counts.

    Raises:
        ConfigurationError: naming every argument that is not of the form key=value.
    """
    overrides: dict[str, Any] = {}
    arguments, problems = list(arguments), []
    if "=" in arguments[1:-1]:
        at = arguments.index("=", 1)
        message = f"write settings without spaces: {arguments[at - 1]}={arguments[at + 1]}"
        raise ConfigurationError([(arguments[at - 1], message)])
    for argument in arguments:
        key, equals, text = argument.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.append((argument, "write settings as key=value, such as epochs=20"))
            continue
        try:
            overrides[key] = parse_yaml(text.strip())
        except ValueError:
            overrides[key] = text
    if problems:
        raise ConfigurationError(problems)
    return overrides


def apply_overrides(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Apply dotted overrides to a nested mapping; a plain name in the place of a component replaces the component.

    Shorter keys go first, whatever their order: `data.binarize=static data=mnist` is `{type: mnist, binarize: static}`.
    `data.type=mnist` is `data=mnist`. The name of the component that stands there already changes nothing: where the
    default is `{type: mnist-5k, binarize: dynamic}`, `data=mnist-5k` keeps that binarization.
    """
    result = _deep_copy(mapping)
    overrides = {key.removesuffix(".type"): value for key, value in overrides.items()}
    for key in sorted(overrides, key=lambda key: key.count(".")):
        *parents, leaf = key.split(".")
        place = result
        for parent in parents:
            if isinstance(place.get(parent), str):
                place[parent] = {"type": place[parent]}
            elif not isinstance(place.get(parent), dict):
                place[parent] = {}
            place = place[parent]
        value, there = overrides[key], place.get(leaf)
        if not (isinstance(there, dict) and isinstance(value, str)):
            place[leaf] = value
        elif there.get("type") != value:
            place[leaf] = {"type": value}
    return result


def _deep_copy(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}
