"""Collect trees of arrays during training, in step with checkpoints."""

from synthpix_torch.collecting.collector import Collector, CollectorError
from synthpix_torch.collecting.trees import dict_to_tree, register_node, tree_keys, tree_to_dict

__all__ = [
    "Collector",
    "CollectorError",
    "dict_to_tree",
    "register_node",
    "tree_keys",
    "tree_to_dict",
]
