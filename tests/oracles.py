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
        "CLR_TP": tp, "CLR_FN": n_gt - tp, "CLR_FP": n_pred - tp, "IDSW": idsw, "Frag": frag,
        "MT": mt, "PT": len(ids) - mt - ml, "ML": ml,
        "MOTA": 0 if empty else (tp - (n_pred - tp) - idsw) / n_gt,
        "MODA": 0 if empty else (tp - (n_pred - tp)) / n_gt,
        "sMOTA": 0 if empty else (overlap - (n_pred - tp) - idsw) / n_gt,
        "MOTP": overlap / max(1, tp),
        "CLR_Re": tp / max(1, n_gt), "CLR_Pr": tp / max(1, n_pred),
        "MTR": mt / max(1, len(ids)), "PTR": (len(ids) - mt - ml) / max(1, len(ids)),
        "MLR": 1.0 if empty else ml / len(ids),
        "IDTP": idtp, "IDFN": n_gt - idtp, "IDFP": n_pred - idtp,
        "IDF1": 2 * idtp / max(1, n_gt + n_pred), "IDR": idtp / max(1, n_gt), "IDP": idtp / max(1, n_pred),
    }
