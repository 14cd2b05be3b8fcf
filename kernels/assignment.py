"""Batched rectangular linear sum assignment by shortest augmenting paths, one warp or one block per problem.

formula
    Most pairs first, then least cost: min Σ sign · cost[i, j] over one-to-one pairs of finite cost. Rows
    are added one by one. Dijkstra's algorithm on the reduced costs cost[i, j] - u[i] - v[j] >= 0 finds
    the cheapest way to a free column, and the duals u, v move so that all pairs stay tight. Where no free
    column can be reached, some row of the search tree must stay without a pair: the one for which that is
    cheapest. As if each row had a column of its own of cost (1, 0) in the lexicographic order of pairs
    (missing pairs, cost), so that no big M is needed. Such duals take only the levels 0 and 1 (-1 for
    columns); level-1 columns are called shut here: the rows that can reach them are too many, and another
    search looks at them only after everything else failed.
layout
    cost [B * N * M] flat, row major, float32 or float64; n_rows, n_cols [B] int64, the valid part of each
    problem; row_ind, col_ind [B, min(N, M)] int64; total [B] float64; workspace float64, unused where
    state is in shared memory. The shorter side takes the part of the rows, by strides, without a copy.
    State of a problem, in 8-byte words: float64 v, near [m each], u [n], then int32 path, row_of_col,
    state [m each], col_of_row [n].
launch
    block (32, WARPS * PROBLEMS), words = state_words(min(N, M), max(N, M), WARPS), any grid; a group of
    WARPS warps solves every (grid * PROBLEMS)-th problem. One warp needs no block barrier at all. Dynamic
    shared memory, or the workspace of each block: 8 * PROBLEMS * words bytes.
cost
    Reads of cost: 8 m bytes (float32: 4 m) for each step of each search, from L2 or L1 after the first;
    about 4 steps per row at 32 x 32, 8 at 128 x 128 (uniform random costs). 4 m flops a step. Bound by
    latency: one warp argmin is 15 shuffles.
order
    Deterministic: ties go to a free column, then to the lowest index, whatever the schedule. total is
    summed by one thread in row order.
measured
    not measured
source
    Crouse 2016, On implementing 2D rectangular assignment algorithms; Jonker and Volgenant 1987. Neither
    of their initial reductions: the first step of a row's search already is one coalesced pass over its
    costs.
arch
    75 80 86 89 90 100 120
"""

import functools

from numba import float64, int32, int64

from ._cuda import cuda

WARP = 32
FULL = 0xFFFFFFFF
INF = float("inf")
NO_COLUMN = 0x7FFFFFFF
SCANNED, SHUT = 1, 2  # bits of a column's state


def state_words(n, m, warps):
    """8-byte words of state for a problem with n rows and m >= n columns."""
    slots = 0 if warps == 1 else 4 * warps
    return 2 * m + n + (3 * m + n + 1) // 2 + slots


@cuda.jit(device=True)
def warp_lowest(value, code):
    """The lowest value of a warp, the lowest code among equals, in all lanes."""
    shift = WARP // 2
    while shift > 0:
        other_value = cuda.shfl_xor_sync(FULL, value, shift)
        other_code = cuda.shfl_xor_sync(FULL, code, shift)
        if other_value < value or (other_value == value and other_code < code):
            value = other_value
            code = other_code
        shift //= 2
    return value, code


@functools.cache
def make_assignment(warps, problems, in_shared):
    """The kernel for groups of `warps` warps, `problems` groups a block (1 unless warps is 1)."""
    threads = WARP * warps

    @cuda.jit(device=True)
    def barrier():
        if warps == 1:
            cuda.syncwarp()
        else:
            cuda.syncthreads()

    @cuda.jit(device=True)
    def lowest(value, code, thread, slot_value, slot_code, turn):
        """The lowest of the group's values, in all threads; two sets of slots take turns for one barrier."""
        value, code = warp_lowest(value, code)
        if warps > 1:
            first = (turn & 1) * warps
            if thread % WARP == 0:
                slot_value[first + thread // WARP] = value
                slot_code[first + thread // WARP] = code
            cuda.syncthreads()
            lane = thread % WARP
            value = slot_value[first + lane] if lane < warps else INF
            code = slot_code[first + lane] if lane < warps else int32(NO_COLUMN)
            value, code = warp_lowest(value, code)
        return value, code

    @cuda.jit(device=True)
    def candidate(near, row_of_col, state, m, level, thread):
        """This thread's nearest column of the level: (distance, column + m where it is taken)."""
        value, code = INF, int32(NO_COLUMN)
        for j in range(thread, m, threads):
            if state[j] == level and near[j] <= value and near[j] < INF:
                key = int32(j) if row_of_col[j] < 0 else int32(j + m)
                if near[j] < value or key < code:
                    value = near[j]
                    code = key
        return value, code

    @cuda.jit(device=True)
    def flip(path, row_of_col, col_of_row, root, col):
        """Re-pair along the path from the root to this column."""
        row = int32(-1)
        while row != root:
            row = path[col]
            row_of_col[col] = row
            following = col_of_row[row]
            col_of_row[row] = col
            col = following

    @cuda.jit(device=True)
    def write(cost, start, row_step, col_step, flipped, n, m, row_of_col, col_of_row, row_ind, col_ind):
        """One thread lists the pairs by row and adds up their costs."""
        count = 0
        total = 0.0
        for i in range(m if flipped else n):
            j = row_of_col[i] if flipped else col_of_row[i]
            if j >= 0:
                short = j if flipped else i
                long = i if flipped else j
                row_ind[count] = i
                col_ind[count] = j
                total += float64(cost[start + short * row_step + long * col_step])
                count += 1
        for i in range(count, row_ind.shape[0]):
            row_ind[i] = -1
            col_ind[i] = -1
        return total

    def assignment(cost, batch, rows, cols, words, sign, n_rows, n_cols, row_ind, col_ind, total, workspace):
        group = int64(cuda.threadIdx.y // warps)
        thread = int64(cuda.threadIdx.y % warps) * WARP + cuda.threadIdx.x
        short = min(rows, cols)
        long = max(rows, cols)

        # This group's state: one piece of memory, seen as float64 and as int32.
        if in_shared:
            doubles = cuda.shared.array(0, float64)
            ints = cuda.shared.array(0, int32)
            base = group * words
        else:
            doubles = workspace
            ints = workspace.view(int32)
            base = (int64(cuda.blockIdx.x) * problems + group) * words
        v = doubles[base : base + long]
        near = doubles[base + long : base + 2 * long]
        u = doubles[base + 2 * long : base + 2 * long + short]
        # Unused by single warps, which have no slots:
        slot_value = doubles[base + words - 4 * warps : base + words - 2 * warps]
        slot_code = ints[2 * (base + words - 2 * warps) : 2 * (base + words)]
        base = 2 * (base + 2 * long + short)
        path = ints[base : base + long]
        row_of_col = ints[base + long : base + 2 * long]
        state = ints[base + 2 * long : base + 3 * long]
        col_of_row = ints[base + 3 * long : base + 3 * long + short]
        turn = 0

        for b in range(int64(cuda.blockIdx.x) * problems + group, batch, int64(cuda.gridDim.x) * problems):
            valid_rows = min(max(n_rows[b], 0), rows)
            valid_cols = min(max(n_cols[b], 0), cols)
            flipped = valid_rows > valid_cols
            n = min(valid_rows, valid_cols)
            m = max(valid_rows, valid_cols)
            start = b * rows * cols
            row_step = int64(1) if flipped else cols
            col_step = cols if flipped else int64(1)

            for j in range(thread, m, threads):
                v[j] = 0.0
                row_of_col[j] = -1
                state[j] = 0
            for i in range(thread, n, threads):
                u[i] = 0.0
                col_of_row[i] = -1
            barrier()

            for root in range(n):
                for j in range(thread, m, threads):
                    near[j] = INF
                    state[j] &= SHUT
                row = int32(root)
                dist = 0.0
                level = 0  # SHUT once no other column is left
                drop = INF  # the cheapest way to leave a row of the tree without a pair
                dropped = int32(-1)
                sink = int32(-1)
                searching = True
                while searching:
                    offset = dist - u[row]
                    if offset < drop:
                        drop = offset
                        dropped = row
                    for j in range(thread, m, threads):
                        if state[j] & SCANNED == 0:
                            x = sign * float64(cost[start + row * row_step + j * col_step])
                            reached = x - v[j] + offset
                            if x > -INF and reached < near[j]:
                                near[j] = reached
                                path[j] = row
                    value, code = candidate(near, row_of_col, state, m, level, thread)
                    value, code = lowest(value, code, thread, slot_value, slot_code, turn)
                    turn += 1
                    if code == NO_COLUMN and level == 0:
                        level = SHUT
                        value, code = candidate(near, row_of_col, state, m, level, thread)
                        value, code = lowest(value, code, thread, slot_value, slot_code, turn)
                        turn += 1
                    if code < m:
                        sink = code
                        dist = value
                        searching = False
                    elif level == SHUT and not value < drop:
                        dist = drop
                        searching = False
                    else:
                        col = code - int32(m)
                        dist = value
                        row = row_of_col[col]
                        if col % threads == thread:
                            state[col] |= SCANNED

                barrier()  # all have read u
                # Duals: pairs stay tight, the path becomes tight. Rows of scanned columns are distinct.
                for j in range(thread, m, threads):
                    if state[j] & SCANNED != 0:
                        v[j] -= dist - near[j]
                        u[row_of_col[j]] += dist - near[j]
                        if level == SHUT:
                            state[j] |= SHUT
                barrier()
                if thread == 0:
                    u[root] += dist
                    if sink < 0 and dropped != root:
                        sink = col_of_row[dropped]
                        col_of_row[dropped] = -1
                    if sink >= 0:
                        flip(path, row_of_col, col_of_row, root, sink)
                barrier()

            if thread == 0:
                total[b] = write(
                    *(cost, start, row_step, col_step, flipped, n, m, row_of_col, col_of_row),
                    *(row_ind[b], col_ind[b]),
                )
            barrier()  # the next problem overwrites the state

    return assignment
