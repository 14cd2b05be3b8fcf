"""Pairwise overlap of boxes: the smallest operator of the library, and the one to copy when writing another.

formula
    With widths and heights below zero taken as zero,
    inter = area(a ∩ b), union = area(a) + area(b) - inter, hull = area of the smallest box around both;
    iou = inter / union, ioa = inter / area(a), giou = iou - (hull - union) / hull; a quotient by zero is 0.
layout
    a [B, N, 4], b [B, M, 4], out [B, N, M], row major, one real type. A box is (x1, y1, x2, y2) for
    format "xyxy", (x1, y1, width, height) for "xywh".
launch
    block (COLUMNS, LANES), any one-dimensional grid; a block takes every gridDim-th tile of ROWS x
    COLUMNS pairs.
cost
    Writes N M and reads about N M (4 / COLUMNS + 4 / ROWS) numbers per problem: bound by the stores. 20
    flops and a division (giou: two) per pair.
order
    Every pair on its own: deterministic.
measured
    not measured
source
    Rezatofighi et al., Generalized Intersection over Union, CVPR 2019 (giou).
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
