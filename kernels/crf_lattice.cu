/* crf_lattice.cu: builds the permutohedral lattice of points in 1 to 8 dimensions.
 *
 * formula     elevation e = E f into the plane of d + 1 coordinates that sum to 0; the simplex around a point is its
 *             nearest vertex of remainder 0 with the ranks of what is left (Adams et al., section 3); the vertices of
 *             the simplices, each once; for each axis the two neighbours of a vertex
 * layout      a hash table of 64-bit words by open addressing: the upper half is a part of the hash, the lower half the
 *             smallest id that has the key, later the key's number. Keys are not stored: an id stands for a point, a
 *             simplex' vertex or a vertex' neighbour, whose key an earlier kernel has written. Points by simplex and
 *             vertices by number are sorted by the launcher.
 * launch      a thread a point (crf_embed, crf_insert_points, crf_group, crf_runs), a (simplex, entry)
 *             (crf_insert_vertices, crf_number_vertices), a vertex or candidate (crf_*_ring), a source (crf_sources),
 *             a (vertex, axis) (crf_neighbors), any id (crf_first); 128 threads
 * cost        bound by latency and random access: 64 bytes an insertion. One insertion a point, d + 1 a simplex
 *             and one search for d + 1 axes a vertex. crf_embed: about 30 + 3 d^2 float64 operations a point
 * order       which thread comes first decides about slots and about places in the list of long chunks, nothing else:
 *             the smallest id of a key wins by atomicMin, so that numbers follow first appearance
 * measured    not measured
 * source      A. Adams, J. Baek, M. A. Davis, Fast high-dimensional filtering using the permutohedral lattice, 2010
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64
 */
#include "scalar.cuh"

constexpr int THREADS = 128;
constexpr int MOST = 8;                // dimensions
constexpr int SHIFT = 6;               // chunks of at most 64 points
constexpr double BOUND = 134217728.0;  // lattice coordinates, in units of d + 1, end here: keys stay in 32 bits
constexpr uint64_t EMPTY = ~(uint64_t)0;
constexpr uint64_t UPPER = EMPTY << 32;
constexpr int32_t NOBODY = 0x7fffffff;  // the vertex of a chunk that does not exist: sorted behind all others

// ---- points to simplices --------------------------------------------------------------------------------

// These coordinates decide in which simplex a point lies, so all paths compute them alike, and as pydensecrf does: in
// the type of the features, each product and sum rounded by itself.
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ double plus(double a, double b) { return __dadd_rn(a, b); }

// The vertex of remainder 0 (in whole coordinates) and the ranks of one point, from its elevated coordinates.
__device__ __forceinline__ void find_simplex(const real (&e)[MOST + 1], int (&rem)[MOST + 1], int (&rank)[MOST + 1],
                                             int dims) {
  const real size = dims + 1, inverse = real(1) / size;
  int sum = 0;
#pragma unroll
  for (int j = 0; j <= MOST; ++j) {
    rank[j] = rem[j] = 0;
    if (j > dims) continue;
    real v = times(e[j], inverse);
    v = v > real(-BOUND) ? v : real(-BOUND);  // NaN, too
    v = v < real(BOUND) ? v : real(BOUND);
    const int nearest = (int)rint(v);
    rem[j] = nearest * (dims + 1);
    sum += nearest;
  }
#pragma unroll
  for (int i = 0; i < MOST; ++i)
#pragma unroll
    for (int j = i + 1; j <= MOST; ++j)
      if (j <= dims) {
        const bool less = e[i] - real(rem[i]) < e[j] - real(rem[j]);
        rank[i] += less;
        rank[j] += !less;
      }
#pragma unroll
  for (int j = 0; j <= MOST; ++j) {
    rank[j] += sum;
    const int turn = rank[j] < 0 ? dims + 1 : rank[j] > dims ? -(dims + 1) : 0;
    rem[j] += turn;
    rank[j] = min(max(rank[j] + turn, 0), dims);  // it is, but where coordinates are too large for their digits
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) crf_embed(
    const real* __restrict__ features,  // [images, dims, points]
    int32_t* __restrict__ record,       // [total, dims + 1]: first coordinates of the vertex of remainder 0; the ranks
    real* __restrict__ weight,          // [total, dims + 1]: barycentric coordinates
    uint64_t* __restrict__ table,       // [capacity]: emptied
    int64_t total, int64_t points, int64_t capacity, int dims, double stretch) {
  __shared__ real scale[MOST];
  __shared__ real bary[THREADS][MOST + 2];
  __shared__ int32_t words[THREADS * (MOST + 1)];
  const int t = threadIdx.x;
  const int64_t first = (int64_t)blockIdx.x * THREADS, i = first + t;
  if (t < dims) scale[t] = (real)((double)(real)stretch / sqrt((double)((t + 1) * (t + 2))));
  for (int64_t slot = i; slot < capacity; slot += (int64_t)gridDim.x * THREADS) table[slot] = EMPTY;
  __syncthreads();
  if (i < total) {
    const int64_t image = (uint32_t)i / (uint32_t)points;
    const real* from = features + image * dims * points + (i - image * points);
    real e[MOST + 1] = {}, sum = 0;
#pragma unroll
    for (int j = MOST; j >= 1; --j) {
      if (j > dims) continue;
      const real x = times(from[(j - 1) * points], scale[j - 1]);
      e[j] = plus(sum, -times(real(j), x));
      sum = plus(sum, x);
    }
    e[0] = sum;
    int rem[MOST + 1], rank[MOST + 1];
    find_simplex(e, rem, rank, dims);
    const real inverse = real(1) / real(dims + 1);
    real* b = bary[t];
    uint32_t ranks = 0;
    for (int r = 0; r <= dims + 1; ++r) b[r] = 0;
#pragma unroll
    for (int j = 0; j <= MOST; ++j) {
      if (j > dims) continue;
      const real v = times(e[j] - real(rem[j]), inverse);
      b[dims - rank[j]] += v;
      b[dims - rank[j] + 1] -= v;
      if (j < dims) {
        words[t * (dims + 1) + j] = rem[j];
        ranks |= (uint32_t)rank[j] << (4 * j);
      }
    }
    b[0] += real(1) + b[dims + 1];
    words[t * (dims + 1) + dims] = (int32_t)ranks;
  }
  __syncthreads();
  const int count = (int)min((int64_t)THREADS, total - first) * (dims + 1);
  for (int k = t; k < count; k += THREADS) {
    record[first * (dims + 1) + k] = words[k];
    weight[first * (dims + 1) + k] = (real)bary[k / (dims + 1)][k % (dims + 1)];
  }
}

// ---- keys and the table ---------------------------------------------------------------------------------

struct Key {
  int32_t at[MOST + 1];  // coordinates, and for a simplex its ranks behind them
  uint32_t image;
};

__device__ __forceinline__ bool equal(const Key& a, const Key& b, int words) {
  bool same = a.image == b.image;
#pragma unroll
  for (int j = 0; j <= MOST; ++j)
    if (j < words) same &= a.at[j] == b.at[j];
  return same;
}

__device__ __forceinline__ uint64_t hash(const Key& key, int words, uint64_t mask) {
  uint64_t h = key.image;
#pragma unroll
  for (int j = 0; j <= MOST; ++j)
    if (j < words) {
      h = (h ^ (uint32_t)key.at[j]) * 0x9e3779b97f4a7c15ull;
      h ^= h >> 32;
    }
  h *= 0xd6e8feb86659fd93ull;
  return (h ^ (h >> 29)) & mask;
}

// The slot of the key with this hash, whose word holds `id` afterwards or a smaller id of an equal key.
template <class Same> __device__ __forceinline__ uint32_t insert(
    uint64_t* table, uint64_t capacity, uint64_t hashed, uint32_t id, Same same) {
  const uint64_t word = (hashed & UPPER) | id;
  uint64_t slot = hashed & (capacity - 1);
  while (true) {
    uint64_t there = ((volatile uint64_t*)table)[slot];
    if (there == EMPTY) {
      there = atomicCAS(table + slot, EMPTY, word);
      if (there == EMPTY) return (uint32_t)slot;
    }
    if (((there ^ word) & UPPER) == 0 && ((uint32_t)there == id || same((uint32_t)there))) {
      if (word < there) atomicMin(table + slot, word);
      return (uint32_t)slot;
    }
    slot = (slot + 1) & (capacity - 1);
  }
}

__device__ __forceinline__ Key key_of_point(const int32_t* record, uint32_t i, int64_t points, int dims) {
  Key key;
#pragma unroll
  for (int j = 0; j <= MOST; ++j)
    if (j <= dims) key.at[j] = record[(int64_t)i * (dims + 1) + j];
  key.image = i / (uint32_t)points;
  return key;
}

// Vertex r of the simplex that `record` of a point describes.
__device__ __forceinline__ Key key_of_entry(const int32_t* record, const int32_t* head, uint32_t entry,
                                            int64_t points, int dims) {
  const uint32_t simplex = entry / (uint32_t)(dims + 1);
  const int r = (int)(entry - simplex * (uint32_t)(dims + 1));
  const uint32_t i = (uint32_t)head[simplex];
  const int32_t* from = record + (int64_t)i * (dims + 1);
  const uint32_t ranks = (uint32_t)from[dims];
  Key key;
#pragma unroll
  for (int j = 0; j < MOST; ++j)
    if (j < dims) key.at[j] = from[j] + ((int)(ranks >> (4 * j) & 15) <= dims - r ? r : r - (dims + 1));
  key.image = i / (uint32_t)points;
  return key;
}

__device__ __forceinline__ Key key_of_vertex(const int32_t* vertices, uint32_t v, int dims) {
  const int32_t* from = vertices + (int64_t)v * (dims + 1);
  Key key;
#pragma unroll
  for (int j = 0; j < MOST; ++j)
    if (j < dims) key.at[j] = from[j];
  key.image = (uint32_t)from[dims];
  return key;
}

__device__ __forceinline__ void keep_vertex(int32_t* vertices, uint32_t v, const Key& key, int dims) {
  int32_t* to = vertices + (int64_t)v * (dims + 1);
#pragma unroll
  for (int j = 0; j < MOST; ++j)
    if (j < dims) to[j] = key.at[j];
  to[dims] = (int32_t)key.image;
}

// The neighbour on an axis, on the side of sign -1 or 1.
__device__ __forceinline__ Key neighbor(Key key, int axis, int sign, int dims) {
#pragma unroll
  for (int j = 0; j < MOST; ++j)
    if (j < dims) key.at[j] += j == axis ? -sign * dims : sign;
  return key;
}

// Of `id` among the vertices that are there and then their neighbours, 2 (dims + 1) a vertex.
__device__ __forceinline__ Key key_of_candidate(const int32_t* vertices, uint32_t id, uint32_t covered, int dims) {
  if (id < covered) return key_of_vertex(vertices, id, dims);
  const uint32_t side = (id - covered) % (uint32_t)(2 * dims + 2), v = (id - covered) / (uint32_t)(2 * dims + 2);
  return neighbor(key_of_vertex(vertices, v, dims), (int)(side / 2), side % 2 ? 1 : -1, dims);
}

// ---- numbering ------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS) crf_insert_points(
    const int32_t* __restrict__ record,  // [total, dims + 1]
    uint64_t* table,                     // [capacity]
    uint32_t* __restrict__ slot,         // [total]
    int64_t total, int64_t points, int64_t capacity, uint64_t hash_mask, int dims) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= total) return;
  const Key key = key_of_point(record, (uint32_t)i, points, dims);
  slot[i] = insert(table, capacity, hash(key, dims + 1, hash_mask), (uint32_t)i, [&](uint32_t other) {
    return equal(key, key_of_point(record, other, points, dims), dims + 1);
  });
}

// The first id with the key of each id, and whether it is the id itself. The flag behind the last one is `extra`, so
// that one transfer brings the sum of the flags and that number.
extern "C" __global__ void __launch_bounds__(THREADS) crf_first(
    const uint64_t* __restrict__ table, const uint32_t* __restrict__ slot,  // [n]
    int32_t* __restrict__ first,                                            // [n]
    int32_t* __restrict__ flag,                                             // [n + 1]
    const int32_t* __restrict__ extra,                                      // [1] or null
    int64_t n) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < n) {
    const int32_t id = (int32_t)(uint32_t)table[slot[i]];
    first[i] = id;
    flag[i] = id == i;
  } else if (i == n) {
    flag[i] = extra ? extra[0] : 0;
  }
}

// number = how many first ids there are before the id's own first one.
extern "C" __global__ void __launch_bounds__(THREADS) crf_group(
    const int32_t* __restrict__ first, const int32_t* __restrict__ count,  // [n], [n]: sums of the flags
    int32_t* __restrict__ number,                                          // [n]
    int64_t n) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < n) number[i] = count[first[i]] - 1;
}

// The points in the order of their simplices, cut into chunks: where a simplex begins and at multiples of 64. The chunk
// of place k of simplex s has the number s + k / 64, which no other has; a few numbers have no chunk.
extern "C" __global__ void __launch_bounds__(THREADS) crf_runs(
    const int64_t* __restrict__ order,    // [total]: points by simplex
    const int32_t* __restrict__ simplex,  // [total]
    const int32_t* __restrict__ record,   // [total, dims + 1]
    int32_t* __restrict__ point,          // [total]: as order
    int32_t* __restrict__ head,           // [simplices]: first point
    int32_t* __restrict__ start,          // [simplices + 1]: first place
    int32_t* __restrict__ ranks,          // [simplices]
    int32_t* __restrict__ chunk,          // [chunks]: first place, or -1
    int32_t* __restrict__ vertex,         // [chunks, dims + 1]: NOBODY where there is no chunk
    int32_t* __restrict__ longer,         // [1]: zero, to count the chunks of several points
    uint64_t* __restrict__ table,         // [capacity]: emptied
    int64_t total, int64_t capacity, int dims) {
  const int64_t k = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  for (int64_t slot = k; slot < capacity; slot += (int64_t)gridDim.x * THREADS) table[slot] = EMPTY;
  if (k == 0) longer[0] = 0;
  if (k >= total) return;
  const int64_t i = order[k];
  const int32_t s = simplex[i];
  const bool begins = k == 0 || simplex[order[k - 1]] != s, cut = (k & ((1 << SHIFT) - 1)) == 0;
  point[k] = (int32_t)i;
  if (begins) {
    head[s] = (int32_t)i;
    start[s] = (int32_t)k;
    ranks[s] = record[i * (dims + 1) + dims];
  }
  if (begins || cut) chunk[s + (k >> SHIFT)] = (int32_t)k;
  if (begins && cut && k > 0) {
    const int64_t gap = s + (k >> SHIFT) - 1;
    chunk[gap] = -1;
    for (int r = 0; r <= dims; ++r) vertex[gap * (dims + 1) + r] = NOBODY;
  }
  if (k == total - 1) start[s + 1] = (int32_t)total;
}

// The end of the chunk that begins at `place` in a run that ends at `end`.
__device__ __forceinline__ int32_t end_of_chunk(int32_t place, int32_t end) {
  const int64_t cut = ((int64_t)(place >> SHIFT) + 1) << SHIFT;
  return cut < end ? (int32_t)cut : end;
}

// Also lists the chunks of several points, whose sums get rows of their own.
extern "C" __global__ void __launch_bounds__(THREADS) crf_insert_vertices(
    const int32_t* __restrict__ record, const int32_t* __restrict__ head,  // [total, dims + 1], [simplices]
    const int32_t* __restrict__ start,                                     // [simplices + 1]
    uint64_t* table,                                                       // [capacity]
    uint32_t* __restrict__ slot,                                           // [entries]
    int32_t* __restrict__ partial,                                         // [chunks]: place in the list, or -1
    int32_t* __restrict__ span,                                            // [2, longer]: first place, end
    int32_t* longer,                                                       // [1]
    int64_t entries, int64_t points, int64_t capacity, uint64_t hash_mask, int dims) {
  const int64_t entry = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (entry >= entries) return;
  const Key key = key_of_entry(record, head, (uint32_t)entry, points, dims);
  slot[entry] = insert(table, capacity, hash(key, dims, hash_mask), (uint32_t)entry, [&](uint32_t other) {
    return equal(key, key_of_entry(record, head, other, points, dims), dims);
  });
  const int64_t s = entry / (dims + 1);
  if (entry != s * (dims + 1)) return;
  const int32_t begin = start[s], end = start[s + 1];
  int several = 0;
  for (int32_t place = begin; place < end; place = end_of_chunk(place, end))
    several += end_of_chunk(place, end) - place > 1;
  int32_t at = several ? atomicAdd(longer, several) : 0;
  for (int32_t place = begin; place < end; place = end_of_chunk(place, end)) {
    const int32_t after = end_of_chunk(place, end);
    const bool alone = after - place == 1;
    partial[s + (place >> SHIFT)] = alone ? -1 : at;
    if (alone) continue;
    span[2 * (int64_t)at] = place;
    span[2 * (int64_t)at + 1] = after;
    ++at;
  }
}

// Each entry's vertex, of each chunk once more; the vertices' keys; numbers in place of the ids in the table.
extern "C" __global__ void __launch_bounds__(THREADS) crf_number_vertices(
    const int32_t* __restrict__ record, const int32_t* __restrict__ head,  // [total, dims + 1], [simplices]
    const int32_t* __restrict__ start,                                     // [simplices + 1]
    const uint32_t* __restrict__ slot, const int32_t* __restrict__ first, const int32_t* __restrict__ count,
    uint64_t* table,                    // [capacity]
    int32_t* __restrict__ vertex,       // [simplices, dims + 1]
    int32_t* __restrict__ of_chunk,     // [chunks, dims + 1]
    int32_t* __restrict__ vertices,     // [vertices, dims + 1]: coordinates, image
    int64_t entries, int64_t points, int dims) {
  const int64_t entry = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (entry >= entries) return;
  const int32_t number = count[first[entry]] - 1;
  vertex[entry] = number;
  const int64_t s = entry / (dims + 1), r = entry - s * (dims + 1);
  const int64_t begin = s + (start[s] >> SHIFT), end = s + ((start[s + 1] - 1) >> SHIFT);
  for (int64_t chunk = begin; chunk <= end; ++chunk) of_chunk[chunk * (dims + 1) + r] = number;
  if (first[entry] != entry) return;
  table[slot[entry]] = (table[slot[entry]] & UPPER) | (uint32_t)number;
  keep_vertex(vertices, (uint32_t)number, key_of_entry(record, head, (uint32_t)entry, points, dims), dims);
}

// ---- one ring of vertices more --------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS) crf_insert_ring(
    const int32_t* __restrict__ vertices,  // [covered, dims + 1]
    uint64_t* table,                       // [capacity]
    uint32_t* __restrict__ slot,           // [candidates]
    int64_t candidates, int64_t covered, int64_t capacity, uint64_t hash_mask, int dims) {
  const int64_t id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (id >= candidates) return;
  const Key key = key_of_candidate(vertices, (uint32_t)id, (uint32_t)covered, dims);
  slot[id] = insert(table, capacity, hash(key, dims, hash_mask), (uint32_t)id, [&](uint32_t other) {
    return equal(key, key_of_candidate(vertices, other, (uint32_t)covered, dims), dims);
  });
}

extern "C" __global__ void __launch_bounds__(THREADS) crf_number_ring(
    const int32_t* __restrict__ vertices,  // [covered, dims + 1]
    const uint32_t* __restrict__ slot, const int32_t* __restrict__ first, const int32_t* __restrict__ count,
    uint64_t* table,                    // [capacity]
    int32_t* __restrict__ all,          // [vertices with the ring, dims + 1]
    int64_t candidates, int64_t covered, int dims) {
  const int64_t id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (id >= candidates || first[id] != id) return;
  const uint32_t number = (uint32_t)count[id] - 1;
  table[slot[id]] = (table[slot[id]] & UPPER) | number;
  keep_vertex(all, number, key_of_candidate(vertices, (uint32_t)id, (uint32_t)covered, dims), dims);
}

// ---- what each vertex is the sum of, and its neighbours -------------------------------------------------

// The sources of a vertex: the sums of chunks around it, or the point itself where a chunk is a single one.
extern "C" __global__ void __launch_bounds__(THREADS) crf_sources(
    const int64_t* __restrict__ order,                                    // [n]: (chunk, entry) by vertex
    const int32_t* __restrict__ vertex,                                   // [n]: of (chunk, entry), or NOBODY
    const int32_t* __restrict__ chunk,                                    // [chunks]
    const int32_t* __restrict__ partial, const int32_t* __restrict__ point,  // [chunks], [total]
    const real* __restrict__ weight,                                      // [total, dims + 1]
    int32_t* __restrict__ vertex_start,                                   // [covered + 1]
    int32_t* __restrict__ source,                                         // [n]: row of a sum, or ~point
    real* __restrict__ share,                                             // [n]: 1, or the point's weight
    int32_t* __restrict__ neighbors,                                      // [dims + 1, 2, vertices]: the latter half -1
    int64_t n, int64_t covered, int64_t all, int dims) {
  const int64_t k = (int64_t)blockIdx.x * THREADS + threadIdx.x, step = (int64_t)gridDim.x * THREADS;
  for (int64_t v = k; v < all; v += step)
    for (int axis = 0; axis <= dims; ++axis) neighbors[(2 * axis + 1) * all + v] = -1;
  if (k >= n) return;
  const int64_t at = order[k];
  const int32_t v = vertex[at];
  if (k == 0 || vertex[order[k - 1]] != v) vertex_start[v == NOBODY ? covered : v] = (int32_t)k;
  if (v == NOBODY) return;
  if (k == n - 1) vertex_start[covered] = (int32_t)n;
  const int64_t c = at / (dims + 1), r = at - c * (dims + 1);
  const bool alone = partial[c] < 0;
  const int32_t i = point[chunk[c]];
  source[k] = alone ? ~i : partial[c] * (dims + 1) + (int32_t)r;
  share[k] = alone ? weight[(int64_t)i * (dims + 1) + r] : real(1);
}

// One of the two neighbours is looked for; it has the vertex for its own other neighbour.
extern "C" __global__ void __launch_bounds__(THREADS) crf_neighbors(
    const int32_t* __restrict__ vertices,  // [all, dims + 1]
    const uint64_t* __restrict__ table,    // [capacity]
    int32_t* __restrict__ neighbors,       // [dims + 1, 2, all]
    int64_t all, int64_t capacity, uint64_t hash_mask, int dims) {
  const int64_t id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  const int64_t v = id / (dims + 1);
  if (v >= all) return;
  const int axis = (int)(id - v * (dims + 1));
  const Key key = neighbor(key_of_vertex(vertices, (uint32_t)v, dims), axis, -1, dims);
  const uint64_t hashed = hash(key, dims, hash_mask);
  int32_t found = -1;
  for (uint64_t slot = hashed & (capacity - 1); found < 0; slot = (slot + 1) & (capacity - 1)) {
    const uint64_t there = table[slot];
    if (there == EMPTY) break;
    if (((there ^ hashed) & UPPER) == 0 && equal(key, key_of_vertex(vertices, (uint32_t)there, dims), dims))
      found = (int32_t)(uint32_t)there;
  }
  neighbors[2 * axis * all + v] = found;
  if (found >= 0) neighbors[(2 * axis + 1) * all + found] = (int32_t)v;
}
