"""What each operator promises about the bits of its result when it is called again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _check

__all__ = ["LABELS", "OPERATORS", "determinism"]

LABELS = ("not_guaranteed", "run_to_run", "gpu_to_gpu")  # CCCL's words, from the weakest promise to the strongest

# Integers, comparisons, copies and sums that no compiler may contract: nothing that one GPU rounds unlike another.
_GPU_TO_GPU = """
    confusion_matrix linear_sum_assignment max_pool2d max_unpool2d max_unpool2d_adjoint mean_iou pixel_accuracy slic
    message.message_graph mot.label_edges mot.round_trajectories
"""

# Sums of floats in a fixed order, and no atomics on floats. The order, the products that are fused with a sum, and the
# inside of a tensor core's instruction may differ from one GPU to another.
_RUN_TO_RUN = """
    alpha_beta_swap alpha_expansion aspp aspp_vjp boundary_f1 box_iou box_iou_vjp boykov_jolly conv2d
    conv2d_adjoint_input conv2d_adjoint_weight conv_transpose2d dense_crf dense_crf_vjp gaussian_filter
    gaussian_filter_vjp grab_cut graph_cut interpolate interpolate_adjoint kmeans knn_affinity laplacian
    max_pool2d_adjoint mean_shift mean_shift_filter mean_shift_segmentation ncut_value normalized_cut
    overlap_uniformity panoptic_quality pixel_affinity pyramid_conv2d pyramid_pooling rand_index rbf_affinity
    region_affinity resize_conv2d resize_conv2d_adjoint_input resize_conv2d_adjoint_weight segmentation_covering
    separable_conv2d separable_conv2d_vjp smallest_eigenpairs spectral_clustering upsample_argmax
    upsample_cross_entropy upsample_cross_entropy_vjp variation_of_information
    cluster.assign
    message.edge_step message.edge_step_vjp message.message_sums message.message_sums_vjp message.node_step
    message.node_step_vjp
    mot.byte_track mot.candidate_edges mot.edge_features mot.evaluate_boxes mot.flow_tracker mot.match_detections
    mot.min_cost_flow mot.sort
    spectral.best_threshold spectral.eigengap spectral.nystrom
"""

# Operators by name; those that are found in a module of cv3gpu alone, with the module's.
OPERATORS: dict[str, str] = {
    **dict.fromkeys(_GPU_TO_GPU.split(), "gpu_to_gpu"),
    **dict.fromkeys(_RUN_TO_RUN.split(), "run_to_run"),
}


def determinism(operator: str | Callable[..., Any]) -> str:
    """What an operator promises about the bits of its result when it is called again with the same arguments.

    ``"gpu_to_gpu"``: the same bits on every GPU. ``"run_to_run"``: the same bits on every run on GPUs of one kind, with
    the same versions of CUDA and of this package. ``"not_guaranteed"``: neither; no operator has that label, so that
    none has to refuse under ``torch.use_deterministic_algorithms(True)``.

    Parameters
    ----------
    operator : str or function
        ``"conv2d"``, ``"message.edge_step"``, or the function itself.

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        If that is no operator of cv3gpu.

    Notes
    -----
    On a CPU every operator gives the same bits on every run and with any number of this package's own threads, on one
    kind of CPU with the same versions of NumPy, SciPy and numba. Operators that draw random numbers draw them from
    their ``seed``. A layer or a model has the weakest label of the operators that it calls; torch's own operators
    among them follow torch's setting.

    References
    ----------
    NVIDIA, CUDA Core Compute Libraries, "Determinism": the three words.

    Examples
    --------
    >>> import cv3gpu
    >>> cv3gpu.determinism("dense_crf")
    'run_to_run'
    >>> cv3gpu.determinism(cv3gpu.confusion_matrix)
    'gpu_to_gpu'
    """
    names = [operator] if isinstance(operator, str) else []
    if callable(operator):
        name = getattr(operator, "__name__", "")
        package, _, inner = str(getattr(operator, "__module__", "")).partition(".")
        module = inner.partition(".")[0]
        names = [f"{module}.{name}", *([name] if module != "mot" else [])] if package == "cv3gpu" else []
    elif not names:
        _check.fail("determinism", "operator", "be a name or a function", _check.kind(operator), error=TypeError)
    found = next((OPERATORS[name] for name in names if name in OPERATORS), None)
    if found is None:
        got = repr(operator) if isinstance(operator, str) else getattr(operator, "__qualname__", repr(operator))
        _check.fail("determinism", "operator", "be an operator of cv3gpu", got)
    return found
