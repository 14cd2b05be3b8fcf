"""The naive forms of what the library does cleverly: a few lines each, and no code shared with it."""

import numpy as np
import scipy.optimize

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
