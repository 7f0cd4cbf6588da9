import importlib
import inspect
import pkgutil
from abc import abstractmethod
from itertools import permutations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import latentia
from latentia.configuration import Component, OneOf, apply_overrides, parse_overrides
from latentia.errors import ConfigurationError
from latentia.objectives import ELBO, IWAE, Objective


def heirs(cls):
    for heir in cls.__subclasses__():
        yield heir
        yield from heirs(heir)


def shipped_components():
    for module in pkgutil.walk_packages(latentia.__path__, "latentia."):
        if ".cli" not in module.name:
            importlib.import_module(module.name)
    every = [cls for cls in heirs(Component) if cls.__module__.startswith("latentia.") and not inspect.isabstract(cls)]
    whole = [cls for cls in dict.fromkeys(every) if cls.type_name or cls._family is None]
    # A component whose required field is a module of the user's own cannot come back from text, and says so.
    return [
        cls for cls in whole if all(f.annotation is not nn.Module for f in cls.model_fields.values() if f.is_required())
    ]


SHIPPED = shipped_components()


# Values of required keys that no type suggests.
OF_THEIR_KIND = {"columns": (0, 1), "likelihood": "poisson", "data": "digits"}


def with_defaults(cls):
    """One of each, its required fields (if it has any) filled by what the type suggests."""
    stand_ins = {int: 2, float: 0.5, str: "a/b"}
    required = {name: field for name, field in cls.model_fields.items() if field.is_required()}
    values = {name: OF_THEIR_KIND.get(name, stand_ins.get(field.annotation, "a")) for name, field in required.items()}
    return cls(**values)


@pytest.fixture
def animals():
    """A separate family, so that the classes that a test defines do not stay in a family of the library."""

    class Animal(Component, family=True):
        @abstractmethod
        def sound(self) -> str: ...

    class Dog(Animal):
        legs: int = 4

        def sound(self) -> str:
            return "woof"

    class GreatDane(Dog):
        weight: float = 60.0

    class Snake(Animal, name="serpent"):
        length: float = 1.0

        def sound(self) -> str:
            return "hiss"

    return Animal


def problems(call, *args, **kwargs):
    with pytest.raises(ConfigurationError) as caught:
        call(*args, **kwargs)
    return dict(caught.value.problems)


# ---- every component of the library -------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: f"{cls.__name__}")
def test_yaml_gives_every_component_back(cls):
    component = with_defaults(cls)
    mapping = yaml.safe_load(component.to_yaml())
    family = cls._family or cls
    assert cls.parse(mapping) == component
    assert family.parse(mapping) == component
    assert type(family.parse(cls.type_name if cls._family and not required(cls) else mapping)) is cls


def required(cls):
    return any(field.is_required() for field in cls.model_fields.values())


@pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: f"{cls.__name__}")
def test_every_component_is_frozen_and_knows_its_keys(cls):
    component = with_defaults(cls)
    assert "there is no such key" in problems(cls, **component.to_mapping(), no_such_key=1)["no_such_key"]
    for name in cls.model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(component, name, None)


def test_the_walk_found_the_families_of_the_library():
    families = {cls._family.__name__ for cls in SHIPPED if cls._family is not None}
    assert {"Objective", "Prior", "Posterior", "Likelihood", "Network", "Source", "Recipe", "Optimizer"} <= families


# ---- names --------------------------------------------------------------------------------------------------------


def test_a_class_joins_its_family_by_being_written(animals):
    assert list(animals.members()) == ["dog", "great-dane", "serpent"]
    assert animals.parse("great-dane").sound() == "woof"
    assert animals.parse({"type": "serpent", "length": 2}).length == 2.0
    assert animals.parse("dog").to_mapping() == {"type": "dog", "legs": 4}


def test_a_member_parses_itself_and_its_heirs_alone(animals):
    dog = animals.members()["dog"]
    assert list(dog.members()) == ["dog", "great-dane"]
    assert type(dog.parse({"legs": 3})) is dog
    assert dog.parse({"type": "great-dane"}).weight == 60
    assert "no animal named 'serpent'" in problems(dog.parse, "serpent")[""]


def test_families_do_not_mix(animals):
    assert "no objective named 'dog'" in problems(Objective.parse, "dog")[""]
    assert (
        "elbo belongs to the family 'objective', and not to 'animal'; give one of: dog"
        in problems(animals.parse, ELBO())[""]
    )


def test_a_name_belongs_to_one_class_which_may_be_redefined(animals):
    def define(name):
        class Cat(animals, name=name):
            def sound(self) -> str:
                return "meow"

        return Cat

    first, second = define("cat"), define("cat")
    assert animals.parse("cat") == second()
    assert first is not second
    with pytest.raises(ConfigurationError, match=r"the animal 'cat' is .*\.Cat already; .* class Tiger"):

        class Tiger(animals, name="cat"):
            def sound(self) -> str:
                return "roar"

    assert animals.parse("cat") == second()


def test_a_component_of_no_family_needs_no_type():
    class Loose(Component):
        size: int = 3

    assert Loose.parse({"size": 4}) == Loose(size=4)
    assert Loose(size=4).to_mapping() == {"size": 4}
    assert "is not a known loose; give one of: a mapping of its keys" in problems(Loose.parse, 3)[""]


# ---- faults -------------------------------------------------------------------------------------------------------


class Inner(Component):
    depth: int = 1


class Outer(Component):
    objective: OneOf[Objective] = ELBO()
    other: OneOf[Objective | None] = None
    inner: Inner = Inner()
    size: int = 1


def test_all_faults_come_at_once_each_under_its_dotted_key():
    found = problems(
        Outer,
        objective={"type": "iwae", "k": 0, "gradient": "plane"},
        other="ilbo",
        inner={"depth": "deep"},
        size="much",
        siez=3,
    )
    assert set(found) == {"objective.k", "objective.gradient", "other", "inner.depth", "size", "siez"}
    assert "greater than or equal to 1 (given: 0)" in found["objective.k"]
    assert "'plain', 'sticking-the-landing' or 'doubly-reparametrized'" in found["objective.gradient"]
    assert found["other"] == "there is no objective named 'ilbo'. Did you mean elbo?"
    assert "valid integer" in found["inner.depth"]
    assert found["siez"] == "there is no such key. Did you mean size?"


def test_a_key_of_another_member_names_that_member():
    assert "choose iwae" in problems(Outer, objective={"type": "elbo", "k": 5})["objective.k"]
    assert "Did you mean beta" in problems(Outer, objective={"type": "elbo", "bta": 5})["objective.bta"]


def test_the_same_faults_come_from_a_mapping_and_from_python():
    faulty = {"objective": {"type": "elbo", "beta": -1}, "size": "x"}
    assert problems(Outer.parse, faulty) == problems(Outer, **faulty)
    assert problems(ELBO, beta=-1) == problems(Objective.parse, {"type": "elbo", "beta": -1})


@pytest.mark.parametrize(
    ("value", "key", "message"),
    [
        ({"beta": 2}, "objective.type", "say which objective it is: one of elbo, "),
        (3, "objective", "3 is not a known objective; give one of: elbo, "),
        ([1], "objective", "a value of the type list is not a known objective"),
        (None, "objective", "None is not a known objective"),
        ({"type": ["elbo"]}, "objective", "there is no objective named"),
        ("", "objective.type", "say which objective"),
    ],
    ids=str,
)
def test_other_values_are_refused(value, key, message):
    assert message in problems(Outer, objective=value)[key]


def test_null_is_taken_where_it_is_allowed_and_members_as_they_are():
    objective = IWAE(k=50)
    assert Outer(objective=objective, other=None).objective is objective
    assert Outer.parse(yaml.safe_load(Outer(other=objective).to_yaml())) == Outer(other=objective)


def test_a_field_may_choose_among_families(animals):
    class Mixed(Component):
        choice: OneOf[Objective | animals]  # pyright: ignore[reportInvalidTypeForm]

    assert Mixed(choice="serpent").choice == animals.parse("serpent")
    assert Mixed(choice={"type": "iwae", "k": 2}).choice == IWAE(k=2)
    assert "Did you mean serpent?" in problems(Mixed, choice="serpents")["choice"]
    assert problems(Mixed, choice={"type": "iwae", "k": 0}).keys() == {"choice.k"}


# ---- overrides ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[10,30]", [10, 30]),
        ("[1e-3, 2]", [0.001, 2]),
        ("1e-3", 0.001),
        ("-2.5E+4", -25000.0),
        (".5e1", 5.0),
        ("3", 3),
        ("0.1", 0.1),
        ("null", None),
        ("", None),
        ("true", True),
        ("none", "none"),
        ("nan", "nan"),
        ("inf", "inf"),
        (".inf", float("inf")),
        ("2024-01-31", "2024-01-31"),
        ("a=b=c", "a=b=c"),
        ("/data/mnist", "/data/mnist"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("{type: iwae, k: 50}", {"type": "iwae", "k": 50}),
        ("@here", "@here"),
        ("[1,", "[1,"),
        ("!tag x", "!tag x"),
        ("'1e-3'", "1e-3"),
    ],
)
def test_values_mean_what_they_look_like(text, value):
    parsed = parse_overrides([f"key={text}"])["key"]
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_every_number_is_read_as_itself(number):
    assert parse_overrides([f"a.b={number!r}"]) == {"a.b": number}


def test_reading_overrides_leaves_yaml_as_it_was():
    assert yaml.safe_load("1e-3") == "1e-3"


def test_every_argument_without_a_value_is_named():
    assert set(problems(parse_overrides, ["epochs", "=3", "a=1", "--fast"])) == {"epochs", "=3", "--fast"}


@pytest.mark.parametrize(
    ("overrides", "result"),
    [
        ({"epochs": 3}, {"epochs": 3, "data": {"type": "digits", "binarize": "dynamic"}}),
        ({"data": "mnist"}, {"epochs": 20, "data": {"type": "mnist"}}),
        ({"data.type": "mnist"}, {"epochs": 20, "data": {"type": "mnist"}}),
        ({"data.binarize": "none"}, {"epochs": 20, "data": {"type": "digits", "binarize": "none"}}),
        ({"data": "digits"}, {"epochs": 20, "data": {"type": "digits", "binarize": "dynamic"}}),
        (
            {"data": "digits", "data.validation": 9},
            {"epochs": 20, "data": {"type": "digits", "binarize": "dynamic", "validation": 9}},
        ),
        ({"data": None}, {"epochs": 20, "data": None}),
        ({"prior": "vamp"}, {"epochs": 20, "data": {"type": "digits", "binarize": "dynamic"}, "prior": "vamp"}),
    ],
    ids=str,
)
def test_overrides_lay_over_the_mapping(overrides, result):
    mapping = {"epochs": 20, "data": {"type": "digits", "binarize": "dynamic"}}
    assert apply_overrides(mapping, overrides) == result
    assert mapping == {"epochs": 20, "data": {"type": "digits", "binarize": "dynamic"}}


def test_the_order_of_overrides_does_not_matter():
    mapping = {"data": {"type": "digits"}, "decoder": None, "objective": {"type": "elbo", "beta": 2.0}}
    arguments = [
        "data.binarize=static",
        "data=mnist",
        "decoder.a.b=1",
        "decoder=conv",
        "objective.type=iwae",
        "objective.k=3",
    ]
    results = [apply_overrides(mapping, parse_overrides(order)) for order in permutations(arguments)]
    assert all(result == results[0] for result in results)
    assert results[0] == {
        "data": {"type": "mnist", "binarize": "static"},
        "decoder": {"type": "conv", "a": {"b": 1}},
        "objective": {"type": "iwae", "k": 3},
    }
