"""What editors and type checkers are told is what the package has."""

import ast
from pathlib import Path

import mqtt_as_tls
from mqtt_as_tls import explain

CPYTHON_ONLY = True

PACKAGE = Path(__file__).parents[2] / "mqtt_as_tls"


def tree(name):
    return ast.parse((PACKAGE / name).read_text())


def class_of(module, name):
    return next(n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name)


def parameters(function):
    """Return the names of a function's parameters, in order, `self` and `client` left out."""
    arguments = function.args
    names = [each.arg for each in arguments.args + arguments.kwonlyargs]
    return [name for name in names if name not in ("self", "client", "cls")]


def functions(node):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name: each for each in node.body if isinstance(each, kinds)}


STUB = tree("__init__.pyi")
CLIENT = tree("client.py")


def constant(module, name):
    for node in module.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            value = node.value
            return ast.literal_eval(value.args[0] if isinstance(value, ast.Call) else value)
    raise AssertionError(name)


def test_every_public_name_is_in_the_stub_and_no_other():
    told = {node.name for node in STUB.body if isinstance(node, ast.ClassDef)}
    names = {name for _, names in mqtt_as_tls._NAMES for name in names.split()}
    assert names - told == set()
    assert told - names == {"Link", "Messages", "Stats"}  # what is got, not imported


def test_the_clients_methods_take_what_the_stub_says():
    told = functions(class_of(STUB, "MQTTClient"))
    has = functions(class_of(CLIENT, "MQTTClient"))
    for module, names in constant(CLIENT, "_LATER"):
        has |= {name: functions(tree(module + ".py"))[name] for name in names.split()}
    public = {name for name in has if not name.startswith("_")}
    assert public == {name for name in told if not name.startswith("_")}
    for name in public:
        assert parameters(told[name]) == parameters(has[name]), name


def test_the_clients_options_are_those_of_the_stub():
    told = parameters(functions(class_of(STUB, "MQTTClient"))["__init__"])
    has = parameters(functions(class_of(CLIENT, "MQTTClient"))["__init__"])
    options = [name for name, *_ in constant(CLIENT, "_OPTIONS")]
    assert told == has + options


def test_the_defaults_of_the_options_are_those_of_the_stub():
    arguments = functions(class_of(STUB, "MQTTClient"))["__init__"].args
    told = {
        each.arg: ast.literal_eval(default)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if isinstance(default, ast.Constant)
    }
    for name, default, _, _ in constant(CLIENT, "_OPTIONS"):
        assert told[name] == default, name


def test_explain_takes_what_its_stub_says():
    told = functions(tree("explain.pyi"))["explain"]
    has = functions(tree("explain.py"))["explain"]
    assert parameters(told) == parameters(has)
    assert explain.explain("OSError(111,)")[0]
