/* graphcut.cu: maximum flow and minimum cut of pixel grids, by push-relabel in tiles.
 *
 * formula     A pixel holds excess e (negative: what it may still give to the sink, so that flow into it is absorbed on
 *             arrival) and a level l <= its distance to the sink over residual edges. Push p -> q where l(p) = l(q) +
 *             1: min(e(p), r(p, q)). Relabel l(p) = 1 + min l(q) over r(p, q) > 0. When no pixel with e > 0 reaches the
 *             sink (a search from the sink says so), the preflow is maximum; flow = what the sinks took. A pixel that
 *             can not reach the sink keeps its excess: a cut needs no second phase (at cut_mark, below).
 * layout      planes of the images [B, depth, rows, cols]: excess int64, level int32, residual [B, planes, ...] int32
 *             or int64. Edges p -> p + (dz, dy, dx) are the rows of `moves`, row d ^ 1 the opposite of row d. cut_sweep
 *             keeps a tile of ROWS x 32 pixels in shared memory; moves that hardly stay within a tile (to another
 *             slice, or long) have no slot there and are pushed by cut_exchange. cut_search has tiles of SPAN x SPAN. A
 *             queue is counts[4] (three rounds in turn, then a number for the host) and lists[3][tiles]: the tiles of
 *             even and odd rounds, and the round for which each tile was last entered.
 * launch      a cycle: cut_mark, cut_search until its queue is empty, cut_collect, then six times cut_sweep and
 *             cut_exchange; the host reads 8 numbers a cycle. 256 threads (cut_search 512), a block for each tile up to
 *             a limit, then by turns. cut_sweep: 16 sweeps of all directions, or until nothing moves. Cycles / launches
 *             of images run on the CPU: with region terms 512^2 3 to 7 / 80 to 160, 1024^2 8 / 240; with seeds only 600
 *             x 400 17 / 450, 1024 x 683 36 / 1000; a third of the launches find an empty queue
 * cost        with n moves and int32, a tile of 32 x 32: cut_sweep 8 n + 32 bytes a pixel, 16 n T additions and
 *             compares in T sweeps; cut_exchange 16 bytes; a tile of 64 x 64: cut_search 5 bytes a pixel and 4 where a
 *             level falls; all pixels: cut_mark 4 n + 29, cut_collect 16, cut_label 17. The image of 1024^2 above: 1.7
 *             GB, mostly L2
 * order       pushes in one direction at a time: a pixel then has one giver. Blocks of a launch see each other's levels
 *             of the launch before. What arrives over a border from several tiles is added by integer atomics, so that
 *             its sum has no order; nor has a queue, but what happens to a tile does not depend on its place: the same
 *             bits on every run, and the flow and both cuts are unique anyway
 * measured    not measured
 * hot         cut_sweep cut_search
 * source      A. V. Goldberg, R. E. Tarjan, A new approach to the maximum-flow problem, JACM 35, 1988 (push-relabel,
 *             parallel pulses); V. Vineet, P. J. Narayanan, CUDA cuts, 2008 (grids on a GPU); B. V. Cherkassky, A. V.
 *             Goldberg, On implementing the push-relabel method, Algorithmica 19, 1997 (global relabelling)
 * arch        75 80 86 89 90 100 120
 * specialise  BITS = 32 64; ROWS = 32 16 8; MASK = 8 64
 */

template <int> struct capacity { using type = int32_t; };
template <> struct capacity<64> { using type = int64_t; };
template <int> struct directions { using type = uint8_t; };
template <> struct directions<64> { using type = uint64_t; };
using cap = typename capacity<BITS>::type;
using dirs = typename directions<MASK>::type;  // bit d: the pixel's level follows from its neighbour's in direction d

constexpr unsigned ALL = 0xffffffffu;
constexpr int FAR = 1 << 30;  // the level of what does not reach the sink; others are at most the number of nodes
constexpr int COLS = 32;      // of a tile of cut_sweep
constexpr int THREADS = 256;
constexpr int PER = ROWS * COLS / THREADS;
constexpr int PITCH = COLS + 1;
constexpr int SPAN = MASK == 8 ? 64 : 32;
constexpr int SEARCHERS = 512;
constexpr int SEARCH_PER = SPAN * SPAN / SEARCHERS;
constexpr int SEARCH_PITCH = SPAN + 1;
constexpr int MASK_PITCH = MASK == 8 ? SPAN + 4 : SPAN + 1;  // no two rows in one bank

// ---- where things are -----------------------------------------------------------------------------------

struct Volume {
  int depth, rows, cols;
  __device__ int64_t nodes() const { return (int64_t)depth * rows * cols; }
  __device__ bool has(int z, int y, int x) const {
    return (unsigned)z < (unsigned)depth && (unsigned)y < (unsigned)rows && (unsigned)x < (unsigned)cols;
  }
};

// A step to a neighbour: every component is smaller than the volume. Slot: its residual plane in shared memory or -1.
struct Move {
  int dz, dy, dx, slot, plane;
  __device__ Move(const int32_t* moves, int d)
      : dz(moves[5 * d]), dy(moves[5 * d + 1]), dx(moves[5 * d + 2]), slot(moves[5 * d + 3]), plane(moves[5 * d + 4]) {}
  __device__ int64_t hop(const Volume& v) const { return ((int64_t)dz * v.rows + dy) * v.cols + dx; }
};

template <int R, int C> struct Tile {
  int image, z, y, x;  // of its first pixel
  int64_t first;
  __device__ Tile(const Volume& v, int id) {
    const int across = (v.cols + C - 1) / C, down = (v.rows + R - 1) / R;
    const int slice = id / (across * down), place = id - slice * (across * down);
    image = slice / v.depth;
    z = slice - image * v.depth;
    y = place / across * R;
    x = place % across * C;
    first = ((int64_t)slice * v.rows + y) * v.cols + x;
  }
  __device__ bool holds(const Move& m, int row, int col) const {  // of the neighbour of a pixel of the tile
    return m.dz == 0 && (unsigned)(row + m.dy) < (unsigned)R && (unsigned)(col + m.dx) < (unsigned)C;
  }
  __device__ bool exists(const Volume& v, const Move& m, int row, int col) const {
    return v.has(z + m.dz, y + row + m.dy, x + col + m.dx);
  }
  // The tile of the neighbour of a pixel of this one.
  __device__ int beside(const Volume& v, const Move& m, int row, int col) const {
    const int across = (v.cols + C - 1) / C, down = (v.rows + R - 1) / R;
    return ((image * v.depth + z + m.dz) * down + (y + row + m.dy) / R) * across + (x + col + m.dx) / C;
  }
};

// The residual plane of a move in an image, addressed by the pixel's number among all images.
template <class T> __device__ T* plane_of(T* residual, const Volume& v, int planes, int image, int plane) {
  return residual + ((int64_t)image * (planes - 1) + plane) * v.nodes();
}

__device__ void enter(int tile, int round, int tiles, int32_t* counts, int32_t* lists) {
  if (atomicExch(lists + 2 * (int64_t)tiles + tile, round) == round) return;
  lists[(round & 1) * (int64_t)tiles + atomicAdd(counts + round % 3, 1)] = tile;
}

__device__ int entered(int i, int round, int tiles, const int32_t* lists) {
  return lists[(round & 1) * (int64_t)tiles + i];
}

// The count of the round after the next must be zero before anything is entered for it.
__device__ void clear_later(int round, int32_t* counts) {
  if (blockIdx.x == 0 && threadIdx.x == 0) counts[(round + 2) % 3] = 0;
}

struct Place {
  int row, col;
};

// The k-th pixel of this thread in a tile that all threads walk along (dy, dx) at once. A thread has a piece of a line:
// of a row, or, where the step leads to another row, of a column; one that leads to the next row shears the columns, so
// that the neighbour of a pixel is in the same thread's piece or in the next of its line. Each pixel has one thread.
template <int R, int C, int N, bool FLAT> struct Walk {
  static constexpr int LENGTH = R * C / N;
  int dy, dx, line, start;
  bool ascending;
  __device__ __forceinline__ Walk(int dy_, int dx_, bool ascending_) : dy(dy_), dx(dx_), ascending(ascending_) {
    line = threadIdx.x % (FLAT ? R : C);
    start = threadIdx.x / (FLAT ? R : C) * LENGTH;
  }
  __device__ __forceinline__ Place at(int k) const {
    const int along = start + (ascending ? k : LENGTH - 1 - k);
    if (FLAT) return {line, along};
    return {along, (line + along * dx * dy) & (C - 1)};  // x = row dx / dy where dy is 1 or -1
  }
  // Whether the neighbour is in the tile, and whether in this thread's piece.
  __device__ __forceinline__ bool inside(Place p) const {
    return (FLAT || (unsigned)(p.row + dy) < (unsigned)R) && (unsigned)(p.col + dx) < (unsigned)C;
  }
  __device__ __forceinline__ bool same_piece(Place p) const {
    if (FLAT) return (p.col + dx) / LENGTH == p.col / LENGTH;
    return (dy == 1 || dy == -1) && (p.row + dy) / LENGTH == p.row / LENGTH;
  }
};

__device__ __forceinline__ bool leads_on(int dy, int dx) { return dy > 0 || (dy == 0 && dx > 0); }

// ---- search: distances to the sink, or what excess reaches ----------------------------------------------

// Starts a search: the level of a seed is 1, of others FAR, and the edges it may go are packed into bits. Seeds are
// pixels that may give to the sink, and edges are followed against their direction; or, `forward`, pixels with excess,
// and edges are followed in their direction. Images where no excess was left in the cycle before are passed over.
//
// Why the forward search finds the source side of the smallest minimum cut, though the preflow f is not a flow: let A
// be what excess reaches over residual edges. The second phase would return each excess to the source along paths of
// residual edges, all within A, and make a maximum flow f'. Terminal edges from the source are full in f but where flow
// returns, so the source reaches in f' a set R that starts at ends of return paths. (1) R is within A: no edge leaves A
// in f, and edges between A and the rest are not changed. (2) Return paths reversed are residual in f', so R holds
// every pixel with excess. (3) An edge u -> v that is residual in f and not in f', u in R, is one that a return path
// takes; then v lies on that path, so in R by (2)'s argument. So R is closed under f's residual edges too: A is within
// R. QED.
extern "C" __global__ void __launch_bounds__(THREADS) cut_mark(
    const cap* __restrict__ residual,    // [B, planes, depth, rows, cols]
    int64_t* __restrict__ excess,        // [B, depth, rows, cols]
    uint64_t* __restrict__ inflow,       // the same: joins excess here
    const int32_t* __restrict__ live,    // [B]: the last cycle with excess
    dirs* __restrict__ mask, int32_t* __restrict__ level,  // [B, depth, rows, cols]
    int32_t* __restrict__ seen,                            // [2, B, depth, rows, cols]
    const int32_t* __restrict__ moves,                     // [n_moves, 5]: dz, dy, dx, slot, plane
    int32_t* __restrict__ counts, int32_t* __restrict__ lists,  // of searches
    int64_t total, int n_moves, int planes, int depth, int rows, int cols, int tiles, int round, int cycle,
    int forward) {
  clear_later(round, counts);
  const Volume v{depth, rows, cols};
  const Tile<SPAN, SPAN> tile(v, blockIdx.x);
  if (live[tile.image] < cycle - 1) return;
  bool seeds = false;
  for (int i = threadIdx.x; i < SPAN * SPAN; i += THREADS) {
    const int row = i / SPAN, col = i % SPAN;
    if (tile.y + row >= rows || tile.x + col >= cols) continue;
    const int64_t n = tile.first + (int64_t)row * cols + col;
    int64_t e = excess[n];
    if (const int64_t more = (int64_t)inflow[n]) {
      excess[n] = e += more;
      inflow[n] = 0;
    }
    dirs open = 0;
    for (int d = 0; d < n_moves; ++d) {
      const Move to(moves, forward ? d ^ 1 : d);  // an edge from the neighbour is its edge in the opposite direction
      const int64_t from = forward ? n - to.hop(v) : n;
      if (forward && !tile.exists(v, Move(moves, d), row, col)) continue;
      if (plane_of(residual, v, planes, tile.image, to.plane)[from] > 0) open |= dirs(dirs(1) << d);
    }
    const bool seed = forward ? e > 0 : e < 0;
    seeds |= seed;
    mask[n] = open;
    level[n] = seen[n] = seen[total + n] = seed ? 1 : FAR;
  }
  if (__syncthreads_or(seeds) && threadIdx.x == 0) enter(blockIdx.x, round + 1, tiles, counts, lists);
}

// Lowers the levels along a direction: those whose neighbour is beyond this thread's piece first read it.
template <bool FLAT>
__device__ __forceinline__ bool relax_along(int* level, const dirs* mask, int d, int dy, int dx) {
  // News come from the neighbour, so the walk goes against the step.
  const Walk<SPAN, SPAN, SEARCHERS, FLAT> walk(dy, dx, !leads_on(dy, dx));
  int next[SEARCH_PER];
  unsigned inner = 0;
#pragma unroll
  for (int k = 0; k < SEARCH_PER; ++k) {
    const Place p = walk.at(k);
    next[k] = FAR;
    const bool open = mask[p.row * MASK_PITCH + p.col] >> d & 1;
    if (!open || !walk.inside(p)) continue;
    if (walk.same_piece(p))
      inner |= 1u << k;
    else
      next[k] = level[(p.row + dy) * SEARCH_PITCH + p.col + dx];
  }
  __syncthreads();
  bool lowered = false;
#pragma unroll
  for (int k = 0; k < SEARCH_PER; ++k) {
    const Place p = walk.at(k);
    const int i = p.row * SEARCH_PITCH + p.col;
    const int near = (inner >> k & 1 ? level[i + dy * SEARCH_PITCH + dx] : next[k]) + 1;
    if (near < FAR && near < level[i]) {
      level[i] = near;
      lowered = true;
    }
  }
  return lowered;
}

// One round of a search: each entered tile takes the levels around it as of the round before, finishes its own, and
// enters the tiles whose levels follow from it.
extern "C" __global__ void __launch_bounds__(SEARCHERS, 2) cut_search(
    const dirs* __restrict__ mask, int32_t* __restrict__ level,  // [B, depth, rows, cols]
    int32_t* __restrict__ seen,                                  // [2, B, depth, rows, cols]
    const int32_t* __restrict__ moves, int32_t* __restrict__ counts, int32_t* __restrict__ lists,
    int64_t total, int n_moves, int depth, int rows, int cols, int tiles, int round, int first) {
  __shared__ int near[SPAN * SEARCH_PITCH];
  __shared__ dirs open[SPAN * MASK_PITCH];
  clear_later(round, counts);
  const Volume v{depth, rows, cols};
  const int count = counts[round % 3];
  // The last round's levels. A tile that was not in it has older ones here, which are higher and already known.
  const int32_t* const before = seen + (round & 1) * total;
  int32_t* const after = seen + (~round & 1) * total;
  if (blockIdx.x == 0 && threadIdx.x == 0 && count > 0) counts[3] = round;
  for (int turn = blockIdx.x; turn < count; turn += gridDim.x) {
    const Tile<SPAN, SPAN> tile(v, entered(turn, round, tiles, lists));
    __syncthreads();
#pragma unroll
    for (int k = 0; k < SEARCH_PER; ++k) {
      const int row = threadIdx.x / SPAN * SEARCH_PER + k, col = threadIdx.x % SPAN;
      const bool there = tile.y + row < rows && tile.x + col < cols;
      const int64_t n = tile.first + (int64_t)row * cols + col;
      int best = there ? level[n] : FAR;
      const dirs bits = there ? mask[n] : dirs(0);
      for (int d = 0; d < n_moves; ++d) {
        if (!(bits >> d & 1)) continue;
        const Move m(moves, d);
        if (!tile.holds(m, row, col)) best = min(best, before[n + m.hop(v)] + 1);
      }
      near[row * SEARCH_PITCH + col] = best < FAR ? best : FAR;
      open[row * MASK_PITCH + col] = bits;
    }
    __syncthreads();
    bool lowered;
    do {  // levels only fall, so this ends
      lowered = false;
      for (int d = 0; d < n_moves; ++d) {
        const Move m(moves, d);
        if (m.dz != 0 || abs(m.dy) >= SPAN || abs(m.dx) >= SPAN) continue;
        lowered |= m.dy == 0 ? relax_along<true>(near, open, d, 0, m.dx)
                             : relax_along<false>(near, open, d, m.dy, m.dx);
        __syncthreads();
      }
    } while (__syncthreads_or(lowered));
#pragma unroll 1
    for (int k = 0; k < SEARCH_PER; ++k) {
      const int row = threadIdx.x / SPAN * SEARCH_PER + k, col = threadIdx.x % SPAN;
      if (tile.y + row >= rows || tile.x + col >= cols) continue;
      const int64_t n = tile.first + (int64_t)row * cols + col;
      const int found = near[row * SEARCH_PITCH + col];
      if (found == FAR || (found == level[n] && !first)) continue;
      level[n] = after[n] = found;
      for (int d = 0; d < n_moves; ++d) {
        const Move m(moves, d);
        if (tile.holds(m, row, col) || !tile.exists(v, m, row, col)) continue;
        const int64_t q = n + m.hop(v);
        if (before[q] > found + 1 && (mask[q] >> (d ^ 1) & 1))
          enter(tile.beside(v, m, row, col), round + 1, tiles, counts, lists);
      }
    }
  }
}

// ---- push and relabel -----------------------------------------------------------------------------------

// After a search that has ended: enters the tiles in which excess reaches the sink. None: the flow is maximum.
extern "C" __global__ void __launch_bounds__(THREADS) cut_collect(
    const int64_t* __restrict__ excess, const int32_t* __restrict__ level,  // [B, depth, rows, cols]
    int32_t* __restrict__ seen,                                             // the same
    int32_t* __restrict__ live,                                             // [B]
    const int32_t* __restrict__ search_counts,
    int32_t* __restrict__ counts, int32_t* __restrict__ lists,              // of sweeps
    int depth, int rows, int cols, int tiles, int search_round, int round, int cycle) {
  clear_later(round, counts);
  if (search_counts[search_round % 3] != 0) return;  // the search needs more rounds
  const Volume v{depth, rows, cols};
  const Tile<ROWS, COLS> tile(v, blockIdx.x);
  bool active = false;
#pragma unroll
  for (int k = 0; k < PER; ++k) {
    const int row = threadIdx.x / COLS * PER + k, col = threadIdx.x % COLS;
    if (tile.y + row >= rows || tile.x + col >= cols) continue;
    const int64_t n = tile.first + (int64_t)row * cols + col;
    const int l = level[n];
    seen[n] = l;
    active |= l < FAR && excess[n] > 0;
  }
  if (!__syncthreads_or(active) || threadIdx.x != 0) return;
  enter(blockIdx.x, round + 1, tiles, counts, lists);
  atomicMax(live + tile.image, cycle);
  atomicMax(counts + 3, cycle);
}

// Pushes along a direction within the tile. What goes to another thread's piece arrives after all have walked.
template <bool FLAT>
__device__ __forceinline__ bool push_along(int64_t* e, cap* out, cap* back, const int* l, int dy, int dx) {
  const Walk<ROWS, COLS, THREADS, FLAT> walk(dy, dx, leads_on(dy, dx));
  cap sent[PER];
  bool pushed = false, leaves = false;
#pragma unroll
  for (int k = 0; k < PER; ++k) {
    sent[k] = 0;
    const Place p = walk.at(k);
    const int i = p.row * PITCH + p.col, j = i + dy * PITCH + dx;
    const int64_t have = e[i];
    if (have <= 0 || !walk.inside(p)) continue;
    if (l[i] != l[j] + 1) continue;
    const cap room = out[i];
    if (room <= 0) continue;
    const cap amount = have < room ? cap(have) : room;
    e[i] = have - amount;
    out[i] = room - amount;
    back[j] += amount;  // this thread is its only giver, and no one reads this plane now
    if (walk.same_piece(p)) {
      e[j] += amount;
    } else {
      sent[k] = amount;
      leaves = true;
    }
    pushed = true;
  }
  if (__syncthreads_or(leaves)) {
#pragma unroll
    for (int k = 0; k < PER; ++k) {
      if (sent[k] == 0) continue;
      const Place p = walk.at(k);
      e[(p.row + dy) * PITCH + p.col + dx] += sent[k];
    }
    __syncthreads();
  }
  return pushed;
}

// Sweeps of the entered tiles: pushes within them, and relabels that see the levels of other tiles as of the launch
// before. Those only rise, so the labelling stays valid: l(p) <= l(q) + 1 over every residual edge.
extern "C" __global__ void __launch_bounds__(THREADS, 3) cut_sweep(
    cap* __restrict__ residual,                                     // [B, planes, depth, rows, cols]
    int64_t* __restrict__ excess, uint64_t* __restrict__ inflow,    // [B, depth, rows, cols]
    int32_t* __restrict__ level, const int32_t* __restrict__ seen,  // the same
    const int32_t* __restrict__ moves, const int32_t* __restrict__ counts, const int32_t* __restrict__ lists,
    int n_moves, int slots, int planes, int depth, int rows, int cols, int tiles, int round, int sweeps) {
  extern __shared__ __align__(16) unsigned char arena[];
  constexpr int SIZE = ROWS * PITCH;
  int64_t* const e = (int64_t*)arena;
  cap* const r = (cap*)(e + SIZE);
  int* const l = (int*)(r + slots * SIZE);
  const Volume v{depth, rows, cols};
  const int count = counts[round % 3];
  for (int turn = blockIdx.x; turn < count; turn += gridDim.x) {
    const Tile<ROWS, COLS> tile(v, entered(turn, round, tiles, lists));
    const int top = threadIdx.x / COLS * PER, col = threadIdx.x % COLS;
    int limit[PER];  // the level that an edge out of the tile allows
    __syncthreads();
#pragma unroll
    for (int k = 0; k < PER; ++k) {
      const int row = top + k, i = row * PITCH + col;
      const bool there = tile.y + row < rows && tile.x + col < cols;
      const int64_t n = tile.first + (int64_t)row * cols + col;
      int64_t have = there ? excess[n] : 0;
      if (const int64_t more = there ? (int64_t)inflow[n] : 0) {
        have += more;
        inflow[n] = 0;
      }
      e[i] = have;
      l[i] = there ? level[n] : FAR;
      limit[k] = FAR;
    }
#pragma unroll 1
    for (int d = 0; d < n_moves; ++d) {
      const Move m(moves, d);
      const cap* const edge = plane_of(residual, v, planes, tile.image, m.plane) + tile.first;
      const int32_t* const beyond = seen + tile.first + m.hop(v);
#pragma unroll
      for (int k = 0; k < PER; ++k) {
        const int row = top + k;
        const bool there = tile.y + row < rows && tile.x + col < cols;
        const int64_t n = (int64_t)row * cols + col;
        const cap room = there ? edge[n] : cap(0);
        if (m.slot >= 0) r[m.slot * SIZE + row * PITCH + col] = room;
        if (room > 0 && (m.slot < 0 || !tile.holds(m, row, col))) limit[k] = min(limit[k], beyond[n] + 1);
      }
    }
    __syncthreads();
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      bool changed = false;
#pragma unroll 1
      for (int d = 0; d < n_moves; ++d) {
        const Move m(moves, d);
        if (m.slot < 0) continue;
        cap *const out = r + m.slot * SIZE, *const back = r + (m.slot ^ 1) * SIZE;
        changed |= m.dy == 0 ? push_along<true>(e, out, back, l, 0, m.dx)
                             : push_along<false>(e, out, back, l, m.dy, m.dx);
      }
      int raised[PER];
      unsigned active = 0;
#pragma unroll
      for (int k = 0; k < PER; ++k) {
        const int i = (top + k) * PITCH + col;
        raised[k] = l[i];
        if (e[i] > 0 && l[i] < FAR) active |= 1u << k;
      }
      if (active) {
        int lowest[PER];
#pragma unroll
        for (int k = 0; k < PER; ++k) lowest[k] = limit[k];
#pragma unroll 1
        for (int d = 0; d < n_moves; ++d) {
          const Move m(moves, d);
          if (m.slot < 0) continue;
#pragma unroll
          for (int k = 0; k < PER; ++k) {
            const int row = top + k, i = row * PITCH + col;
            if ((active >> k & 1) && tile.holds(m, row, col) && r[m.slot * SIZE + i] > 0)
              lowest[k] = min(lowest[k], l[i + m.dy * PITCH + m.dx] + 1);
          }
        }
#pragma unroll
        for (int k = 0; k < PER; ++k) {
          if (!(active >> k & 1)) continue;
          const int to = lowest[k] <= v.nodes() ? lowest[k] : FAR;  // no way to the sink is longer
          changed |= to != raised[k];
          raised[k] = to;
        }
      }
      if (!__syncthreads_or(changed)) break;
#pragma unroll
      for (int k = 0; k < PER; ++k) l[(top + k) * PITCH + col] = raised[k];
      __syncthreads();
    }
#pragma unroll 1
    for (int k = 0; k < PER; ++k) {
      const int row = top + k, i = row * PITCH + col;
      if (tile.y + row >= rows || tile.x + col >= cols) continue;
      const int64_t n = tile.first + (int64_t)row * cols + col;
      excess[n] = e[i];
      level[n] = l[i];
    }
#pragma unroll 1
    for (int d = 0; d < n_moves; ++d) {
      const Move m(moves, d);
      if (m.slot < 0) continue;
      cap* const edge = plane_of(residual, v, planes, tile.image, m.plane) + tile.first;
#pragma unroll 1
      for (int k = 0; k < PER; ++k) {
        const int row = top + k;
        if (tile.y + row < rows && tile.x + col < cols)
          edge[(int64_t)row * cols + col] = r[m.slot * SIZE + row * PITCH + col];
      }
    }
  }
}

// Pushes along the edges that cut_sweep leaves out: over the borders of the swept tiles, and all of moves without a
// slot. Levels rest, and of two opposite edges at most one leads down: an edge's plane is touched by the thread of its
// higher end alone, which asks for the levels first.
extern "C" __global__ void __launch_bounds__(THREADS) cut_exchange(
    cap* __restrict__ residual,                                     // [B, planes, depth, rows, cols]
    int64_t* __restrict__ excess, uint64_t* __restrict__ inflow,    // [B, depth, rows, cols]
    const int32_t* __restrict__ level, int32_t* __restrict__ seen,  // the same
    const int32_t* __restrict__ moves, int32_t* __restrict__ counts, int32_t* __restrict__ lists,
    int n_moves, int planes, int depth, int rows, int cols, int tiles, int round) {
  clear_later(round, counts);
  const Volume v{depth, rows, cols};
  const int count = counts[round % 3];
  for (int turn = blockIdx.x; turn < count; turn += gridDim.x) {
    const int id = entered(turn, round, tiles, lists);
    const Tile<ROWS, COLS> tile(v, id);
    bool active = false;
#pragma unroll 1
    for (int k = 0; k < PER; ++k) {
      const int row = threadIdx.x / COLS * PER + k, col = threadIdx.x % COLS;
      if (tile.y + row >= rows || tile.x + col >= cols) continue;
      const int64_t n = tile.first + (int64_t)row * cols + col;
      const int l = level[n];
      seen[n] = l;
      if (l == FAR) continue;
      int64_t have = excess[n];
      const int64_t had = have;
      for (int d = 0; d < n_moves && have > 0; ++d) {
        const Move m(moves, d);
        if ((m.slot >= 0 && tile.holds(m, row, col)) || !tile.exists(v, m, row, col)) continue;
        const int64_t q = n + m.hop(v);
        if (level[q] != l - 1) continue;
        cap* const out = plane_of(residual, v, planes, tile.image, m.plane) + n;
        const cap room = *out;
        if (room <= 0) continue;
        const cap amount = have < room ? cap(have) : room;
        have -= amount;
        *out = room - amount;
        plane_of(residual, v, planes, tile.image, Move(moves, d ^ 1).plane)[q] += amount;
        atomicAdd(inflow + q, (uint64_t)amount);
        enter(tile.beside(v, m, row, col), round + 1, tiles, counts, lists);
      }
      if (have != had) excess[n] = have;
      active |= have > 0;
    }
    if (__syncthreads_or(active) && threadIdx.x == 0) enter(id, round + 1, tiles, counts, lists);
  }
}

// ---- result ---------------------------------------------------------------------------------------------

// Labels by the last search, and what each tile's sinks took.
extern "C" __global__ void __launch_bounds__(THREADS) cut_label(
    const cap* __restrict__ terminal, const int64_t* __restrict__ excess,   // [B, depth, rows, cols]
    const int32_t* __restrict__ level, uint8_t* __restrict__ labels,        // the same
    int64_t* __restrict__ flow,                                             // [tiles]
    int depth, int rows, int cols, int reached) {
  __shared__ int64_t part[THREADS / 32];
  const Volume v{depth, rows, cols};
  const Tile<ROWS, COLS> tile(v, blockIdx.x);
  int64_t took = 0;
#pragma unroll
  for (int k = 0; k < PER; ++k) {
    const int row = threadIdx.x / COLS * PER + k, col = threadIdx.x % COLS;
    if (tile.y + row >= rows || tile.x + col >= cols) continue;
    const int64_t n = tile.first + (int64_t)row * cols + col;
    const int64_t could = terminal[n], can = excess[n];
    took += (can < 0 ? can : 0) - (could < 0 ? could : 0);
    labels[n] = (level[n] < FAR) == (reached != 0);
  }
#pragma unroll
  for (int shift = 16; shift > 0; shift /= 2) took += __shfl_xor_sync(ALL, took, shift);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = took;
  __syncthreads();
  if (threadIdx.x != 0) return;
  took = 0;
#pragma unroll
  for (int w = 0; w < THREADS / 32; ++w) took += part[w];
  flow[blockIdx.x] = took;
}
