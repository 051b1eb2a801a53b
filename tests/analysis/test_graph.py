"""The graph itself: by hand on a design small enough to draw, and its GraphML."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest

from analysis.graph import channel_graph, dependency_graph, reachable, to_graphml
from spaces.design import parse
from spaces.operator import DesignError


def test_the_graph_of_a_small_design() -> None:
    graph = dependency_graph(parse("PWG(2)+PWG(2)"), 4, size=(1, 2))
    assert graph.graph == {
        "design": "PWG(2)+PWG(2)",
        "layers": ["input", "PWG(2)", "SHUFFLE", "PWG(2)"],
    }
    assert graph.number_of_nodes() == 4 * 4 * 2
    assert set(graph.predecessors((1, 3, 0, 1))) == {(0, 2, 0, 1), (0, 3, 0, 1)}
    assert [set(graph.predecessors((2, c, 0, 0))) for c in range(4)] == [
        {(1, c, 0, 0)} for c in (0, 2, 1, 3)
    ]
    assert reachable(graph, (0, 0, 1)) == {(c, 0, 1) for c in range(4)}


def test_a_border_pixel_reads_what_exists() -> None:
    graph = dependency_graph(parse("DW"), 2, size=(3, 3))
    assert reachable(graph, (1, 0, 0)) == {(1, y, x) for y in (0, 1) for x in (0, 1)}


def test_a_stride_without_a_spatial_operator_is_a_pool() -> None:
    graph = dependency_graph(parse("PW"), 2, size=(3, 4), stride=2)
    assert graph.graph["layers"] == ["input", "POOL", "PW"]
    assert reachable(graph, (0, 1, 0)) == {(c, 2, x) for c in (0, 1) for x in (0, 1)}


def test_an_output_that_does_not_exist_is_refused() -> None:
    graph = dependency_graph(parse("PW"), 2, size=(1, 1))
    with pytest.raises(DesignError, match="no output"):
        reachable(graph, (2, 0, 0))


def test_the_channel_graph_counts_taps() -> None:
    graph = channel_graph(parse("GC(2,k=5)+PWG(2)"), 4)
    assert graph.number_of_nodes() == 16
    assert graph.edges[(0, 3), (1, 2)] == {"taps": 25}
    assert graph.edges[(1, 2), (2, 1)] == {"taps": 1}
    assert graph.number_of_edges() == 8 + 4 + 8
    assert nx.ancestors(graph, (3, 0)) >= {(0, c) for c in range(4)}


@pytest.mark.parametrize("make", ["activations", "channels"])
def test_graphml_keeps_nodes_edges_and_numbers(make: str, tmp_path: Path) -> None:
    design = parse("GC(2)+PWG(2)")
    graph = (
        dependency_graph(design, 4, size=(2, 3))
        if make == "activations"
        else channel_graph(design, 4)
    )
    path = tmp_path / "field.graphml"
    to_graphml(graph, path)
    read = nx.read_graphml(path)
    assert set(read) == {":".join(map(str, node)) for node in graph}
    assert read.number_of_edges() == graph.number_of_edges()
    node = next(n for n in graph if n[:2] == (1, 3))
    attributes = read.nodes[":".join(map(str, node))]
    assert (attributes["layer"], attributes["channel"], attributes["operator"]) == (1, 3, "GC(2)")
    if make == "channels":
        assert read.edges["0:3", "1:3"]["taps"] == 9
