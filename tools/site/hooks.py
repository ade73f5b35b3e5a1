"""
What makes one website of the repository: the pages of docs/, README.md as its start, the examples,
the API reference, and a page for each other file that a page links to, as the site knows no
forge. mkdocs calls the functions `on_...` (mkdocs.yml, `hooks:`).
"""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "tools/site/reference.md"  # its directives name what the package's stub has
STUBS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("mqtt_as_tls/*.pyi"))

_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
_MARK = re.compile(r"^<!-- .*? -->$", re.M)


def uri(path):
    """Return where the site has the file or folder `path` of the repository (both str)."""
    if path == "README.md":
        return "index.md"
    if path == REFERENCE or path in STUBS:
        return "reference.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(".md") and "/" not in path:
        lower = path.lower()
        return f"files/{lower}" if (ROOT / "docs" / lower).exists() else lower
    if (ROOT / path).is_dir():
        path += "/index"
    # mkdocs leaves out what begins with a dot
    return f"{path if path.startswith('examples/') else 'files/' + path.lstrip('.')}.md"


def links(path, text):
    """Return the paths in the repository (set of str) that `text`, of the page `path`, links."""
    found = _LINK.findall(_FENCE.sub("", text))
    return {posixpath.normpath(posixpath.join(posixpath.dirname(path), each)) for each in found}


def rewritten(path, text):
    """Return `text`, of the page `path`, with the links of the site, and without its marks."""
    here = posixpath.dirname(path)

    def link(match):
        target = uri(posixpath.normpath(posixpath.join(here, match[1])))
        return posixpath.relpath(target, posixpath.dirname(uri(path)) or ".")

    parts = []
    end = 0
    for fence in _FENCE.finditer(text):
        parts.append(_MARK.sub("", _LINK.sub(link, text[end : fence.start()])))
        parts.append(fence[0])
        end = fence.end()
    parts.append(_MARK.sub("", _LINK.sub(link, text[end:])))
    return "".join(parts)


def contents(folder):
    """Return the text files below `folder` (str) as paths in the repository, in order."""
    found = []
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            try:
                path.read_text("utf-8")
            except UnicodeDecodeError:
                continue
            found.append(path.relative_to(ROOT).as_posix())
    return found


def purpose(path):
    """Return the first sentence of what a file says of itself (str), "" if it says nothing."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".py"):
        said = ast.get_docstring(ast.parse(text)) or ""
        return re.split(r"(?<=\.)\s|\n\n|:\n", said + "\n\n")[0].replace("\n", " ")
    return ""


def page_of(path):
    """Return the Markdown (str) of the page for `path`, a file or folder outside docs/."""
    if path.endswith(".md"):
        return rewritten(path, (ROOT / path).read_text("utf-8"))
    if (ROOT / path).is_dir():
        here = posixpath.dirname(uri(path))
        lines = [f"# {path}/", ""]
        for each in contents(path):
            there = posixpath.relpath(uri(each), here)
            lines.append(f"- [{each.removeprefix(path + '/')}]({there}): {purpose(each)}")
        return "\n".join(lines) + "\n"
    language = {".py": "python", ".js": "js", ".json": "json", ".sh": "sh", ".yml": "yaml"}
    kind = language.get(posixpath.splitext(path)[1], "text")
    text = (ROOT / path).read_text("utf-8")
    return f"# {path}\n\n`````{kind}\n{text}\n`````\n"


def modules():
    """Return the Markdown (str) of the reference of what is imported by its module."""
    lines = []
    for path in STUBS:
        name = posixpath.splitext(path)[0].replace("/", ".")
        if not name.endswith("__init__"):
            stub = ast.parse((ROOT / path).read_text("utf-8"))
            lines += [f"## {name}", ast.get_docstring(stub) or ""]
            public = [getattr(node, "name", "_") for node in stub.body]
            lines += [f"::: {name}.{each}" for each in public if each[0] != "_"]
    return "\n\n".join(lines) + "\n"


def on_config(config):
    """The examples are whatever is in their folder."""
    for entry in config.nav:
        for title, pages in entry.items():
            if pages == "examples":
                each = [{posixpath.basename(path): uri(path)} for path in contents("examples")]
                entry[title] = [{"What they do": uri("examples")}, *each]
    return config


def on_files(files, config):
    """Add the pages that are not in docs/."""
    pages = ["README.md", *(f"docs/{each.src_uri}" for each in files.documentation_pages())]
    done = set(pages)
    new = {"README.md"}
    while pages:
        path = pages.pop()
        found = links(path, (ROOT / path).read_text("utf-8")) if path.endswith(".md") else set()
        if (ROOT / path).is_dir():
            found = set(contents(path))
        for each in found - done:
            done.add(each)
            outside = not each.startswith("docs/") and each not in STUBS
            if outside and (ROOT / each).exists():  # else mkdocs says what is dead
                pages.append(each)
                new.add(each)
    for path in sorted(new | {"examples"}):
        files.append(File.generated(config, uri(path), content=page_of(path)))
    reference = page_of(REFERENCE) + "\n" + modules()
    files.append(File.generated(config, "reference.md", content=reference))
    return files


def on_page_markdown(markdown, page, config, files):
    """The pages of docs/ as the repository has them."""
    if page.file.generated_by:
        return markdown
    return rewritten(f"docs/{page.file.src_uri}", markdown)
