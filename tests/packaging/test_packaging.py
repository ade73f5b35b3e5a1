"""What mip and a manifest install is the folder mqtt_as_tls/, under one version."""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mqtt_as_tls"


def package_json():
    return json.loads((ROOT / "package.json").read_text())


def manifest_calls():
    """Return {function: call} of the statements in manifest.py."""
    body = ast.parse((ROOT / "manifest.py").read_text()).body
    return {statement.value.func.id: statement.value for statement in body}


def keywords(call):
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}


def source_version():
    """Return `__version__` of the package: the one that the others repeat."""
    for node in ast.parse((PACKAGE / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__":
            return ast.literal_eval(node.value)
    raise AssertionError('mqtt_as_tls/__init__.py has no line `__version__ = "..."`')


def test_package_json_lists_every_module_and_nothing_else():
    modules = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py"))
    listed = sorted(package_json()["urls"])
    wanted = [[name, name] for name in modules]
    lines = ",\n    ".join(map(json.dumps, wanted))
    assert listed == wanted, f"make the urls of package.json\n    {lines}"


def test_package_json_takes_nothing_from_elsewhere():
    package = package_json()
    assert not package.get("deps"), "the firmware has ssl and asyncio: package.json has no deps"
    for _, source in package["urls"]:
        assert ":" not in source and not source.startswith("/"), f"{source}: not relative"


def test_the_manifest_freezes_the_package_without_asserts_and_line_numbers():
    calls = manifest_calls()
    assert list(calls)[0] == "metadata", "metadata() comes first, or MicroPython's tools refuse"
    assert ast.literal_eval(calls["require"].args[0]) == "ssl"
    assert ast.literal_eval(calls["package"].args[0]) == "mqtt_as_tls"
    assert keywords(calls["package"]) == {"opt": 3}


def test_the_version_is_the_same_everywhere():
    version = source_version()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), f"{version}: write MAJOR.MINOR.PATCH"
    changelog = re.search(r"^## \[?(\d\S*?)\]?( |$)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    found = {
        "manifest.py": keywords(manifest_calls()["metadata"])["version"],
        "package.json": package_json()["version"],
        "CHANGELOG.md (newest heading)": changelog and changelog[1],
    }
    # the host tool's own, unless it is read from the package
    fixed = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    if fixed:
        found["pyproject.toml"] = fixed[1]
    wrong = {name: value for name, value in found.items() if value != version}
    assert not wrong, f"mqtt_as_tls/__init__.py says {version}; change {wrong}"
