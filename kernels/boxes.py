"""Pairwise overlap of boxes: the smallest operator of the library, and the one to copy when writing another.

formula
    With widths and heights below zero taken as zero,
    inter = area(a ∩ b), union = area(a) + area(b) - inter, hull = area of the smallest box around both;
    iou = inter / union, ioa = inter / area(a), giou = iou - (hull - union) / hull; a quotient by zero is 0.
layout
    a [B, N, 4], b [B, M, 4], out [B, N, M], row major, one real type. A box is (x1, y1, x2, y2) for
    format "xyxy", (x1, y1, width, height) for "xywh". box_iou_vjp: grad [B, N, M], out as a or as b.
launch
    block (COLUMNS, LANES), any one-dimensional grid. box_iou: a block takes every gridDim-th tile of ROWS x
    COLUMNS pairs. box_iou_vjp, once for each side: a block takes every gridDim-th group of LANES boxes of a
    or COLUMNS boxes of b, so that both read grad along its rows.
cost
    box_iou writes N M and reads about N M (4 / COLUMNS + 4 / ROWS) numbers per problem: bound by the stores.
    20 flops and a division (giou: two) per pair. box_iou_vjp reads N M + 4 N M / COLUMNS (side a) or
    4 N M / LANES (side b, from L1); 60 flops and two divisions (giou: four) per pair.
order
    Every pair on its own: deterministic. box_iou_vjp: each box gathers over the others, a fixed share of
    them in each thread, in ascending order, and the threads' sums in a fixed tree: deterministic.
measured
    not measured
source
    Rezatofighi et al., Generalized Intersection over Union, CVPR 2019 (giou). The gradient is the chain rule.
arch
    75 80 86 89 90 100 120
"""

import functools

from numba import float32, float64, int64

from ._cuda import cuda

COLUMNS = 32  # one warp along a row of `out`, so that its stores are contiguous
LANES = 8  # warps per block
ROWS = 64  # rows of a tile; each thread computes ROWS / LANES pairs with the same box of b
REALS = {"float32": float32, "float64": float64}


def tiles(batch, n, m):
    """How many tiles there are: the grid that gives each block one."""
    return batch * -(-n // ROWS) * -(-m // COLUMNS)


# A kernel is made by a function of its compile-time constants. The launcher (`cv3gpu._kernel`) hands it
# to the compiler: it is not decorated here, so that the CPU runner takes it, too. Device functions are
# decorated; they are compiled with their caller.
@functools.cache
def make_box_iou(dtype, format, kind):
    """The kernel for one dtype, box format and kind of overlap."""
    real = REALS[dtype]
    sized = format == "xywh"
    zero = real(0)

    @cuda.jit(device=True)
    def corners(x1, y1, third, fourth):
        return (x1, y1, x1 + third, y1 + fourth) if sized else (x1, y1, third, fourth)

    @cuda.jit(device=True)
    def area(x1, y1, x2, y2):
        return max(x2 - x1, zero) * max(y2 - y1, zero)

    @cuda.jit(device=True)
    def quotient(part, whole):
        return part / whole if whole > zero else zero

    @cuda.jit(device=True)
    def overlap(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2):
        inter = area(max(ax1, bx1), max(ay1, by1), min(ax2, bx2), min(ay2, by2))
        area_a = area(ax1, ay1, ax2, ay2)
        if kind == "ioa":
            return quotient(inter, area_a)
        union = area_a + area(bx1, by1, bx2, by2) - inter
        if kind == "iou":
            return quotient(inter, union)
        hull = area(min(ax1, bx1), min(ay1, by1), max(ax2, bx2), max(ay2, by2))
        return quotient(inter, union) - quotient(hull - union, hull)

    def box_iou(a, b, out):
        # 64-bit from the start: products of sizes may not fit 32 bits.
        n = int64(a.shape[1])
        m = int64(b.shape[1])
        row_tiles = (n + ROWS - 1) // ROWS
        column_tiles = (m + COLUMNS - 1) // COLUMNS
        x = cuda.threadIdx.x
        y = cuda.threadIdx.y

        # The rows' boxes are read by all warps: copy them, as corners, to shared memory once.
        boxes = cuda.shared.array((4, ROWS), real)

        count = a.shape[0] * row_tiles * column_tiles
        for tile in range(int64(cuda.blockIdx.x), count, int64(cuda.gridDim.x)):
            column_tile = tile % column_tiles
            row_tile = tile // column_tiles % row_tiles
            problem = tile // column_tiles // row_tiles
            first = row_tile * ROWS

            for r in range(y * COLUMNS + x, ROWS, LANES * COLUMNS):
                if first + r < n:
                    box = a[problem, first + r]
                    x1, y1, x2, y2 = corners(box[0], box[1], box[2], box[3])
                    boxes[0, r] = x1
                    boxes[1, r] = y1
                    boxes[2, r] = x2
                    boxes[3, r] = y2
            cuda.syncthreads()  # the boxes are there before anyone reads them

            # No early return for threads beyond the last column: all must come to the barriers.
            column = column_tile * COLUMNS + x
            if column < m:
                box = b[problem, column]
                x1, y1, x2, y2 = corners(box[0], box[1], box[2], box[3])
                for r in range(y, min(ROWS, n - first), LANES):
                    out[problem, first + r, column] = overlap(
                        boxes[0, r], boxes[1, r], boxes[2, r], boxes[3, r], x1, y1, x2, y2
                    )
            cuda.syncthreads()  # everyone has read them before the next tile overwrites them

    return box_iou


def own_tiles(side, batch, n, m):
    """How many groups of boxes `make_box_iou_vjp` has: the grid that gives each block one."""
    return batch * (-(-n // LANES) if side == "a" else -(-m // COLUMNS))


@functools.cache
def make_box_iou_vjp(dtype, format, kind, side):
    """The kernel of the gradient of one side, "a" or "b": out = Σ grad · ∂ overlap / ∂ box."""
    real = REALS[dtype]
    sized = format == "xywh"
    of_a = side == "a"
    zero, half, one = real(0), real(0.5), real(1)

    @cuda.jit(device=True)
    def corners(x1, y1, third, fourth):
        return (x1, y1, x1 + third, y1 + fourth) if sized else (x1, y1, third, fourth)

    @cuda.jit(device=True)
    def quotient(part, whole):
        return part / whole if whole > zero else zero

    @cuda.jit(device=True)
    def sides(x1, y1, x2, y2):
        return max(x2 - x1, zero), max(y2 - y1, zero)

    @cuda.jit(device=True)
    def share(high, low):
        return one if high > low else half if high == low else zero

    @cuda.jit(device=True)
    def weights(g, inter, area_a, union, hull):
        """Gradients by inter, by the own area and by hull, where union is both areas less inter."""
        if kind == "ioa":
            by_own = -quotient(g * quotient(inter, area_a), area_a) if of_a else zero
            return quotient(g, area_a), by_own, zero
        by_union = -quotient(g * quotient(inter, union), union)
        by_hull = zero
        if kind == "giou":
            by_union += quotient(g, hull)
            by_hull = -quotient(g * quotient(union, hull), hull)
        return quotient(g, union) - by_union, by_union, by_hull

    @cuda.jit(device=True)
    def by_sides(by_area, w, h):
        return by_area * h if w > zero else zero, by_area * w if h > zero else zero

    @cuda.jit(device=True)
    def by_edge(s, inter, hull):
        """An edge is the intersection's or the hull's; at a tie it is half of each."""
        return s * inter + (one - s) * hull if kind == "giou" else s * inter

    def box_iou_vjp(grad, a, b, out):
        n = int64(grad.shape[1])
        m = int64(grad.shape[2])
        x = cuda.threadIdx.x
        y = cuda.threadIdx.y
        own_count = n if of_a else m
        other_count = m if of_a else n
        group = LANES if of_a else COLUMNS  # own boxes of a block
        lanes = COLUMNS if of_a else LANES  # threads that share one of them
        mine = y if of_a else x
        lane = x if of_a else y
        groups = (own_count + group - 1) // group
        sums = cuda.shared.array((5, LANES, COLUMNS), real)

        for tile in range(int64(cuda.blockIdx.x), grad.shape[0] * groups, int64(cuda.gridDim.x)):
            problem = tile // groups
            own = tile % groups * group + mine

            # No early return for threads beyond the last box: all must come to the barriers.
            by_x1, by_y1, by_x2, by_y2, by_area = zero, zero, zero, zero, zero
            own_w, own_h = zero, zero
            if own < own_count:
                box = a[problem, own] if of_a else b[problem, own]
                x1, y1, x2, y2 = corners(box[0], box[1], box[2], box[3])
                own_w, own_h = sides(x1, y1, x2, y2)
                for other in range(int64(lane), other_count, lanes):
                    g = grad[problem, own, other] if of_a else grad[problem, other, own]
                    box = b[problem, other] if of_a else a[problem, other]
                    u1, v1, u2, v2 = corners(box[0], box[1], box[2], box[3])
                    other_w, other_h = sides(u1, v1, u2, v2)
                    inter_w, inter_h = sides(max(x1, u1), max(y1, v1), min(x2, u2), min(y2, v2))
                    hull_w, hull_h = sides(min(x1, u1), min(y1, v1), max(x2, u2), max(y2, v2))
                    own_area, other_area = own_w * own_h, other_w * other_h
                    inter = inter_w * inter_h
                    union = own_area + other_area - inter
                    area_a = own_area if of_a else other_area
                    by_inter, by_own, by_hull = weights(g, inter, area_a, union, hull_w * hull_h)
                    by_inter_w, by_inter_h = by_sides(by_inter, inter_w, inter_h)
                    by_hull_w, by_hull_h = by_sides(by_hull, hull_w, hull_h)
                    by_x1 -= by_edge(share(x1, u1), by_inter_w, by_hull_w)
                    by_y1 -= by_edge(share(y1, v1), by_inter_h, by_hull_h)
                    by_x2 += by_edge(share(u2, x2), by_inter_w, by_hull_w)
                    by_y2 += by_edge(share(v2, y2), by_inter_h, by_hull_h)
                    by_area += by_own

            sums[0, y, x] = by_x1
            sums[1, y, x] = by_y1
            sums[2, y, x] = by_x2
            sums[3, y, x] = by_y2
            sums[4, y, x] = by_area
            cuda.syncthreads()
            step = lanes // 2
            while step > 0:
                if lane < step:
                    for k in range(5):
                        sums[k, y, x] += sums[k, y, x + step] if of_a else sums[k, y + step, x]
                cuda.syncthreads()
                step //= 2

            # From here to the next barrier every thread touches its own sums alone.
            if lane == 0 and own < own_count:
                by_w, by_h = by_sides(sums[4, y, x], own_w, own_h)
                by_x1 = sums[0, y, x] - by_w
                by_y1 = sums[1, y, x] - by_h
                by_x2 = sums[2, y, x] + by_w
                by_y2 = sums[3, y, x] + by_h
                out[problem, own, 0] = by_x1 + by_x2 if sized else by_x1
                out[problem, own, 1] = by_y1 + by_y2 if sized else by_y1
                out[problem, own, 2] = by_x2
                out[problem, own, 3] = by_y2

    return box_iou_vjp
