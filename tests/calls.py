"""One small call of every operator, for tests of what all of them have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import cv3gpu
from cv3gpu import _array, affinity, cluster, message, mot, spectral
from tests.conftest import PATHS


class Calls:
    """Makes the arguments, with the same numbers every time, and binds them to the operators."""

    def __init__(self, library: str) -> None:
        self.path = PATHS[library]
        self.rng = np.random.default_rng(7)
        self.found: dict[str, Callable[[], Any]] = {}
        for family in (self.layers, self.fields, self.cuts, self.clusters, self.graphs, self.scores, self.tracking):
            family()

    def floats(self, *shape: int) -> Any:
        return self.path.array(self.rng.random(shape).astype(np.float32))

    def labels(self, n: int, *shape: int) -> Any:
        return self.path.array(self.rng.integers(0, n, shape))

    def add(self, operator: Callable[..., Any], *args: Any, name: str = "", **options: Any) -> None:
        self.found[name or operator.__name__] = functools.partial(operator, *args, **options)

    def layers(self) -> None:
        x, weight, bias = self.floats(2, 16, 12, 13), self.floats(24, 16, 3, 3), self.floats(24)
        grad = self.floats(2, 24, 12, 13)
        self.add(cv3gpu.conv2d, x, weight, bias, padding=1)
        self.add(cv3gpu.conv2d_adjoint_input, grad, weight, (12, 13), padding=1)
        self.add(cv3gpu.conv2d_adjoint_weight, grad, x, (3, 3), padding=1)
        self.add(cv3gpu.conv_transpose2d, grad, weight, stride=2, padding=1)
        self.add(cv3gpu.resize_conv2d, x, weight, bias, scale_factor=2, padding=1)
        enlarged = self.floats(2, 24, 24, 26)
        self.add(cv3gpu.resize_conv2d_adjoint_input, enlarged, weight, (12, 13), scale_factor=2, padding=1)
        self.add(cv3gpu.resize_conv2d_adjoint_weight, enlarged, x, (3, 3), scale_factor=2, padding=1)
        depthwise, pointwise = self.floats(16, 1, 3, 3), self.floats(24, 16, 1, 1)
        self.add(cv3gpu.separable_conv2d, x, depthwise, pointwise, padding=1)
        self.add(cv3gpu.separable_conv2d_vjp, grad, x, depthwise, pointwise, padding=1)
        ends = [self.floats(8, 16, 3, 3), self.floats(5, 16, 1, 1)]
        self.add(cv3gpu.aspp, x, ends, dilations=(2, 1))
        self.add(cv3gpu.aspp_vjp, self.floats(2, 13, 12, 13), x, ends, dilations=(2, 1))
        self.add(cv3gpu.pyramid_pooling, x, [self.floats(4, 16, 1, 1), self.floats(4, 16, 1, 1)], bins=(1, 3))
        maps, fusing = [self.floats(2, 3, b, b) for b in (1, 3)], self.floats(6, 22, 3, 3)
        self.add(cv3gpu.pyramid_conv2d, x, maps, fusing)
        self.add(cv3gpu.interpolate, x, size=(17, 20), mode="bilinear")
        self.add(cv3gpu.interpolate_adjoint, self.floats(2, 3, 17, 20), (12, 13), mode="bilinear")
        values, indices = cv3gpu.max_pool2d(x, 2)
        self.add(cv3gpu.max_pool2d, x, 3, stride=2)
        self.add(cv3gpu.max_pool2d_adjoint, values, indices, (12, 13), 2)
        self.add(cv3gpu.max_unpool2d, values, indices, 2, output_size=(12, 13))
        self.add(cv3gpu.max_unpool2d_adjoint, x, indices, 2)
        logits, target, one = self.floats(2, 5, 9, 9), self.labels(5, 2, 17, 17), self.floats()
        self.add(cv3gpu.upsample_argmax, logits, 17)
        self.add(cv3gpu.upsample_cross_entropy, logits, target)
        self.add(cv3gpu.upsample_cross_entropy_vjp, one, logits, target)
        self.add(cv3gpu.overlap_uniformity, 3, 2, weight=self.rng.random((1, 1, 3, 3)))

    def fields(self) -> None:
        unary, image = self.floats(3, 11, 12), self.floats(11, 12, 3)
        options = {"theta_alpha": 3.0, "theta_beta": 0.2, "theta_gamma": 1.5, "n_iter": 2}
        self.add(cv3gpu.dense_crf, unary, image, **options)
        self.add(cv3gpu.dense_crf_vjp, unary, unary, image, **options)
        values, place = self.floats(3, 90), self.floats(5, 90)
        self.add(cv3gpu.gaussian_filter, values, place)
        self.add(cv3gpu.gaussian_filter_vjp, values, values, place)

    def cuts(self) -> None:
        steps = ((0, 1), (0, -1), (1, 0), (-1, 0))
        self.add(cv3gpu.graph_cut, self.floats(9, 11), self.floats(9, 11), self.floats(4, 9, 11), offsets=steps)
        unary, edges, potts = (
            self.floats(3, 9, 10),
            self.floats(2, 9, 10),
            self.path.array(1 - np.eye(3, dtype=np.float32)),
        )
        for move in (cv3gpu.alpha_expansion, cv3gpu.alpha_beta_swap):
            self.add(move, unary, potts, edges, offsets=((0, 1), (1, 0)), max_iter=3)
        image = np.full((16, 17, 3), 0.1) + 0.7 * (np.hypot(*np.mgrid[-8:8, -8:9]) < 5)[..., None]
        image += 0.05 * self.rng.random(image.shape)
        inside, outside = np.zeros((2, 16, 17), bool)
        inside[8, 8], outside[0] = True, True
        given, seeds = self.path.array(image.astype(np.float32)), map(self.path.array, (inside, outside))
        self.add(cv3gpu.boykov_jolly, given, *seeds, lam=1.0, sigma=0.1)
        self.add(cv3gpu.grab_cut, given, (2, 2, 13, 13), n_components=2, max_iter=2)
        self.add(cv3gpu.slic, self.floats(20, 22, 3), 12, max_iter=3)

    def clusters(self) -> None:
        x = self.floats(120, 3)
        self.add(cv3gpu.kmeans, x, 4)
        self.add(cluster.assign, x, self.floats(4, 3), name="cluster.assign")
        self.add(cv3gpu.mean_shift, x, 0.4)
        image = self.floats(9, 10, 3)
        self.add(cv3gpu.mean_shift_filter, image, 3, 0.4)
        self.add(cv3gpu.mean_shift_segmentation, image, 3, 0.4, 5)

    def graphs(self) -> None:
        x, image = self.floats(60, 3), self.floats(10, 11)
        self.add(cv3gpu.knn_affinity, x, 5)
        self.add(cv3gpu.rbf_affinity, x, gamma=1.0)
        self.add(cv3gpu.pixel_affinity, image, radius=2)
        regions = self.path.array(np.arange(110).reshape(10, 11) // 22)
        self.add(cv3gpu.region_affinity, image, regions)
        links, pixels = cv3gpu.knn_affinity(x, 8), cv3gpu.pixel_affinity(image, radius=3)
        self.add(affinity.laplacian, links)
        self.add(affinity.ncut_value, pixels, self.labels(2, 10, 11))
        self.add(cv3gpu.smallest_eigenpairs, pixels, 3, tol=1e-3)
        self.add(cv3gpu.normalized_cut, image, n_segments=3)
        self.add(cv3gpu.spectral_clustering, x, 3, n_init=2)
        self.add(spectral.best_threshold, pixels, self.floats(110), name="spectral.best_threshold")
        self.add(spectral.eigengap, np.array([0.0, 0.1, 0.7]), name="spectral.eigengap")
        self.add(spectral.nystrom, x, 3, gamma=1.0, n_landmarks=20, name="spectral.nystrom")

    def scores(self) -> None:
        a, b = self.labels(4, 2, 9, 12), self.labels(4, 2, 9, 12)
        self.add(cv3gpu.confusion_matrix, a, b, 4)
        table = np.arange(16).reshape(4, 4)
        self.add(cv3gpu.mean_iou, table)
        self.add(cv3gpu.pixel_accuracy, table)
        self.add(cv3gpu.panoptic_quality, a + 1000, b + 1000, label_divisor=1000)
        for score in (cv3gpu.rand_index, cv3gpu.segmentation_covering, cv3gpu.variation_of_information):
            self.add(score, a[0], b[0])
        self.add(cv3gpu.boundary_f1, a, b, 2.0)
        boxes = self.floats(20, 4), self.floats(23, 4)
        self.add(cv3gpu.box_iou, *boxes, format="xywh")
        self.add(cv3gpu.box_iou_vjp, self.floats(20, 23), *boxes, format="xywh")
        self.add(cv3gpu.linear_sum_assignment, self.floats(3, 9, 14))

    def tracking(self) -> None:
        frame, box = self.path.array(np.arange(40) // 5), self.floats(40, 4)
        edges = mot.candidate_edges(frame, box, max_gap=3, k=4)
        self.add(mot.candidate_edges, frame, box, max_gap=3, k=4, name="mot.candidate_edges")
        self.add(mot.edge_features, frame, box, edges, name="mot.edge_features")
        self.add(mot.label_edges, self.labels(5, 40), edges, frame, name="mot.label_edges")
        count = int(edges.shape[1])
        self.add(mot.round_trajectories, edges, self.floats(count), 40, name="mot.round_trajectories")
        ends = {"entry_cost": 0.5, "exit_cost": 0.5}
        self.add(mot.min_cost_flow, edges, self.floats(count), self.floats(40) - 1, **ends, name="mot.min_cost_flow")
        position = 20 * self.rng.random((5, 4)) + [0, 0, 30, 40] + 100 * np.arange(5)[:, None] * [1, 0, 0, 0]
        rows = {"frame": np.arange(40) // 5 + 1, "id": np.arange(40) % 5, "box": position[np.arange(40) % 5]}
        rows["box"] = rows["box"] + self.rng.normal(size=(40, 4))
        seen, truth = (mot.Tracks(**rows, score=np.full(40, s)) for s in (0.9, 1.0))
        for tracker in (mot.sort, mot.byte_track, mot.flow_tracker):
            self.add(tracker, seen, name=f"mot.{tracker.__name__}")
        self.add(mot.match_detections, seen, truth, name="mot.match_detections")
        given = [self.path.array(np.asarray(column)) for column in (rows["frame"], rows["id"], rows["box"])]
        boxes = mot.Boxes(frame=given[0], id=given[1], box=given[2])
        self.add(mot.evaluate_boxes, boxes, boxes, name="mot.evaluate_boxes")
        self.passing()

    def passing(self) -> None:
        ends = np.array([(i, j) for i in range(9) for j in range(i + 1, 11, 2)]).T
        nodes, initial, edges = self.floats(11, 4), self.floats(ends.shape[1], 2), self.floats(ends.shape[1], 6)
        pairs = self.path.array(np.ascontiguousarray(ends))
        graph = message.message_graph(pairs, 11, undirected=True)
        weights = [self.floats(*shape) for shape in ((8, 16), (8,), (6, 8), (6,))]
        past = [self.floats(*shape) for shape in ((8, 10), (8,), (4, 8), (4,))]
        update = self.floats(4, 8), self.floats(4)
        out = message.edge_step(nodes, initial, edges, weights, graph)
        sums, new = message.message_sums(nodes, out, past, past, graph), self.floats(11, 4)
        given: dict[Callable[..., Any], tuple[Any, ...]] = {
            message.message_graph: (pairs, 11),
            message.edge_step: (nodes, initial, edges, weights, graph),
            message.edge_step_vjp: (out, out, nodes, initial, edges, weights, graph),
            message.message_sums: (nodes, out, past, past, graph),
            message.message_sums_vjp: (sums, nodes, out, past, past, graph),
            message.node_step: (nodes, out, past, past, update, graph),
            message.node_step_vjp: (new, new, nodes, out, past, past, update, graph),
        }
        for operator, args in given.items():
            self.add(operator, *args, name=f"message.{operator.__name__}")


@functools.cache
def calls(library: str) -> dict[str, Callable[[], Any]]:
    """The calls on NumPy arrays or torch tensors, by the names of `_determinism.OPERATORS`."""
    return Calls(library).found


def bits(result: Any) -> list[bytes]:
    """Every array and number of a result, as it lies in memory."""
    if _array.family(result) == "torch" and result.is_sparse_csr:
        return bits([result.crow_indices(), result.col_indices(), result.values()])
    if _array.family(result) == "torch":
        return [result.detach().contiguous().cpu().view(-1).numpy().tobytes()]
    if isinstance(result, np.ndarray):
        return [result.tobytes()]
    if isinstance(result, dict):
        return [b for key in sorted(result, key=str) for b in bits(result[key])]
    if isinstance(result, list | tuple):
        return [b for part in result for b in bits(part)]
    if hasattr(result, "indptr"):  # a sparse matrix
        return bits([result.data, result.indices, result.indptr])
    if hasattr(result, "__dict__") and not callable(result):
        return bits({k: v for k, v in vars(result).items() if not k.startswith("_")})
    return [repr(result).encode()]
