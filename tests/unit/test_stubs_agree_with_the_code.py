"""What editors and type checkers are told is what the package has."""

import ast
import json
import re
from pathlib import Path

import pytest

import mqtt_as_tls
from mqtt_as_tls import errors, explain

CPYTHON_ONLY = True

PACKAGE = Path(__file__).parents[2] / "mqtt_as_tls"


def tree(name):
    return ast.parse((PACKAGE / name).read_text())


def class_of(module, name):
    return next(n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name)


def parameters(function, without=("self", "cls", "client")):
    """
    Return the names of a function's parameters, in order, those of the object left out. What it
    takes as **options and hands on is what MQTT 5 knows of a subscription.
    """
    arguments = function.args
    plain = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    names = [each.arg for each in plain]
    if arguments.vararg:
        names.insert(len(arguments.args), "*" + arguments.vararg.arg)
    if arguments.kwarg and function.name in ("on", "subscribe"):
        names += sorted(popped(functions(class_of(tree("mqtt5.py"), "Wire"))["subscription"]))
    return [name for name in names if name not in without]


def popped(function):
    """Return the names that a function takes out of its `options`, in order."""
    return [
        node.args[0].value
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "pop"
        and node.func.value.id == "options"
        and isinstance(node.args[0], ast.Constant)
    ]


def functions(node):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name: each for each in node.body if isinstance(each, kinds)}


def attributes(node):
    """Return {name: docstring or None} of the attributes that a class or module of a stub has."""
    found = {}
    for each, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(each, ast.AnnAssign):
            text = isinstance(after, ast.Expr) and ast.literal_eval(after.value)
            found[each.target.id] = text or None
    return found


def described(docstring, section):
    """Return the names that a section of a docstring ("Args", "Raises") describes, in order."""
    found = re.search(rf"^{section}:\n((?:    .*\n|\n)+)", (docstring or "") + "\n", re.M)
    return re.findall(r"^    (\S+?): ", found[1], re.M) if found else []


STUBS = sorted(path.name for path in PACKAGE.glob("*.pyi"))
STUB = tree("__init__.pyi")
CLIENT = tree("client.py")


def constant(module, name):
    for node in module.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            value = node.value
            return ast.literal_eval(value.args[0] if isinstance(value, ast.Call) else value)
    raise AssertionError(name)


NUMBERS = constant(tree("options.py"), "NUMBERS")


def test_every_public_name_is_in_the_stub_and_no_other():
    told = {node.name for node in STUB.body if isinstance(node, ast.ClassDef)}
    names = {name for _, names in mqtt_as_tls._NAMES for name in names.split()}
    assert names - told == set()
    # what is got or given, not imported
    assert told - names == {"Events", "Link", "Messages", "Source", "Stats", "Stream"}


def test_the_clients_methods_take_what_the_stub_says():
    told = functions(class_of(STUB, "MQTTClient"))
    has = functions(class_of(CLIENT, "MQTTClient"))
    for modules, names in constant(CLIENT, "_LATER"):
        has |= {name: functions(tree(modules.split()[-1] + ".py"))[name] for name in names.split()}
    public = {name for name in told if not name.startswith("_")}
    assert public - set(has) == set()
    for name in public:
        assert sorted(parameters(told[name])) == sorted(parameters(has[name])), name
        positional = [
            [each.arg for each in function.args.args if each.arg not in ("self", "client")]
            for function in (told[name], has[name])
        ]
        assert positional[0] == positional[1], name


def test_what_the_stub_leaves_out_is_for_the_other_modules():
    """Names of the client without an underscore are for apps, or for the package itself."""
    told = functions(class_of(STUB, "MQTTClient"))
    has = functions(class_of(CLIENT, "MQTTClient"))  # and properties, which are attributes
    own = {name for name in has if name[0] != "_" and not has[name].decorator_list} - set(told)
    others = [path.read_text() for path in PACKAGE.glob("*.py") if path.name != "client.py"]
    assert [name for name in own if not any(f".{name}(" in text for text in others)] == []


def defaults(name):
    """Return {argument: default, as it is written} of a table of options.py."""
    for node in tree("options.py").body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            table = node.value.args[0] if isinstance(node.value, ast.Call) else node.value
            return {ast.literal_eval(row.elts[0]): ast.unparse(row.elts[1]) for row in table.elts}
    raise AssertionError(name)


def test_the_clients_options_are_those_of_the_stub():
    told = parameters(functions(class_of(STUB, "MQTTClient"))["__init__"])
    has = parameters(functions(class_of(CLIENT, "MQTTClient"))["__init__"])
    assert has.pop() == "*others"  # taken to say that the rest has names
    numbers = [name for name, *_ in NUMBERS]
    others = [*defaults("ATTRIBUTES"), *defaults("OTHERS")]
    five = popped(functions(class_of(tree("mqtt5.py"), "Wire"))["__init__"])
    several = popped(functions(tree("options.py"))["taken"])
    assert told[: len(has)] == has
    assert told[-len(numbers) :] == numbers
    assert sorted(told[len(has) : -len(numbers)]) == sorted(others + five + several)


def test_the_defaults_of_the_options_are_those_of_the_stub():
    arguments = functions(class_of(STUB, "MQTTClient"))["__init__"].args
    told = {
        each.arg: ast.literal_eval(default)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if isinstance(default, ast.Constant)
    }
    for name, default, _, _ in NUMBERS:
        assert told[name] == default, name
    written = {
        each.arg: ast.unparse(default)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default
    }
    for name, default in {**defaults("ATTRIBUTES"), **defaults("OTHERS")}.items():
        assert written[name] in (default, "..."), name


@pytest.mark.parametrize(
    ("module", "name"),
    [("will", "Will"), ("store", "FileStore"), ("tls", "TLS"), ("wifi", "WiFi")],
)
def test_what_an_app_makes_takes_what_the_stub_says(module, name):
    told = functions(class_of(STUB, name))["__init__"].args
    has = functions(class_of(tree(module + ".py"), name))["__init__"].args
    for part in ("args", "kwonlyargs"):
        assert [each.arg for each in getattr(told, part)] == [
            each.arg for each in getattr(has, part)
        ]
    for part in ("defaults", "kw_defaults"):  # of TLS(ca=...) the code alone has one
        values = [each and ast.unparse(each) for each in getattr(told, part)]
        assert (
            values == [each and ast.unparse(each) for each in getattr(has, part)][-len(values) :]
        )


@pytest.mark.parametrize("name", ["readinto", "read"])
def test_a_stream_has_the_methods_of_its_stub(name):
    told = functions(class_of(STUB, "Stream"))[name]
    has = functions(class_of(tree("stream_in.py"), "Stream"))[name]
    assert parameters(told) == parameters(has)


@pytest.mark.parametrize(
    ("module", "name"),
    [("dispatch", "Message"), ("will", "Will"), ("store", "FileStore"), ("client", "MQTTClient")],
)
def test_the_attributes_of_the_stub_are_in_the_docstring(module, name):
    """A docstring names each attribute that an app may read."""
    text = ast.get_docstring(class_of(tree(module + ".py"), name))
    told = attributes(class_of(STUB, name))
    assert told
    assert [each for each in told if not re.search(rf"\b{each}\b", text)] == []


@pytest.mark.parametrize("stub", STUBS)
def test_everything_public_has_a_docstring(stub):
    silent = []

    def look(where, node):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            silent.extend(f"{where}{name}" for name, text in attributes(node).items() if not text)
        for each in node.body:
            if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if not ast.get_docstring(each):
                    silent.append(where + each.name)
                look(f"{where}{each.name}.", each)

    look("", tree(stub))
    assert silent == []


@pytest.mark.parametrize("stub", STUBS)
def test_a_docstring_describes_each_argument_and_no_other(stub):
    for node in ast.walk(tree(stub)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        names = parameters(node, ("self", "cls")) if node.name != "__aexit__" else []
        assert described(text, "Args") == names, node.name
        returns = node.name[0] != "_" and ast.unparse(node.returns) != "None"
        assert not returns or re.search(r"^(Returns:|.*[Rr]eturn )", text, re.M), node.name


def test_the_errors_have_the_attributes_of_the_stub():
    for name, kind in vars(errors).items():
        if not (isinstance(kind, type) and issubclass(kind, errors.MQTTError)):
            continue
        stub = class_of(STUB, name)
        assert [each.id for each in stub.bases] == [each.__name__ for each in kind.__bases__]
        names = set()
        for each in kind.__mro__[: kind.__mro__.index(Exception)]:
            names |= set(attributes(class_of(STUB, each.__name__)))
        made = kind("text", 7)
        has = {each for each in vars(made) if each[0] != "_"}
        has |= {each for each in ("cure", "properties") if hasattr(kind, each)}
        if kind is errors.MQTTError:  # what it has itself, not all that are derived have
            has.remove("code")
        assert names == has, name


@pytest.mark.parametrize("name", ["clock", "explain"])
def test_functions_of_modules_take_what_their_stub_says(name):
    told = functions(tree(f"{name}.pyi"))
    has = functions(tree(f"{name}.py"))
    for each in told:
        assert parameters(told[each]) == parameters(has[each]), each
    assert explain.explain("OSError(111,)")[0]


KINDS = ("sensor", "binary_sensor", "switch", "button", "number", "text")


@pytest.mark.parametrize("name", ["Entity", "HomeAssistant"])
def test_home_assistant_has_the_methods_of_its_stub(name):
    told = class_of(tree("home_assistant.pyi"), name)
    has = class_of(tree("home_assistant.py"), name)
    made = [node for node in has.body if isinstance(getattr(node, "value", None), ast.Call)]
    kinds = [node.targets[0].id for node in made]
    assert kinds == [ast.literal_eval(node.value.args[0]) for node in made]
    public = {each for each in functions(has) if each[0] != "_"} | set(kinds)
    assert public == {each for each in functions(told) if each[0] != "_"}
    for each in public - set(kinds):
        assert parameters(functions(told)[each]) == parameters(functions(has)[each]), each
    text = ast.get_docstring(has)
    assert [each for each in attributes(told) if not re.search(rf"\b{each}\b", text)] == []


def test_a_device_takes_what_the_stub_says():
    told = parameters(functions(class_of(tree("home_assistant.pyi"), "HomeAssistant"))["__init__"])
    has = functions(class_of(tree("home_assistant.py"), "HomeAssistant"))["__init__"]
    (options,) = [
        node.func.value.value.split()
        for node in ast.walk(has)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "split"
        and " " in getattr(node.func.value, "value", "")
    ]
    assert told == parameters(has) + options


@pytest.mark.parametrize("kind", KINDS)
def test_an_entity_takes_the_options_that_home_assistant_has(kind):
    """tests/support/discovery.schema.json has them from Home Assistant's documentation."""
    stub = class_of(tree("home_assistant.pyi"), "HomeAssistant")
    id, *told = parameters(functions(stub)[kind])
    schema = json.loads((PACKAGE.parent / "tests/support/discovery.schema.json").read_text())
    name = "text_entity" if kind == "text" else kind
    known = set(schema["definitions"][name]["properties"])
    own = {"platform", "unique_id", "qos", "state_topic", "command_topic"}
    written_out = {"unit_of_measurement" if each == "unit" else each for each in told}
    assert id == "id"
    assert written_out - {"value"} == known - own
