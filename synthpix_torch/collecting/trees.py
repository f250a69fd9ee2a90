"""Trees of containers as flat dicts whose keys are paths, and back.

Containers are what torch (`torch.utils._pytree`) or JAX (`jax.tree_util`) registers, and types that
`register_node` adds. A path joins the keys by "/", as HDF5 does; "~" and "/" within a key are
written "~0" and "~1" (RFC 6901).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from torch.utils import _pytree

Node = TypeVar("Node")


class _Node(NamedTuple):
    """A container, taken apart one level."""

    children: dict[str, Any]
    rebuild: Callable[[Sequence[Any]], Any]


_RULES: dict[type, tuple[Callable[[Any], Mapping[str, Any]], Callable[[Mapping[str, Any]], Any]]]
_RULES = {}


def register_node(
    kind: type[Node],
    to_children: Callable[[Node], Mapping[str, Any]],
    from_children: Callable[[Mapping[str, Any]], Node],
) -> None:
    """Treat objects of a type as containers.

    Args:
        kind: The type; its subclasses are not included.
        to_children: Returns the children of an object by key.
        from_children: Builds an object from its children.

    Raises:
        ValueError: The type has a rule already.
    """
    if kind in _RULES:
        raise ValueError(f"{kind.__qualname__} has a rule already.")
    _RULES[kind] = (to_children, from_children)


def tree_to_dict(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by path; a tree that is a leaf has the path "".

    None and empty containers have no leaves.

    Raises:
        ValueError: Two leaves have the same path, such as those of the keys 1 and "1".
    """
    found: dict[str, Any] = {}
    _collect(tree, (), found)
    return found


def tree_keys(tree: Any) -> list[str]:
    """Return the paths of the leaves of a tree, in the order of `tree_to_dict`."""
    return list(tree_to_dict(tree))


def dict_to_tree(leaves: Mapping[str, Any], like: Any) -> Any:
    """Build the tree that `tree_to_dict` took apart.

    Args:
        leaves: Leaves by path.
        like: A tree of the same structure; its leaves are not used.

    Raises:
        ValueError: A path is missing or unknown.
    """
    expected = set(tree_to_dict(like))
    for wrong, text in (
        (expected - leaves.keys(), "The leaves lack"),
        (leaves.keys() - expected, "The tree given as `like` has no place for"),
    ):
        if wrong:
            names = ", ".join(map(repr, sorted(wrong)[:5]))
            raise ValueError(f"{text} {names}: both need the same structure.")
    return _build(leaves, like, ())


def _collect(node: Any, path: tuple[str, ...], found: dict[str, Any]) -> None:
    taken = _take_apart(node)
    if taken is None:
        name = "/".join(path)
        if name in found:
            raise ValueError(f"Two leaves of the tree have the path {name!r}: rename one.")
        found[name] = node
        return
    for key, child in taken.children.items():
        _collect(child, (*path, key), found)


def _build(leaves: Mapping[str, Any], like: Any, path: tuple[str, ...]) -> Any:
    taken = _take_apart(like)
    if taken is None:
        return leaves["/".join(path)]
    return taken.rebuild(
        [_build(leaves, child, (*path, key)) for key, child in taken.children.items()]
    )


def _take_apart(node: Any) -> _Node | None:
    """Return a container's children, or None for a leaf."""
    if node is None:
        return _Node({}, lambda _: None)
    rule = _RULES.get(type(node))
    if rule is not None:
        to_children, from_children = rule
        children = {_escape(key): child for key, child in to_children(node).items()}
        keys = list(to_children(node))
        return _Node(children, lambda values: from_children(dict(zip(keys, values, strict=True))))
    # JAX sorts the keys of a dict and torch does not; one order is chosen here for both.
    try:
        pairs, structure = jax.tree_util.tree_flatten_with_path(
            node, is_leaf=lambda x: x is not node
        )
    except ValueError as error:
        raise ValueError(
            f"The keys of a {type(node).__name__} cannot be sorted: use keys of one type."
        ) from error
    if jax.tree_util.treedef_is_leaf(structure):
        return _take_apart_by_torch(node)
    return _Node(
        _named([(path[-1], child) for path, child in pairs]),
        lambda values: jax.tree_util.tree_unflatten(structure, values),
    )


def _take_apart_by_torch(node: Any) -> _Node | None:
    pairs, structure = _pytree.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if structure.is_leaf():
        return None
    return _Node(
        _named([(path[-1], child) for path, child in pairs]),
        lambda values: _pytree.tree_unflatten(list(values), structure),
    )


def _named(pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Name the children by what JAX or torch calls them: a key, an index or an attribute."""
    named: dict[str, Any] = {}
    for entry, child in pairs:
        key = next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name))
        name = _escape(key)
        if name in named:
            raise ValueError(f"Two keys of a container are both written {name!r}: rename one.")
        named[name] = child
    return named


def _escape(key: Any) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")
