"""What a recipe sets differently from its defaults: the few lines of a long recipe that a reader needs first."""

from __future__ import annotations

__all__ = ["changed_settings"]

from typing import Any

from latentia.configuration import Component


def changed_settings(recipe: Component) -> dict[str, Any]:
    """Dotted keys and plain values that make this recipe out of its defaults, as one would type them.

    A component of another type than the default's stands with its name, followed by what differs from that type's own
    defaults: `{"objective": "iwae", "objective.k": 50}`.
    """
    changed: dict[str, Any] = {}
    for name, field in type(recipe).model_fields.items():
        value = getattr(recipe, name)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if not field.is_required() and value == default:
            continue
        if not isinstance(value, Component):
            changed[name] = recipe.to_mapping()[name]
            continue
        if field.is_required() or type(value) is not type(default):
            changed[name] = value.type_name
        changed.update({f"{name}.{key}": inner for key, inner in changed_settings(value).items()})
    return changed
