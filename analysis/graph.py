"""The dependency graph of a design: an oracle for the field, and the source of its pictures.

Nodes are activations (layer, channel, y, x), layer 0 being the input and layer i the output of
the design's i-th item, shuffles and pools included. An edge leads from each input that an item
reads to the output that reads it; it is found by asking the item about that output alone, on
its own map, so that following the edges shares no fold with `analysis.field`.

Cost: F H W calls of `reads` an item, each on C H W activations: for tiny widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np

from spaces.design import Design, Step
from spaces.operator import DesignError, Mask

Activation = tuple[int, int, int]
"""(channel, y, x)."""


def dependency_graph(
    design: Design,
    channels: int,
    out_channels: int | None = None,
    *,
    size: tuple[int, int],
    stride: int = 1,
) -> nx.DiGraph:
    """Every activation of a design on a map of (height, width), and what it reads.

    `graph.graph["layers"]` names the layers, `["design"]` the design.
    Raises DesignError where the design cannot stand.
    """
    steps = design.places(channels, out_channels, *size, stride)
    graph = nx.DiGraph(design=str(design), layers=_layers(steps))
    first = steps[0].place
    graph.add_nodes_from((0, *at) for at in np.ndindex(first.channels, first.height, first.width))
    for layer, (item, place, _) in enumerate(steps, start=1):
        shape = (place.features, place.out_height, place.out_width)
        for output in np.ndindex(shape):
            node = (layer, *output)
            graph.add_node(node)
            for read in _ones(item.reads(_one(shape, output), place)):
                graph.add_edge((layer - 1, *read), node)
    return graph


def reachable(graph: nx.DiGraph, output: Activation) -> set[Activation]:
    """The inputs from which a path leads to one output of the last layer.

    Raises DesignError where the output does not exist.
    """
    node = (len(graph.graph["layers"]) - 1, *output)
    if node not in graph:
        raise DesignError(f"the graph of {graph.graph['design']} has no output {output}")
    return {(c, y, x) for layer, c, y, x in nx.ancestors(graph, node) if layer == 0}


def channel_graph(design: Design, channels: int, out_channels: int | None = None) -> nx.DiGraph:
    """The channels (layer, channel) of a design and which reads which, for pictures.

    An edge carries `taps`, the pixels of the source channel that one pixel of the target reads,
    unless these are the whole plane.
    Raises DesignError where the design cannot stand.
    """
    steps = design.places(channels, out_channels)
    graph = nx.DiGraph(design=str(design), layers=_layers(steps))
    graph.add_nodes_from((0, c) for c in range(channels))
    for layer, (item, place, _) in enumerate(steps, start=1):
        rows, columns = item.window or (1, 1)
        here = replace(place, height=2 * rows - 1, width=2 * columns - 1)
        shape = (place.features, here.out_height, here.out_width)
        for channel in range(place.features):
            graph.add_node((layer, channel))
            inputs = item.reads(_one(shape, (channel, rows - 1, columns - 1)), here)
            taps = inputs.sum(axis=(1, 2))
            for source in np.flatnonzero(taps):
                counted = {"taps": int(taps[source])} if item.window else {}
                graph.add_edge((layer - 1, int(source)), (layer, channel), **counted)
    return graph


def to_graphml(graph: nx.DiGraph, path: Path | str) -> None:
    """Write a graph of this module as GraphML, which knows neither tuples nor lists.

    A node's name is its numbers joined by colons; layer, channel, y and x become attributes of
    their own, `operator` names the item whose output the node is.
    """
    layers = graph.graph["layers"]
    flat = nx.DiGraph(design=graph.graph["design"], layers=" ".join(layers))
    for node in graph:
        numbers = dict(zip(("layer", "channel", "y", "x"), node, strict=False))
        flat.add_node(_name(node), **numbers, operator=layers[node[0]])
    for source, target, attributes in graph.edges(data=True):
        flat.add_edge(_name(source), _name(target), **attributes)
    nx.write_graphml(flat, path)


def _layers(steps: tuple[Step, ...]) -> list[str]:
    return ["input", *(str(step.item) for step in steps)]


def _name(node: tuple[int, ...]) -> str:
    return ":".join(map(str, node))


def _one(shape: tuple[int, ...], at: tuple[int, ...]) -> Mask:
    """A mask with one activation set."""
    mask = np.zeros(shape, bool)
    mask[at] = True
    return mask


def _ones(mask: Mask) -> Iterator[tuple[int, ...]]:
    """Where the mask is set, as plain integers."""
    return (tuple(at) for at in np.argwhere(mask).tolist())
