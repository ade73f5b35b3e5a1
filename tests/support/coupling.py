"""
How far the modules of a package reach into each other's objects: attributes of one class that
other modules write, and names with an underscore that other modules use.

Read off the source, without running it. Whose attribute it is follows from where the object was
made (`x = Class(...)` in the same function), else from its name: `session`, `self._session` and
`client.session` are a Session. An object of another name (`mate.busy = True`) is one of the class
that has such an attribute, unless one of the writing module's own has it, too.
"""

import ast


def read(folder):
    """Return the modules in `folder` (Path) as {dotted name: source}."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): path.read_text()
        for path in sorted(folder.rglob("*.py"))
    }


class Coupling:
    """
    The coupling of the modules `sources` ({dotted name: source}) of the package `package` (str).

    names       {name of a variable: name of its class, or None for no class of the package},
                besides those that are called like their class: `file_store` for FileStore
    uncounted   names of classes whose attributes anybody may write

    writes      {class: {attribute: set of the modules that write it}}, without the class's own
    private     list of (module, line, text): a name with an underscore of another module
    attributes  {class: set of its attributes that methods or the class itself assign}
    """

    def __init__(self, sources, package, names=None, uncounted=()):
        self.writes = {}
        self.private = []
        self.attributes = {}
        self._package = package
        self._uncounted = uncounted
        self._homes = {}  # class: modules that define one of this name
        self._defined = {}  # module: names that it defines, of its objects and of itself
        trees = {name: ast.parse(source) for name, source in sources.items()}
        for name, tree in trees.items():
            self._define(name, tree)
        self._names = {_snake(name): name for name in self._homes} | (names or {})
        for name, tree in trees.items():
            self._look(name, tree, self._outside(tree), {})

    def written(self):
        """Return how many attributes are written by another module than their class's."""
        return sum(len(each) for each in self.writes.values())

    def writes_text(self):
        """Return `writes` as lines, one a class."""
        return "\n".join(
            f"{kind}: "
            + ", ".join(f"{name} ({' '.join(sorted(found[name]))})" for name in sorted(found))
            for kind, found in sorted(self.writes.items())
        )

    def private_text(self):
        """Return `private` as lines, one a module."""
        lines = {}
        for module, line, text in self.private:
            lines.setdefault(module, []).append(f"{line} {text}")
        return "\n".join(f"{module}: {', '.join(found)}" for module, found in lines.items())

    def _define(self, module, tree):
        defined = self._defined[module] = set()
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                defined.add(node.name)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            if not isinstance(node, ast.ClassDef):
                continue
            self._homes.setdefault(node.name, set()).add(module)
            own = self.attributes.setdefault(node.name, set())
            for each in node.body:
                if isinstance(each, (ast.Assign, ast.AnnAssign)):
                    own |= {n.id for n in ast.walk(each) if _is(n, ast.Name, ast.Store)}
            for each in ast.walk(node):
                if (found := _written(each)) and _is_self(found[0]):
                    own.add(found[1])
        for own in [self.attributes[name] for name in self._homes if module in self._homes[name]]:
            defined |= own

    def _outside(self, tree):
        """Return the names under which `tree` imported what is not of the package."""
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not self._inside(node):
                found |= {each.asname or each.name for each in node.names}
            if isinstance(node, ast.Import):
                names = [(each.asname or each.name).split(".")[0] for each in node.names]
                found |= set(names) - {self._package}
        return found

    def _inside(self, node):
        return node.level or f"{node.module}.".startswith(f"{self._package}.")

    def _look(self, module, node, outside, made):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            made = made | self._made(node)
        if isinstance(node, ast.ImportFrom) and self._inside(node):
            for each in node.names:
                if _is_private(each.name):
                    self.private.append((module, node.lineno, f"import {each.name}"))
        elif isinstance(node, ast.Call) and (found := _by_name(node)):
            self._reach(module, node, *found, outside, made)
        elif isinstance(node, ast.Attribute):
            self._reach(module, node, node.value, node.attr, outside, made)
        for each in ast.iter_child_nodes(node):
            self._look(module, each, outside, made)

    def _made(self, function):
        """Return {variable: class} of the objects that are made in `function`."""
        found = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                kind = _last(node.value.func)
                if kind in self._homes:
                    found |= {_last(each): kind for each in node.targets if _last(each)}
        return found

    def _reach(self, module, node, owner, name, outside, made):
        """`module` uses the attribute `name` of the expression `owner`."""
        if _is_self(owner) or _root(owner) in outside or name.startswith("__"):
            return
        last = _last(owner)
        kind = made.get(last) if isinstance(owner, ast.Name) else None
        known = (last or "").strip("_")
        kind = kind or self._names.get(known)
        if kind is None and known in self._names:
            return
        if _is_private(name):
            own = module in self._homes[kind] if kind else name in self._defined[module]
            if not own:
                self.private.append((module, node.lineno, ast.unparse(node)))
        if not _written(node):
            return
        if kind is None:
            having = [each for each in self._homes if name in self.attributes[each]]
            if not having or any(module in self._homes[each] for each in having):
                return
            kind = " or ".join(sorted(having))
        elif module in self._homes[kind]:
            return
        if kind not in self._uncounted:
            self.writes.setdefault(kind, {}).setdefault(name, set()).add(module)


def _is(node, kind, *contexts):
    return isinstance(node, kind) and isinstance(node.ctx, contexts)


def _written(node):
    """Return (object, name of the attribute) where `node` sets or deletes one, else None."""
    if _is(node, ast.Attribute, ast.Store, ast.Del):
        return node.value, node.attr
    if isinstance(node, ast.Call) and _last(node.func) in ("setattr", "delattr"):
        return _by_name(node)
    return None


def _by_name(call):
    """Return (object, name) of getattr(object, "name") and its like, else None."""
    name = getattr(call.func, "id", "")
    if name in ("getattr", "hasattr", "setattr", "delattr") and len(call.args) > 1:
        what = call.args[1]
        if isinstance(what, ast.Constant) and isinstance(what.value, str):
            return call.args[0], what.value
    return None


def _is_private(name):
    return name.startswith("_") and not name.startswith("__")


def _is_self(node):
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _last(node):
    """Return the last name of an expression: `session` of `client.session`."""
    return getattr(node, "attr", None) or getattr(node, "id", None)


def _root(node):
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = getattr(node, "value", None) or getattr(node, "func", None)
    return getattr(node, "id", None)


def _snake(name):
    words = "".join(f"_{each.lower()}" if each.isupper() else each for each in name)
    return words.lstrip("_")
