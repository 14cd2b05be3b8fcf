/* ncut.cu: the normalised cut of every threshold of a vector over the vertices of a graph, and the best one.
 *
 * formula     vertices by ascending value; d(v) = sum of w to higher ranks - sum of w to lower ranks; cut(t) = sum of d up
 *             to rank t, vol(t) = sum of degrees up to rank t; ncut(t) = cut / vol + cut / (vol(all) - vol(t)), least over
 *             the t with x[t] < x[t + 1] and `least` vertices on both sides
 * layout      order [B, N] int64 sorts x [B, N]; rank [B, N]; terms [B, 3, N] by rank: d in two doubles, degree.
 *             ncut_grid: half stencils [B, K, H W] as in affinity.cu. ncut_rows: a matrix by rows, B = 1
 * launch      ncut_rank, ncut_grid or ncut_rows, ncut_sums, ncut_offsets (a block an image), ncut_best, ncut_pick (a
 *             block an image). A thread a vertex, a warp a row in ncut_rows; tiles of TILE ranks; grid.y the images
 * cost        bytes a vertex: weights K sizeof(real) (each is read twice, the second time from L2), ranks 4 (2 K + 1) from
 *             L1 and L2, order, x and ranks 24 + 2 sizeof(real), terms 72. flops 22 a weight and direction. 512 x 512,
 *             K = 34, float32: 36 MB of weights, 25 MB of the rest, 0.4 GFLOP of doubles: 18 us at 3.35 TB/s, 12 us at 34
 *             TFLOP/s. Six launches; the sort is the array library's
 * order       sums of two doubles (about 106 digits) in a fixed order, no atomics: the same bits from run to run. Of equal
 *             cuts the lowest rank wins
 * measured    not measured
 * hot         ncut_grid
 * source      Shi and Malik, PAMI 2000, section 3; sums: T. J. Dekker, A floating-point technique for extending the
 *             available precision, 1971
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64
 */

constexpr unsigned ALL = 0xffffffffu;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int EACH = 4;               // ranks of a thread
constexpr int TILE = THREADS * EACH;
constexpr double NONE = 1e300;        // above every cut

// ---- sums in two numbers --------------------------------------------------------------------------------

struct Sum { double high, low; };

__device__ __forceinline__ Sum two_sum(double a, double b) {
  const double total = a + b, back = total - a;
  return {total, (a - (total - back)) + (b - back)};
}

__device__ __forceinline__ Sum add(Sum a, Sum b) {
  Sum s = two_sum(a.high, b.high);
  s.low += a.low + b.low;
  const double total = s.high + s.low;
  return {total, s.low - (total - s.high)};
}

__device__ __forceinline__ Sum add(Sum a, double b) { return add(a, Sum{b, 0.0}); }

struct Both { Sum cut, volume; };

__device__ __forceinline__ Both add(Both a, Both b) { return {add(a.cut, b.cut), add(a.volume, b.volume)}; }

__device__ __forceinline__ Sum shuffled_up(Sum s, int by) {
  return {__shfl_up_sync(ALL, s.high, by), __shfl_up_sync(ALL, s.low, by)};
}

__device__ __forceinline__ Both shuffled_up(Both s, int by) {
  return {shuffled_up(s.cut, by), shuffled_up(s.volume, by)};
}

// The sum over the threads before this one; `whole` is that over all of the block.
__device__ __forceinline__ Both block_before(Both v, Both* shared, Both& whole) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Both upto = v;
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const Both other = shuffled_up(upto, by);
    if (lane >= by) upto = add(other, upto);
  }
  __syncthreads();
  if (lane == 31) shared[warp] = upto;
  __syncthreads();
  Both base = {}, total = {};
  for (int w = 0; w < WARPS; ++w) {
    if (w == warp) base = total;
    total = add(total, shared[w]);
  }
  whole = total;
  const Both before = shuffled_up(upto, 1);
  return lane == 0 ? base : add(base, before);
}

// ---- a threshold's candidates ---------------------------------------------------------------------------

struct Cut { double value; int64_t place; };

__device__ __forceinline__ Cut better(Cut a, Cut b) {
  return b.value < a.value || (b.value == a.value && b.place < a.place) ? b : a;
}

__device__ __forceinline__ Cut block_best(Cut c, Cut* shared) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2)
    c = better(c, Cut{__shfl_xor_sync(ALL, c.value, by), __shfl_xor_sync(ALL, c.place, by)});
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = c;
  __syncthreads();
  for (int w = 0; w < WARPS; ++w) c = better(c, shared[w]);
  return c;
}

// ---- what vertices add ----------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS) ncut_rank(
    const int64_t* __restrict__ order,  // [B, N]
    int32_t* __restrict__ rank,         // [B, N]
    int64_t n) {
  const int64_t t = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (t < n) rank[blockIdx.y * n + order[blockIdx.y * n + t]] = (int32_t)t;
}

extern "C" __global__ void __launch_bounds__(THREADS) ncut_grid(
    const real* __restrict__ weight,   // [B, K, H W], images and planes so far apart
    const int* __restrict__ offsets,   // [K, 2]
    const int32_t* __restrict__ rank,  // [B, N]
    double* __restrict__ terms,        // [B, 3, N]
    int height, int width, int count, int64_t image, int64_t plane, double self) {
  const int64_t p = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  const int64_t n = (int64_t)height * width;
  if (p >= n) return;
  const int y = (int)(p / width), x = (int)(p % width);
  const int32_t* at = rank + blockIdx.y * n + p;
  const real* w = weight + blockIdx.y * image + p;
  const int32_t own = at[0];
  Sum more = {0.0, 0.0};
  double degree = self;
  for (int k = 0; k < count; ++k, w += plane) {
    const int dy = offsets[2 * k], dx = offsets[2 * k + 1];
    const int64_t away = (int64_t)dy * width + dx;
    if (y + dy < height && x + dx >= 0 && x + dx < width) {
      const double v = (double)w[0];
      degree += v;
      more = add(more, at[away] > own ? v : -v);
    }
    if (y >= dy && x - dx >= 0 && x - dx < width) {
      const double v = (double)w[-away];
      degree += v;
      more = add(more, at[-away] > own ? v : -v);
    }
  }
  double* out = terms + (int64_t)blockIdx.y * 3 * n + own;
  out[0] = more.high;
  out[n] = more.low;
  out[2 * n] = degree;
}

extern "C" __global__ void __launch_bounds__(THREADS) ncut_rows(
    const int64_t* __restrict__ start, const int64_t* __restrict__ index, const real* __restrict__ data,
    const int32_t* __restrict__ rank,  // [N]
    double* __restrict__ terms,        // [3, N]
    int64_t n) {
  const int64_t row = ((int64_t)blockIdx.x * THREADS + threadIdx.x) / 32;
  if (row >= n) return;
  const int lane = threadIdx.x % 32;
  const int32_t own = rank[row];
  Sum more = {0.0, 0.0};
  double degree = 0.0;
  for (int64_t k = start[row] + lane; k < start[row + 1]; k += 32) {
    const double v = (double)data[k];
    const int32_t other = rank[index[k]];
    degree += v;
    if (other != own) more = add(more, other > own ? v : -v);
  }
#pragma unroll
  for (int by = 16; by > 0; by /= 2) {
    more = add(more, {__shfl_xor_sync(ALL, more.high, by), __shfl_xor_sync(ALL, more.low, by)});
    degree += __shfl_xor_sync(ALL, degree, by);
  }
  if (lane > 0) return;
  terms[own] = more.high;
  terms[n + own] = more.low;
  terms[2 * n + own] = degree;
}

// ---- all thresholds -------------------------------------------------------------------------------------

__device__ __forceinline__ Both term(const double* terms, int64_t n, int64_t t) {
  if (t >= n) return {};
  return {{terms[t], terms[n + t]}, {terms[2 * n + t], 0.0}};
}

extern "C" __global__ void __launch_bounds__(THREADS) ncut_sums(
    const double* __restrict__ terms,  // [B, 3, N]
    double* __restrict__ part,         // [B, tiles + 1, 4]: sums of a tile
    int64_t n) {
  __shared__ Both shared[WARPS];
  const double* of = terms + (int64_t)blockIdx.y * 3 * n;
  const int64_t first = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
  Both own = {}, whole;
#pragma unroll
  for (int e = 0; e < EACH; ++e) own = add(own, term(of, n, first + e));
  block_before(own, shared, whole);
  if (threadIdx.x > 0) return;
  double* out = part + 4 * ((int64_t)blockIdx.y * (gridDim.x + 1) + blockIdx.x);
  out[0] = whole.cut.high;
  out[1] = whole.cut.low;
  out[2] = whole.volume.high;
  out[3] = whole.volume.low;
}

extern "C" __global__ void __launch_bounds__(THREADS) ncut_offsets(
    double* __restrict__ part,  // [B, tiles + 1, 4]: sums of a tile; afterwards of those before it, and of all
    int tiles) {
  __shared__ Both shared[WARPS];
  double* of = part + 4 * (int64_t)blockIdx.x * (tiles + 1);
  Both base = {};
  for (int first = 0; first <= tiles; first += THREADS) {
    const int i = first + threadIdx.x;
    Both own = {}, whole;
    if (i < tiles) own = {{of[4 * i], of[4 * i + 1]}, {of[4 * i + 2], of[4 * i + 3]}};
    const Both before = add(base, block_before(own, shared, whole));
    if (i <= tiles) {
      of[4 * i] = before.cut.high;
      of[4 * i + 1] = before.cut.low;
      of[4 * i + 2] = before.volume.high;
      of[4 * i + 3] = before.volume.low;
    }
    base = add(base, whole);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) ncut_best(
    const double* __restrict__ terms,   // [B, 3, N]
    const double* __restrict__ part,    // [B, tiles + 1, 4]
    const int64_t* __restrict__ order,  // [B, N]
    const real* __restrict__ x,         // [B, N]
    double* __restrict__ value, int64_t* __restrict__ place,  // [B, tiles]
    int64_t n, int64_t least) {
  __shared__ Both shared[WARPS];
  __shared__ Cut cuts[WARPS];
  const double* of = terms + (int64_t)blockIdx.y * 3 * n;
  const double* base = part + 4 * ((int64_t)blockIdx.y * (gridDim.x + 1) + blockIdx.x);
  const double* last = part + 4 * ((int64_t)blockIdx.y * (gridDim.x + 1) + gridDim.x);
  const int64_t* sorted = order + blockIdx.y * n;
  const real* values = x + blockIdx.y * n;
  const int64_t first = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
  Both own[EACH], sum = {}, whole;
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    own[e] = term(of, n, first + e);
    sum = add(sum, own[e]);
  }
  const Sum all = {last[2], last[3]};
  Both upto = add(Both{{base[0], base[1]}, {base[2], base[3]}}, block_before(sum, shared, whole));
  Cut best = {NONE, n};
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    const int64_t t = first + e;
    upto = add(upto, own[e]);
    if (t + 1 < least || t + 1 >= n || n - t - 1 < least) continue;
    if (!(values[sorted[t]] < values[sorted[t + 1]])) continue;
    const double cut = upto.cut.high, below = upto.volume.high;
    const double above = add(all, Sum{-upto.volume.high, -upto.volume.low}).high;
    const bool positive = cut > 0 && below > 0 && above > 0;
    best = better(best, Cut{positive ? cut / below + cut / above : 0.0, t});
  }
  best = block_best(best, cuts);
  if (threadIdx.x > 0) return;
  value[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = best.value;
  place[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = best.place;
}

extern "C" __global__ void __launch_bounds__(THREADS) ncut_pick(
    const double* __restrict__ value, const int64_t* __restrict__ place,  // [B, tiles]
    const int64_t* __restrict__ order,  // [B, N]
    const real* __restrict__ x,         // [B, N]
    double* __restrict__ found,         // [B, 2]: threshold and normalised cut; nan and inf where there is none
    int64_t n, int tiles) {
  __shared__ Cut shared[WARPS];
  const int64_t b = blockIdx.x;
  Cut best = {NONE, n};
  for (int i = threadIdx.x; i < tiles; i += THREADS) best = better(best, Cut{value[b * tiles + i], place[b * tiles + i]});
  best = block_best(best, shared);
  if (threadIdx.x > 0) return;
  const bool there = best.place < n;
  found[2 * b] = there ? (double)x[b * n + order[b * n + best.place]] : __longlong_as_double(0x7ff8000000000000ll);
  found[2 * b + 1] = there ? best.value : __longlong_as_double(0x7ff0000000000000ll);
}
