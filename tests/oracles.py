"""The naive forms of what the library does cleverly: a few lines each, and no code shared with it."""

import itertools

import numpy as np
import scipy.optimize
import scipy.sparse.csgraph

# ---- tracking metrics -----------------------------------------------------------------------------------


def _iou(a, b):
    """Overlap of two boxes (left, top, width, height)."""
    x = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    y = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if min(a[2], a[3], b[2], b[3], x, y) <= 0:
        return 0.0
    return x * y / (a[2] * a[3] + b[2] * b[3] - x * y)


def clear_and_identity(gt, pred):
    """CLEAR and identity counts by the rules of TrackEval, of {frame: {id: box}} on both sides, frame by frame.

    The matching of a frame is SciPy's on the score matrix in the order of the dictionaries.
    """
    n_gt, n_pred = sum(map(len, gt.values())), sum(map(len, pred.values()))
    ids = {i for boxes in gt.values() for i in boxes}
    tp = idsw = frag = 0
    overlap = 0.0
    previous, last = {}, {}
    seen = {i: sum(i in boxes for boxes in gt.values()) for i in ids}
    tracked, runs = dict.fromkeys(ids, 0), dict.fromkeys(ids, 0)
    together = {}
    for frame in sorted(set(gt) | set(pred)):
        g, p = gt.get(frame, {}), pred.get(frame, {})
        if not g or not p:
            continue
        score = np.zeros((len(g), len(p)))
        for row, (i, a) in enumerate(g.items()):
            for col, (j, b) in enumerate(p.items()):
                iou = _iou(a, b)
                if iou >= 0.5:
                    together[i, j] = together.get((i, j), 0) + 1
                if iou >= 0.5 - np.finfo(float).eps:
                    score[row, col] = iou + 1000 * (previous.get(i) == j)
        now = {}
        for row, col in zip(*scipy.optimize.linear_sum_assignment(score, maximize=True), strict=True):
            if score[row, col] > 0:
                i, j = list(g)[row], list(p)[col]
                now[i] = j
                tp += 1
                overlap += _iou(g[i], p[j])
                idsw += last.get(i, j) != j
                runs[i] += i not in previous
                tracked[i] += 1
        previous = now
        last.update(now)
    shares = [tracked[i] / seen[i] for i in ids]
    pairs = np.zeros((len(ids), len({j for boxes in pred.values() for j in boxes})))
    rows, cols = {i: n for n, i in enumerate(sorted(ids))}, {}
    for (i, j), count in together.items():
        pairs[rows[i], cols.setdefault(j, len(cols))] = count
    idtp = int(pairs[scipy.optimize.linear_sum_assignment(pairs, maximize=True)].sum())
    mt, ml = sum(s > 0.8 for s in shares), sum(s < 0.2 for s in shares)
    frag = sum(max(0, n - 1) for n in runs.values())
    empty = not n_gt or not n_pred
    return {
        "CLR_TP": tp,
        "CLR_FN": n_gt - tp,
        "CLR_FP": n_pred - tp,
        "IDSW": idsw,
        "Frag": frag,
        "MT": mt,
        "PT": len(ids) - mt - ml,
        "ML": ml,
        "MOTA": 0 if empty else (tp - (n_pred - tp) - idsw) / n_gt,
        "MODA": 0 if empty else (tp - (n_pred - tp)) / n_gt,
        "sMOTA": 0 if empty else (overlap - (n_pred - tp) - idsw) / n_gt,
        "MOTP": overlap / max(1, tp),
        "CLR_Re": tp / max(1, n_gt),
        "CLR_Pr": tp / max(1, n_pred),
        "MTR": mt / max(1, len(ids)),
        "PTR": (len(ids) - mt - ml) / max(1, len(ids)),
        "MLR": 1.0 if empty else ml / len(ids),
        "IDTP": idtp,
        "IDFN": n_gt - idtp,
        "IDFP": n_pred - idtp,
        "IDF1": 2 * idtp / max(1, n_gt + n_pred),
        "IDR": idtp / max(1, n_gt),
        "IDP": idtp / max(1, n_pred),
    }


def _overlaps(g, p):
    return np.array([[_iou(a, b) for b in p.values()] for a in g.values()]).reshape(len(g), len(p))


def hota(gt, pred):
    """HOTA's curves over its 19 thresholds, of {frame: {id: box}}, by dense matrices."""
    n, m = (sum(map(len, side.values())) for side in (gt, pred))
    rows, cols = ({i: k for k, i in enumerate(sorted({i for b in s.values() for i in b}))} for s in (gt, pred))
    n_row = np.array([sum(i in b for b in gt.values()) for i in rows])[:, None]
    n_col = np.array([sum(j in b for b in pred.values()) for j in cols])[None]
    both = [(gt[f], pred[f]) for f in sorted(set(gt) & set(pred))]
    potential = np.zeros((len(rows), len(cols)))
    for g, p in both:
        iou = _overlaps(g, p)
        every = iou.sum(0)[None] + iou.sum(1)[:, None] - iou
        share = np.divide(iou, every, out=np.zeros_like(iou), where=every > np.finfo(float).eps)
        potential[np.ix_([rows[i] for i in g], [cols[j] for j in p])] += share
    agreed = potential / (n_row + n_col - potential)
    alphas = np.arange(0.05, 0.99, 0.05)
    found = np.zeros((19, len(rows), len(cols)))
    located = np.zeros(19)
    for g, p in both:
        iou, own = _overlaps(g, p), np.ix_([rows[i] for i in g], [cols[j] for j in p])
        for r, c in zip(*scipy.optimize.linear_sum_assignment(agreed[own] * iou, maximize=True), strict=True):
            hit = iou[r, c] >= alphas - np.finfo(float).eps
            found[:, own[0][r, 0], own[1][0, c]] += hit
            located += hit * iou[r, c]
    tp = found.sum((1, 2))
    jaccard = found / np.maximum(1, n_row + n_col - found)
    ass = (found * jaccard).sum((1, 2)) / np.maximum(1, tp)
    det = tp / np.maximum(1, n + m - tp)
    return {
        "HOTA_TP": tp,
        "DetA": det,
        "AssA": ass,
        "HOTA": np.sqrt(det * ass),
        "AssRe": (found * found / np.maximum(1, n_row)).sum((1, 2)) / np.maximum(1, tp),
        "AssPr": (found * found / np.maximum(1, n_col)).sum((1, 2)) / np.maximum(1, tp),
        "LocA": np.maximum(1e-10, located) / np.maximum(1e-10, tp),
    }


def vace(gt, pred):
    """VACE's sums, of {frame: {id: box}}."""
    presence = [
        {i: {f for f, b in s.items() if i in b} for i in {i for b in s.values() for i in b}} for s in (gt, pred)
    ]
    frames = set(gt) & set(pred)
    together = {}
    fda = 0.0
    for f in frames:
        iou = _overlaps(gt[f], pred[f])
        fda += iou[scipy.optimize.linear_sum_assignment(iou, maximize=True)].sum() / (0.5 * sum(iou.shape))
        for i, j in zip(*np.nonzero(iou >= 0.5), strict=True):
            pair = list(gt[f])[i], list(pred[f])[j]
            together[pair] = together.get(pair, 0) + 1
    weight = np.zeros([len(side) for side in presence])
    for (i, j), n in together.items():
        union = presence[0][i] | presence[1][j]
        weight[list(presence[0]).index(i), list(presence[1]).index(j)] = n / len(union)
    stda = weight[scipy.optimize.linear_sum_assignment(weight, maximize=True)].sum()
    return {"STDA": stda, "FDA": fda, "num_non_empty_timesteps": len({f for s in (gt, pred) for f in s})}


# ---- dense CRF ------------------------------------------------------------------------------------------


def pairs(features):
    """K [N, N] over all pairs of points with features [D, N]: exp(-|f_i - f_j|^2 / 2)."""
    f = features.astype(np.float64)
    return np.exp(-0.5 * ((f[:, :, None] - f[:, None]) ** 2).sum(0))


def simplices(features, blurs=1):
    """Corners [N, D + 1, D + 1] and barycentric coordinates [N, D + 1] of points in the permutohedral lattice.

    All in the features' dtype: a point between two simplices falls into one of them by its rounding.
    """
    d, n = features.shape
    real = features.dtype.type
    spread = float(real((d + 1) * np.sqrt(1 / 6 + blurs / 2)))
    e, total = np.zeros((d + 1, n), real), np.zeros(n, real)
    for k in range(d, 0, -1):
        x = features[k - 1] * real(spread / np.sqrt(k * (k + 1)))
        e[k] = total - real(k) * x
        total = total + x
    e[0] = total
    nearest = np.rint(e * real(1 / (d + 1)))
    base, rank = nearest * (d + 1), np.tile(nearest.sum(0), (d + 1, 1))
    for a in range(d + 1):
        for b in range(a + 1, d + 1):
            less = e[a] - base[a] < e[b] - base[b]
            rank[a] += less
            rank[b] += ~less
    turn = (d + 1.0) * ((rank < 0) * 1 - (rank > d) * 1)
    rank, base = (rank + turn).astype(int), base + turn.astype(real)
    off = np.take_along_axis((e - base) * real(1 / (d + 1)), np.argsort(-rank, axis=0), 0)  # from the largest rank on
    weight = np.vstack([1 + off[:1] - off[-1:], off[1:] - off[:-1]])
    corner = np.array([base + np.where(rank <= d - r, r, r - (d + 1)) for r in range(d + 1)])
    return corner.transpose(2, 0, 1).astype(int), weight.T


def lattice(features, blurs=1, dilate=False):
    """K [N, N] by the lattice: splat, blur along one axis after another, slice. Its vertices are in a dictionary.

    pydensecrf takes four points at a time; the origin fills the last four up, and its vertices take part in the blur.
    """
    d, n = features.shape
    corner, weight = simplices(features, blurs)
    steps = np.ones((d + 1, d + 1), int) - (d + 1) * np.eye(d + 1, dtype=int)
    number = {}
    vertex = np.array([number.setdefault(tuple(key), len(number)) for key in corner.reshape(-1, d + 1).tolist()])
    if n % 4 and blurs == 1:
        for key in simplices(features[:, :1] * 0)[0][0].tolist():
            number.setdefault(tuple(key), len(number))
    if dilate:
        for key in list(number):
            for step in (*steps, *-steps):
                number.setdefault(tuple((step + key).tolist()), len(number))
    keys = np.array(list(number))
    splat = np.zeros((len(number) + 1, n))  # the last row stands for what is not there
    np.add.at(splat, (vertex, np.repeat(np.arange(n), d + 1)), weight.ravel())
    z = splat.copy()
    for step in [*steps] * blurs:
        low, high = ([number.get(tuple(key), -1) for key in (keys + s).tolist()] for s in (-step, step))
        z[:-1] += 0.5 * (z[low] + z[high])
    alpha = 1 / (1 + 2.0**-d)
    if dilate:  # the Gaussian's integral, of points so dense that each vertex has as many
        alpha = (2 * np.pi * (1 / 6 + blurs / 2)) ** (d / 2) * np.sqrt(d + 1) / 2.0 ** ((d + 1) * blurs)
    return alpha * splat.T @ z


def normalized(k, how):
    """K, K D^-1, D^-1 K or D^-1/2 K D^-1/2, D being the diagonal matrix of K 1."""
    left, right = {"none": (0, 0), "before": (0, -1), "after": (-1, 0), "symmetric": (-0.5, -0.5)}[how]
    total = k.sum(1)
    return total[:, None] ** left * k * total**right


def compatibility(value, n_labels):
    """Mu [L, L]: -w I of a number w, the diagonal matrix of a vector, the symmetric part of a matrix."""
    value = np.asarray(value, np.float64)
    return (
        -value * np.eye(n_labels) if value.ndim == 0 else np.diag(value) if value.ndim == 1 else (value + value.T) / 2
    )


def softmax(x):
    """Over the first axis."""
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def mean_field(unary, terms, n_iter):
    """Q [L, N] before each iteration and at the end; ``terms`` are pairs (K~ [N, N], mu [L, L])."""
    found = [softmax(-unary)]
    for _ in range(n_iter):
        found.append(softmax(-unary - sum(mu @ found[-1] @ k.T for k, mu in terms)))
    return found


# ---- graph cuts -----------------------------------------------------------------------------------------


def grid_edges(shape, offset):
    """Where edges of an offset begin, and where they end: two tuples of slices."""
    begin = tuple(slice(max(0, -o), max(0, n - max(0, o))) for o, n in zip(offset, shape, strict=True))
    return begin, tuple(
        slice(b.start + o, b.stop + o) if b.stop > b.start else b for b, o in zip(begin, offset, strict=True)
    )


def cut_energy(labels, source, sink, neighbor, offsets):
    """What a cut costs: the sink's capacity of each 1, the source's of each 0, edges from a 1 to a 0."""
    x = np.asarray(labels, bool)
    total = sink[x].sum() + source[~x].sum()
    for plane, offset in zip(neighbor, offsets, strict=True):
        begin, end = grid_edges(x.shape, offset)
        total += plane[begin][x[begin] & ~x[end]].sum()
    return total


def min_cut(source, sink, neighbor, offsets):
    """Flow, the minimum cut with the fewest 1s and the one with the most, of integers (int32) by SciPy."""
    n = source.size
    node = np.arange(n).reshape(source.shape)
    edges = [(np.full(n, n), node.ravel(), source.ravel()), (node.ravel(), np.full(n, n + 1), sink.ravel())]
    for plane, offset in zip(neighbor, offsets, strict=True):
        begin, end = grid_edges(source.shape, offset)
        edges.append((node[begin].ravel(), node[end].ravel(), plane[begin].ravel()))
    row, col, value = (np.concatenate(x) for x in zip(*edges, strict=True))
    graph = scipy.sparse.coo_array((value.astype(np.int32), (row, col)), shape=(n + 2, n + 2)).tocsr()
    found = scipy.sparse.csgraph.maximum_flow(graph, n, n + 1)
    open_edges = scipy.sparse.csr_array(graph - found.flow) > 0
    cuts = []
    for way, root in ((open_edges, n), (open_edges.T.tocsr(), n + 1)):
        reached = np.zeros(n + 2, np.uint8)
        reached[scipy.sparse.csgraph.breadth_first_order(way, root, return_predecessors=False)] = 1
        cuts.append(reached[:n].reshape(source.shape))
    return int(found.flow_value), cuts[0], 1 - cuts[1]


def min_cut_by_brute_force(source, sink, neighbor, offsets):
    """The same over all labellings of a tiny grid."""
    found = []
    for bits in itertools.product((0, 1), repeat=source.size):
        labels = np.array(bits, np.uint8).reshape(source.shape)
        found.append((cut_energy(labels, source, sink, neighbor, offsets), labels.sum(), labels))
    least = min(f[0] for f in found)
    cuts = sorted((f for f in found if f[0] == least), key=lambda f: f[1])
    return least, cuts[0][2], cuts[-1][2]
