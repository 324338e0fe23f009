"""The imports of the package form no circle, and its classes no long chains.

`LEFT_CIRCLES` and `LEFT_CHAINS` list what is still to be taken apart. They may only shrink: an entry that no
longer applies fails its test, as a new circle or chain does.
"""

import ast
from pathlib import Path

import jobqueue

PACKAGE = Path(jobqueue.__file__).parent
PATHS = sorted(path for path in PACKAGE.rglob("*.py") if "static" not in path.parts)
# Each circle as the set of its modules.
LEFT_CIRCLES: list[set[str]] = []
# Classes with more than one ancestor of our own; errors and the structs of requests may have more.
LEFT_CHAINS: set[str] = set()
EXEMPT = {
    "jobqueue.client.errors",
    "jobqueue.errors",
    "jobqueue.jobs.options",
    "jobqueue.web.schema.requests",
    "jobqueue.web.schema.schedules",
}


def module_name(path):
    parts = ["jobqueue", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(module, tree, modules):
    """Returns the modules that `module` imports, also inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports are not used here"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                found.add(inside if inside in modules else node.module)
    return found & modules - {module}


def circles(graph):
    """Returns the strongly connected components of more than one module (Tarjan's algorithm)."""
    order, low, stack, found = {}, {}, [], []

    def visit(module):
        order[module] = low[module] = len(order)
        stack.append(module)
        for target in sorted(graph[module]):
            if target not in order:
                visit(target)
            if target in stack:
                low[module] = min(low[module], low[target])
        if low[module] == order[module]:
            at = stack.index(module)
            members = set(stack[at:])
            del stack[at:]
            if len(members) > 1:
                found.append(members)

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def graph_of(trees):
    return {module: imports_of(module, tree, trees.keys()) for module, tree in trees.items()}


def ancestors(name, bases):
    """Returns the names of our own classes that the class `name` inherits from, directly or not."""
    own = {base for base in bases.get(name, ()) if base in bases}
    return own.union(*(ancestors(base, bases) for base in own))


def chains(trees):
    """Returns the classes, as `module.Class`, that have more than one ancestor of our own."""
    bases, homes = {}, {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name] = module
                plain = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
                bases[node.name] = {base.id for base in plain if isinstance(base, ast.Name)} - {node.name}
    long = {name for name in bases if len(ancestors(name, bases)) > 1}
    return {f"{homes[name]}.{name}" for name in long if homes[name] not in EXEMPT}


def package():
    return {module_name(path): ast.parse(path.read_text()) for path in PATHS}


def test_no_two_files_of_tests_have_the_same_name():
    """pytest imports them by their names alone."""
    tests = Path(__file__).parent
    paths = [path.relative_to(tests) for path in tests.rglob("test_*.py")]
    # Not in folders such as .build, where the load tests install other packages.
    names = [path.name for path in paths if not any(part.startswith(".") for part in path.parts)]
    assert len(names) > 100
    assert [name for name in names if names.count(name) > 1] == []


def test_the_imports_of_the_package_form_no_circle():
    found = circles(graph_of(package()))
    assert sorted(map(sorted, found)) == sorted(map(sorted, LEFT_CIRCLES))


def test_no_class_has_more_than_one_ancestor_of_our_own():
    assert chains(package()) == LEFT_CHAINS


def test_a_circle_is_found_wherever_its_imports_stand():
    trees = {
        "a": ast.parse("import b"),
        "b": ast.parse("def f():\n    from c import d"),
        "c": ast.parse("if TYPE_CHECKING:\n    import a"),
        "d": ast.parse("import a"),
    }
    assert circles(graph_of(trees)) == [{"a", "b", "c"}]


def test_a_chain_is_found_across_modules():
    trees = {"a": ast.parse("class A: ...\nclass B(A): ..."), "b": ast.parse("class C(B[int]): ...")}
    assert chains(trees) == {"b.C"}
