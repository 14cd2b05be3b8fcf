/* crf_pairs.cu: the exact Gaussian filter of the dense CRF: all pairs of points but those of tiles that are far apart.
 *
 * formula     r_i = sum_j k_ij v_j, k_ij = exp(-|f_i - f_j|^2 / 2); gradient sum_j (g_i.v_j + v_i.g_j) k_ij (f_j - f_i)
 * layout      features [images, axes, points]; points are ordered so that 64 consecutive ones, a tile, are close.
 *             Packed in that order: features [tiles, 64 + 2, 4 or 8], those of the points as differences from the middle of
             the tile, the median of five points, then the middle in two parts, so that a difference of near points keeps its digits; values
             [tiles, 64, pitch], zeros past what there is;
 *             boxes [images, 2 * DIM, tiles of an image]. The tiles near a tile: rows of a sparse matrix, ascending.
 * launch      pairs_axis: a block per part of the tree; pairs_box, pairs_cut, pairs_list: a warp per tile; pairs_pack:
 *             a thread per 16 bytes; pairs: tiles x chunks of 8 * TILES channels, blocks of 128 threads;
 *             pairs_feature_vjp: tiles, blocks of 256 threads, once for each 32 (float64: 16) channels
 * cost        4096 pairs of points a kept pair of tiles. pairs: each an exponential, 3 DIM + 1 flops and 2 C (on tensor
 *             cores 6 C); a block reads 64 * (4 or 8 + 8 * TILES) values a kept tile, from L2. pairs_feature_vjp: each
 *             an exponential for each launch, 6 DIM + 2 flops and 4 C
 * order       deterministic: the kept tiles in order, keys in order within; integers alone are summed by atomics
 * measured    not measured
 * hot         pairs pairs_feature_vjp
 * source      Krähenbühl & Koltun 2011 (the filter); Dao et al. 2022 (a product that never stores its matrix);
 *             Ootomo & Yokota 2022 (float32 by three TF32 products, sums kept outside the tensor cores)
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32; MMA = 1; DIM = 2 3 4 5 6 8; TILES = 1 2 3 4 6 8
 * specialise  real = float32 float64; MMA = 0; DIM = 2 3 4 5 6 8; TILES = 2 4 8
 */
#include "scalar.cuh"
#include "tf32.cuh"

constexpr int TILE = 64;
constexpr int LINES = TILE + 2;               // of packed features: the points', then the middle and what it lacks
constexpr int LANES = 32;
constexpr unsigned ALL = 0xffffffffu;
constexpr int BLOCK = 256;                    // threads of the kernels that prepare, and of the gradient
constexpr int PITCH = DIM <= 4 ? 4 : 8;       // of packed features
constexpr int WIDE = 16 / (int)sizeof(real);  // elements that move together
constexpr int CHUNK = 8 * TILES;              // channels of a block of `pairs`
constexpr int THREADS = 128;                  // of `pairs`
constexpr int RESIDENT = MMA ? 0 : 2;         // blocks of `pairs` that registers must suffice for; 0: its own choice
constexpr int BINS = 512;                     // of the squared distance of two boxes,
constexpr int PER_UNIT = 8;                   // this many for each unit of the exponent
constexpr double ROUNDED = sizeof(real) == 4 ? 1.0 - 0x1p-19 : 1.0 - 0x1p-48;  // 16 epsilon: distances err downwards

using wide = vec<real, WIDE>;

__device__ __forceinline__ int lane_id() { return threadIdx.x % LANES; }
__device__ __forceinline__ int64_t warp_id() { return ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / LANES; }

// The instruction errs by 2 ulp, its argument by half an ulp; what is below 2^-126 becomes zero.
__device__ __forceinline__ float gaussian(float squared) { return exp2_approx(squared * -0.72134752f); }
__device__ __forceinline__ double gaussian(double squared) { return exp(squared * -0.5); }

// ---- order ------------------------------------------------------------------------------------------------

// Where part `part` of a level's 1 << level parts of an image begins. Each is a whole number of tiles.
__device__ __forceinline__ int64_t part_start(int64_t tiles, int64_t part, int level, int64_t points) {
  return min((long long)((tiles * part >> level) * TILE), (long long)points);
}

// The sort keys of one level of the tree: above, the part that a point lies in; below, its place along the axis in
// which that part is widest. Sorted by them, the lower half of each part comes first.
extern "C" __global__ void __launch_bounds__(1024) pairs_axis(
    const real* __restrict__ features,   // [images, axes, points]
    const int64_t* __restrict__ order,   // [images * points], or null for as they stand
    int64_t* key,                        // [images * points]
    int64_t points, int64_t tiles, int axes, int level) {
  __shared__ real lows[32], highs[32];
  __shared__ int widest;
  const int warp = threadIdx.x / LANES, warps = blockDim.x / LANES;
  const int64_t image = blockIdx.x >> level, part = blockIdx.x & ((1 << level) - 1), base = image * points;
  const int64_t first = base + part_start(tiles, part, level, points);
  const int64_t last = base + part_start(tiles, part + 1, level, points);
  const real* own = features + base * axes - base;
  real most = real(-1);
  for (int d = 0; d < axes; ++d) {
    real low = real(0), high = real(0);
    if (first < last) low = high = own[d * points + (order ? order[first] : first)];
    for (int64_t p = first + threadIdx.x; p < last; p += blockDim.x) {
      const real x = own[d * points + (order ? order[p] : p)];
      low = min(low, x);
      high = max(high, x);
    }
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) {
      low = min(low, __shfl_xor_sync(ALL, low, step));
      high = max(high, __shfl_xor_sync(ALL, high, step));
    }
    if (lane_id() == 0) {
      lows[warp] = low;
      highs[warp] = high;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int w = 1; w < warps; ++w) {
        low = min(low, lows[w]);
        high = max(high, highs[w]);
      }
      if (d == 0 || high - low > most) {
        most = high - low;
        widest = d;
      }
    }
    __syncthreads();
  }
  for (int64_t p = first + threadIdx.x; p < last; p += blockDim.x) {
    const unsigned bits = __float_as_uint((float)own[widest * points + (order ? order[p] : p)]);
    const unsigned ascending = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
    key[p] = (int64_t)((uint64_t)blockIdx.x << 32 | ascending);
  }
}

// ---- tiles ------------------------------------------------------------------------------------------------

// Which row of an image stands at a place of a tile; the last one again past the end.
__device__ __forceinline__ int64_t row_at(const int64_t* order, int64_t image, int64_t place, int64_t points) {
  const int64_t p = image * points + (place < points ? place : points - 1);
  return order ? order[p] : p;
}

// The nearest numbers, or further out.
__device__ __forceinline__ float below(double x) { return (float)x - fabsf((float)x) * 0x1p-23f; }
__device__ __forceinline__ float above(double x) { return (float)x + fabsf((float)x) * 0x1p-23f; }

// Packs the features of a tile and finds its box, which is NaN where a feature is.
extern "C" __global__ void __launch_bounds__(BLOCK) pairs_box(
    const double* __restrict__ features,  // [images, axes, points]
    const int64_t* __restrict__ order,  // [images * points] or null
    real* packed,                       // [images * tiles, LINES, PITCH]
    real* box,                          // [images, 2 * DIM, tiles]
    int64_t all_tiles, int64_t tiles, int64_t points, int axes) {
  const int64_t tile = warp_id();
  if (tile >= all_tiles) return;
  const int64_t image = tile / tiles, place = tile % tiles * TILE + lane_id(), base = image * points;
  const int64_t rows[2] = {row_at(order, image, place, points), row_at(order, image, place + LANES, points)};
#pragma unroll
  for (int d = 0; d < PITCH; ++d) {
    double x[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) x[i] = d < axes ? features[base * axes + d * points + rows[i] - base] : 0.0;
    double low = min(x[0], x[1]), high = max(x[0], x[1]);
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) {
      low = min(low, __shfl_xor_sync(ALL, low, step));
      high = max(high, __shfl_xor_sync(ALL, high, step));
    }
    const double a = __shfl_sync(ALL, x[0], 0), b = __shfl_sync(ALL, x[0], 16), c = __shfl_sync(ALL, x[1], 0),
                 e = __shfl_sync(ALL, x[1], 16), f = __shfl_sync(ALL, x[1], 31);
    const double under = max(min(a, b), min(c, e)), over = min(max(a, b), max(c, e));
    const double middle = max(min(f, under), min(max(f, under), over));  // the median: one far off does not move it
#pragma unroll
    for (int i = 0; i < 2; ++i)
      packed[(tile * LINES + lane_id() + i * LANES) * PITCH + d] = real(x[i] - middle);
    if (lane_id() == 0) {
      packed[(tile * LINES + TILE) * PITCH + d] = real(middle);
      packed[(tile * LINES + TILE + 1) * PITCH + d] = real(middle - real(middle));
    }
    if (d >= DIM) continue;
    const bool missing = __any_sync(ALL, x[0] != x[0] || x[1] != x[1]);
    if (lane_id() == 0) {
      const real nothing = real(__int_as_float(0x7fffffff));
      const bool exact = sizeof(real) == 8;
      box[(image * 2 * DIM + d) * tiles + tile % tiles] = missing ? nothing : exact ? real(low) : real(below(low));
      box[(image * 2 * DIM + DIM + d) * tiles + tile % tiles] = missing ? nothing : exact ? real(high) : real(above(high));
    }
  }
}

struct Box {
  real low[DIM], high[DIM];
};

__device__ __forceinline__ Box load_box(const real* box, int64_t tiles, int64_t tile) {
  Box b;
#pragma unroll
  for (int d = 0; d < DIM; ++d) {
    b.low[d] = box[d * tiles + tile];
    b.high[d] = box[(DIM + d) * tiles + tile];
  }
  return b;
}

// How far apart two boxes are, as a bin of half the squared distance. Every operation is spelled out, so that the
// kernel that counts and the kernel that lists agree to the last bit. NaN is near.
__device__ __forceinline__ int bin_of(const Box& a, const Box& b) {
  real sum = real(0);
#pragma unroll
  for (int d = 0; d < DIM; ++d) {
    const real right = b.low[d] - a.high[d], left = a.low[d] - b.high[d];
    const real apart = right > left ? right : left, gap = apart < real(0) ? real(0) : apart;
    sum = fma(gap, gap, sum);
  }
  const real place = sum * real(0.5 * PER_UNIT * ROUNDED);
  if (place < real(BINS - 1)) return (int)place;
  return place == place ? BINS - 1 : 0;
}

// The bins from cut[i] on may be left out for tile i: together their keys weigh no more than the tolerance.
extern "C" __global__ void __launch_bounds__(BLOCK) pairs_cut(
    const real* __restrict__ box,       // [images, 2 * DIM, tiles]
    const double* __restrict__ weight,  // [BINS]: the most that a tile in a bin can weigh
    int32_t* cut,                       // [images * tiles]
    int64_t* kept,                      // [images * tiles]: how many tiles are kept
    int64_t all_tiles, int64_t tiles, double tolerance) {
  __shared__ int histograms[BLOCK / LANES][BINS];
  const int lane = lane_id();
  const int64_t tile = warp_id();
  if (tile >= all_tiles) return;
  int* histogram = histograms[threadIdx.x / LANES];
  for (int b = lane; b < BINS; b += LANES) histogram[b] = 0;
  __syncwarp();
  const real* boxes = box + tile / tiles * 2 * DIM * tiles;
  const Box own = load_box(boxes, tiles, tile % tiles);
  int far = 0;  // most of the tiles are in the last bin, where the atomics would queue
  for (int64_t j = lane; j < tiles; j += LANES) {
    const int bin = bin_of(own, load_box(boxes, tiles, j));
    if (bin == BINS - 1)
      ++far;
    else
      atomicAdd(&histogram[bin], 1);
  }
  atomicAdd(&histogram[BINS - 1], far);
  __syncwarp();

  constexpr int OWN = BINS / LANES;
  double total = 0.0;
  for (int b = lane * OWN; b < (lane + 1) * OWN; ++b) total += histogram[b] * weight[b];
  double beyond = total;  // of this lane's bins and all later ones
  for (int step = 1; step < LANES; step *= 2) {
    const double later = __shfl_down_sync(ALL, beyond, step);
    if (lane + step < LANES) beyond += later;
  }
  beyond = __shfl_down_sync(ALL, beyond, 1);
  if (lane == LANES - 1) beyond = 0.0;
  int first = BINS;
  for (int b = (lane + 1) * OWN - 1; b >= lane * OWN; --b) {
    beyond += histogram[b] * weight[b];
    if (beyond <= tolerance) first = b;
  }
  for (int step = LANES / 2; step > 0; step /= 2) first = min(first, __shfl_xor_sync(ALL, first, step));
  int near = 0;
  for (int b = lane; b < first; b += LANES) near += histogram[b];
  for (int step = LANES / 2; step > 0; step /= 2) near += __shfl_xor_sync(ALL, near, step);
  if (lane == 0) {
    cut[tile] = first;
    kept[tile] = near;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK) pairs_list(
    const real* __restrict__ box,
    const int32_t* __restrict__ cut,
    const int64_t* __restrict__ start,  // [images * tiles + 1]
    int32_t* near,                      // [start[images * tiles]]: numbers of tiles within the image
    int64_t all_tiles, int64_t tiles) {
  const int lane = lane_id();
  const int64_t tile = warp_id();
  if (tile >= all_tiles) return;
  const real* boxes = box + tile / tiles * 2 * DIM * tiles;
  const Box own = load_box(boxes, tiles, tile % tiles);
  const int limit = cut[tile];
  int64_t at = start[tile];
  for (int64_t chunk = 0; chunk < tiles; chunk += LANES) {
    const int64_t j = chunk + lane;
    const bool found = j < tiles && bin_of(own, load_box(boxes, tiles, j)) < limit;
    const unsigned all = __ballot_sync(ALL, found);
    if (found) near[at + __popc(all & ((1u << lane) - 1))] = (int32_t)j;
    at += __popc(all);
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK) pairs_pack(
    const real* __restrict__ values,    // [images * points, channels]
    const int64_t* __restrict__ order,  // [images * points] or null
    real* packed,                       // [images * tiles, 64, pitch]
    int64_t all_tiles, int64_t tiles, int64_t points, int channels, int pitch) {
  const int64_t e = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  const int pieces = pitch / WIDE;
  const int64_t line = e / pieces;
  if (line >= all_tiles * TILE) return;
  const int c = (int)(e % pieces) * WIDE;
  const int64_t image = line / TILE / tiles, place = line - image * tiles * TILE;
  wide v;
#pragma unroll
  for (int i = 0; i < WIDE; ++i) v.v[i] = real(0);
  if (place < points) {
    const int64_t row = row_at(order, image, place, points);
#pragma unroll
    for (int i = 0; i < WIDE; ++i)
      if (c + i < channels) v.v[i] = values[row * channels + c + i];
  }
  *(wide*)&packed[line * pitch + c] = v;
}

// ---- the filter -------------------------------------------------------------------------------------------

// What a block needs to know of its tile of queries and of the tiles of keys near it.
struct Near {
  int64_t tile, first_tile, first, last;  // its own, the first one of its image, its part of the list
};

// What a thread has summed goes to the result every SPAN tiles of keys: long sums of small numbers lose digits.
template <class T, int N> __device__ __forceinline__ void put(T* to, const vec<T, N>& sum, bool first) {
  vec<T, N> all = sum;
  if (!first) {
    const vec<T, N> before = *(const vec<T, N>*)to;
#pragma unroll
    for (int i = 0; i < N; ++i) all.v[i] += before.v[i];
  }
  *(vec<T, N>*)to = all;
}

__device__ __forceinline__ Near near_of(const int64_t* start, const int64_t* rank, int64_t tiles) {
  const int64_t tile = rank[blockIdx.x];
  return {tile, tile / tiles * tiles, start[tile], start[tile + 1]};
}

__device__ __forceinline__ real squared(const real (&a)[DIM], const real (&b)[DIM]) {
  real sum = real(0);
#pragma unroll
  for (int d = 0; d < DIM; ++d) sum += (a[d] - b[d]) * (a[d] - b[d]);
  return sum;
}

// A point's features out of shared memory.
__device__ __forceinline__ void load_point(const real* at, real (&f)[DIM]) {
  alignas(16) real all[PITCH];
#pragma unroll
  for (int i = 0; i < (DIM / WIDE) * WIDE; i += WIDE) *(wide*)&all[i] = *(const wide*)&at[i];
#pragma unroll
  for (int d = (DIM / WIDE) * WIDE; d < DIM; ++d) all[d] = at[d];
#pragma unroll
  for (int d = 0; d < DIM; ++d) f[d] = all[d];
}

// How far the middle of a tile of queries lies from that of a tile of keys; both point at the lines of the middles.
__device__ __forceinline__ void load_shift(const real* query, const real* key, real (&shift)[DIM]) {
  real q[2][DIM], k[2][DIM];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    load_point(query + i * PITCH, q[i]);
    load_point(key + i * PITCH, k[i]);
  }
#pragma unroll
  for (int d = 0; d < DIM; ++d) shift[d] = (q[0][d] - k[0][d]) + (q[1][d] - k[1][d]);
}

#if defined(CV3_HOST) || __CUDA_ARCH__ >= 800

// sum += k v over 16 keys for N tiles of 16 x 8: low parts first, and from zero, because the unit cuts each sum off
// where an addition outside rounds it. The tiles take turns, as a product waits for the one whose sum it adds to.
template <int N>
__device__ __forceinline__ void add_products(float (*sum)[4], const unsigned (&high)[2][4], const unsigned (&low)[2][4],
                                             const vec<float, N> (&v)[4]) {
  unsigned vh[N][2][2], vl[N][2][2];
  float part[N][4] = {};
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) split(v[i].v[n], vh[n][i / 2][i % 2], vl[n][i / 2][i % 2]);
#pragma unroll
  for (int s = 0; s < 2; ++s) {
#pragma unroll
    for (int n = 0; n < N; ++n) mma_m16n8k8_tf32(part[n], low[s], vh[n][s], part[n]);
#pragma unroll
    for (int n = 0; n < N; ++n) mma_m16n8k8_tf32(part[n], high[s], vl[n][s], part[n]);
  }
#pragma unroll
  for (int s = 0; s < 2; ++s)
#pragma unroll
    for (int n = 0; n < N; ++n) mma_m16n8k8_tf32(part[n], high[s], vh[n][s], part[n]);
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[n][e] += part[n][e];
}

// A warp owns 16 queries. Its lane computes the weights of queries g and g + 8 for keys t and t + 4 of every 8, which
// is where the unit wants its left operand. Channels 2 g and 2 g + 1 of 16 are the columns g of two tiles, so that a
// lane reads two at once and ends with four consecutive channels.
template <class T> struct OnTensorCores {
  static constexpr int VALUES = CHUNK % 16 == 8 ? CHUNK : CHUNK + 8;  // pitch: rows t shift by a quarter of the banks
  static constexpr int STAGE = TILE * VALUES + LINES * PITCH;
  static constexpr int SPAN = 16;

  __device__ static __forceinline__ void run(
      T* stages, const T* features, const T* values, const int64_t* order, const Near& near, const int32_t* list,
      T* result, int64_t points, int64_t tiles, int channels, int pitch) {
    const int thread = threadIdx.x, warp = thread / LANES, g = lane_id() / 4, t = lane_id() % 4;
    const int first_channel = blockIdx.y * CHUNK;
    auto fetch = [&](int slot, int key_tile) {
      T* to = stages + slot * STAGE;
      const T* from = values + (near.first_tile + key_tile) * TILE * pitch + first_channel;
#pragma unroll
      for (int i = 0; i < 2 * TILES * TILE / THREADS; ++i) {
        const int piece = thread + i * THREADS, row = piece / (2 * TILES), c = piece % (2 * TILES) * 4;
        cp_async16(&to[row * VALUES + c], &from[(int64_t)row * pitch + c], true);
      }
      const T* points_from = features + (near.first_tile + key_tile) * LINES * PITCH;
      for (int at = 4 * thread; at < LINES * PITCH; at += 4 * THREADS)
        cp_async16(&to[TILE * VALUES + at], &points_from[at], true);
      cp_async_commit();
    };

    const T* own = features + near.tile * LINES * PITCH;
    if (near.first < near.last) fetch(0, list[near.first]);
    int upcoming = near.first + 1 < near.last ? list[near.first + 1] : 0;
    int64_t e = near.first;
    do {
      const bool fresh = e == near.first;
      const int64_t end = min((long long)(e + SPAN), (long long)near.last);
      float sum[TILES][4] = {};
      for (; e < end; ++e) {
        const int slot = (int)(e - near.first) & 1;
        cp_async_wait<0>();
        __syncthreads();  // this tile has landed for every thread, and everyone is done with the other slot
        if (e + 1 < near.last) fetch(slot ^ 1, upcoming);
        if (e + 2 < near.last) upcoming = list[e + 2];
        const T* value = stages + slot * STAGE;
        const T* keys = value + TILE * VALUES;
        T query[2][DIM], shift[DIM];  // from the middle of the keys' tile
        load_shift(own + TILE * PITCH, keys + TILE * PITCH, shift);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          load_point(&own[(warp * 16 + g + 8 * i) * PITCH], query[i]);
#pragma unroll
          for (int d = 0; d < DIM; ++d) query[i][d] += shift[d];
        }
#pragma unroll 1
        for (int key = t; key < TILE; key += 16) {
          unsigned high[2][4], low[2][4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            T f[DIM];
            load_point(&keys[(key + 4 * i) * PITCH], f);
#pragma unroll
            for (int q = 0; q < 2; ++q)
              split(gaussian(squared(query[q], f)), high[i / 2][i % 2 * 2 + q], low[i / 2][i % 2 * 2 + q]);
          }
#pragma unroll
          for (int j = 0; j + 1 < TILES; j += 2) {
            vec<float, 2> v[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) v[i] = *(const vec<float, 2>*)&value[(key + 4 * i) * VALUES + 8 * j + 2 * g];
            add_products(&sum[j], high, low, v);
          }
          if constexpr (TILES % 2) {
            vec<float, 1> v[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) v[i].v[0] = value[(key + 4 * i) * VALUES + 8 * (TILES - 1) + g];
            add_products(&sum[TILES - 1], high, low, v);
          }
        }
      }

#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const int64_t image = near.tile / tiles, place = near.tile % tiles * TILE + warp * 16 + g + 8 * q;
        if (place >= points) continue;
        T* to = result + row_at(order, image, place, points) * channels + first_channel;
#pragma unroll
        for (int j = 0; j + 1 < TILES; j += 2) {
          const int c = 8 * j + 4 * t;
          const vec<T, 4> four = {sum[j][2 * q], sum[j + 1][2 * q], sum[j][2 * q + 1], sum[j + 1][2 * q + 1]};
          if (first_channel + c < channels) put(&to[c], four, fresh);
        }
        if constexpr (TILES % 2) {
          const int c = 8 * (TILES - 1) + 2 * t;
          const vec<T, 2> two = {sum[TILES - 1][2 * q], sum[TILES - 1][2 * q + 1]};
          if (first_channel + c < channels) put(&to[c], two, fresh);
        }
      }
    } while (e < near.last);
  }
};

#else

// sm_75 has no TF32: the launcher asks for MMA = 0 there.
template <class T> struct OnTensorCores {
  static __device__ void run(T*, const T*, const T*, const int64_t*, const Near&, const int32_t*, T*, int64_t, int64_t,
                             int, int) {
    __trap();
  }
};

#endif

// The same by ordinary multiply-adds, in half tiles of keys: the weights of 32 keys go through shared memory, then each
// thread adds up TILES queries x 4 channels.
template <class T> struct OnCores {
  static constexpr int HALF = TILE / 2;
  static constexpr int QUERIES = TILES;
  static constexpr int TOGETHER = QUERIES < WIDE ? QUERIES : WIDE;
  static constexpr int SPAN = 4;

  __device__ static __forceinline__ void run(
      const T* features, const T* values, const int64_t* order, const Near& near, const int32_t* list, T* result,
      int64_t points, int64_t tiles, int channels, int pitch) {
    __shared__ __align__(16) T value[HALF * CHUNK];
    __shared__ __align__(16) T keys[HALF * PITCH];
    __shared__ __align__(16) T weight[HALF * TILE];
    const int thread = threadIdx.x, first_channel = blockIdx.y * CHUNK;
    const int quad = thread % (CHUNK / 4) * 4, first_query = thread / (CHUNK / 4) * QUERIES;
    const T* own = features + near.tile * LINES * PITCH;
    int64_t half = 2 * near.first;
    do {
      const bool fresh = half == 2 * near.first;
      const int64_t end = min((long long)(half + 2 * SPAN), 2 * (long long)near.last);
      T sum[QUERIES][4] = {};
      for (; half < end; ++half) {
        const int64_t key_tile = near.first_tile + list[half / 2], row = key_tile * TILE + half % 2 * HALF;
        const T* there = features + key_tile * LINES * PITCH;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < HALF * CHUNK / WIDE / THREADS; ++i) {
          const int at = (thread + i * THREADS) * WIDE, r = at / CHUNK, c = at % CHUNK;
          *(wide*)&value[at] = *(const wide*)&values[(row + r) * pitch + first_channel + c];
        }
        for (int at = thread * WIDE; at < HALF * PITCH; at += THREADS * WIDE)
          *(wide*)&keys[at] = *(const wide*)&there[half % 2 * HALF * PITCH + at];
        T query[DIM], shift[DIM];  // from the middle of the keys' tile
        load_shift(own + TILE * PITCH, there + TILE * PITCH, shift);
        load_point(&own[thread % TILE * PITCH], query);
#pragma unroll
        for (int d = 0; d < DIM; ++d) query[d] += shift[d];
        __syncthreads();
        for (int key = thread / TILE; key < HALF; key += THREADS / TILE) {
          T f[DIM];
          load_point(&keys[key * PITCH], f);
          weight[key * TILE + thread % TILE] = gaussian(squared(query, f));
        }
        __syncthreads();
#pragma unroll 4
        for (int key = 0; key < HALF; ++key) {
          wide v[4 / WIDE];
#pragma unroll
          for (int i = 0; i < 4 / WIDE; ++i) v[i] = *(const wide*)&value[key * CHUNK + quad + i * WIDE];
#pragma unroll
          for (int first = 0; first < QUERIES; first += TOGETHER) {
            const auto k = *(const vec<T, TOGETHER>*)&weight[key * TILE + first_query + first];
#pragma unroll
            for (int q = 0; q < TOGETHER; ++q)
#pragma unroll
              for (int c = 0; c < 4; ++c) sum[first + q][c] += k.v[q] * v[c / WIDE].v[c % WIDE];
          }
        }
      }
#pragma unroll
      for (int q = 0; q < QUERIES; ++q) {
        const int64_t place = near.tile % tiles * TILE + first_query + q;
        if (place >= points || first_channel + quad >= channels) continue;
        T* to = result + row_at(order, near.tile / tiles, place, points) * channels + first_channel + quad;
#pragma unroll
        for (int c = 0; c < 4; c += WIDE) {
          wide part;
#pragma unroll
          for (int i = 0; i < WIDE; ++i) part.v[i] = sum[q][c + i];
          put(&to[c], part, fresh);
        }
      }
    } while (half < 2 * near.last);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) pairs(
    const real* __restrict__ features,  // [images * tiles, LINES, PITCH]
    const real* __restrict__ values,    // [images * tiles, 64, pitch]
    const int64_t* __restrict__ order,  // [images * points] or null
    const int64_t* __restrict__ start,  // [images * tiles + 1]
    const int32_t* __restrict__ list,
    const int64_t* __restrict__ rank,   // [images * tiles]: the tile of each block, those with most work first
    real* __restrict__ result,          // [images * points, channels]
    int64_t points, int64_t tiles, int channels, int pitch) {
  extern __shared__ __align__(16) unsigned char shared[];
  const Near near = near_of(start, rank, tiles);
  if constexpr (MMA) {
    OnTensorCores<real>::run((real*)shared, features, values, order, near, list, result, points, tiles, channels,
                             pitch);
  } else {
    OnCores<real>::run(features, values, order, near, list, result, points, tiles, channels, pitch);
  }
}

// ---- the gradient with respect to the features --------------------------------------------------------------

constexpr int PART = 128 / (int)sizeof(real);  // channels of a launch
constexpr int RESIDENT_VJP = sizeof(real) == 4 && DIM < 8 ? 2 : 1;
constexpr int LINE = PART + WIDE;              // pitch: 16 rows that are read together lie in different banks

// 16 x 16 threads, each 4 queries x 4 keys. The launches over parts of the channels add to the result in order.
extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT_VJP) pairs_feature_vjp(
    const real* __restrict__ features,  // [images * tiles, LINES, PITCH]
    const real* __restrict__ values,    // [images * tiles, 64, pitch]
    const real* __restrict__ grads,     // [images * tiles, 64, pitch]
    const int64_t* __restrict__ order,  // [images * points] or null
    const int64_t* __restrict__ start,
    const int32_t* __restrict__ list,
    const int64_t* __restrict__ rank,
    real* result,                       // [images, axes, points]
    int64_t points, int64_t tiles, int axes, int pitch, int first_channel) {
  __shared__ __align__(16) real shared[4][TILE * LINE];  // values and gradients of queries, the same of keys
  __shared__ __align__(16) real point[2][TILE * PITCH];
  const Near near = near_of(start, rank, tiles);
  const real* own = features + near.tile * LINES * PITCH;
  const int thread = threadIdx.x, x = thread % 16, y = thread / 16;
  const int used = min(PART, pitch - first_channel);
  auto fetch = [&](int side, int64_t tile) {
    const int c = thread % (PART / WIDE) * WIDE;
    if (c < used) {
#pragma unroll
      for (int row = thread / (PART / WIDE); row < TILE; row += BLOCK * WIDE / PART) {
        const int64_t from = (tile * TILE + row) * pitch + first_channel + c;
        *(wide*)&shared[2 * side][row * LINE + c] = *(const wide*)&values[from];
        *(wide*)&shared[2 * side + 1][row * LINE + c] = *(const wide*)&grads[from];
      }
    }
    const real* there = features + tile * LINES * PITCH;
    for (int at = thread * WIDE; at < TILE * PITCH; at += BLOCK * WIDE) {
      wide f = *(const wide*)&there[at];
      const int line = TILE * PITCH + at % PITCH;
#pragma unroll
      for (int i = 0; i < WIDE; ++i)  // keys as differences from the middle of the queries' tile
        f.v[i] -= (own[line + i] - there[line + i]) + (own[line + PITCH + i] - there[line + PITCH + i]);
      *(wide*)&point[side][at] = f;
    }
  };
  fetch(0, near.tile);
  real pull[4][DIM] = {};
  for (int64_t e = near.first; e < near.last; ++e) {
    __syncthreads();
    fetch(1, near.first_tile + list[e]);
    __syncthreads();
    real product[4][4] = {};
#pragma unroll 1
    for (int c = 0; c < used; c += WIDE) {
      wide v[4], g[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        v[i] = *(const wide*)&shared[0][(y + 16 * i) * LINE + c];
        g[i] = *(const wide*)&shared[1][(y + 16 * i) * LINE + c];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const wide key_v = *(const wide*)&shared[2][(x + 16 * j) * LINE + c];
        const wide key_g = *(const wide*)&shared[3][(x + 16 * j) * LINE + c];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int w = 0; w < WIDE; ++w) {
            product[i][j] += g[i].v[w] * key_v.v[w];
            product[i][j] += v[i].v[w] * key_g.v[w];
          }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      real query[DIM];
      load_point(&point[0][(y + 16 * i) * PITCH], query);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        real key[DIM];
        load_point(&point[1][(x + 16 * j) * PITCH], key);
        const real weight = product[i][j] * gaussian(squared(query, key));
#pragma unroll
        for (int d = 0; d < DIM; ++d) pull[i][d] += weight * (key[d] - query[d]);
      }
    }
  }
  const int64_t image = near.tile / tiles;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t place = near.tile % tiles * TILE + y + 16 * i;
#pragma unroll
    for (int d = 0; d < DIM; ++d) {
#pragma unroll
      for (int step = 8; step > 0; step /= 2) pull[i][d] += __shfl_xor_sync(ALL, pull[i][d], step);
      if (x == 0 && place < points && d < axes) {
        const int64_t row = row_at(order, image, place, points) - image * points;
        real& to = result[(image * axes + d) * points + row];
        to = first_channel ? to + pull[i][d] : pull[i][d];
      }
    }
  }
}
