/* eigen_multigrid.cu: a multigrid for (D - W) z = r on a pixel grid: interpolation along weights, Galerkin's coarser
 *             stencils, and what a cycle does beside the products of affinity_product.cu.
 *
 * formula     the coarse points are every third pixel, and P_pI is the weight between p and I over the sum of p's weights
 *             to coarse points, so that no value crosses an edge of the image; the coarse operator is P^T A P: a stencil as
 *             far as the one before. A = diagonal - W on every level
 * layout      a level's weights are half stencils [K, plane], with the table of affinity_product.cu; share [S S, N] is P, its
 *             slots from the first coarse point at y - reach, x - reach on; image [T T, N] is A P, from y - 2 reach,
 *             x - 2 reach on; blocks [N, b] in float32, b a multiple of 4
 * launch      a thread a pixel (grid.y: slots) or a coarse point (grid.y: offsets); of blocks a thread 4 numbers
 * cost        512 x 512, reach 4, once: 36 entries of A P a pixel, 17 terms each, 38 MB; 41 x 81 terms a coarse point: about
 *             0.3 ms, predicted. A cycle of 16 columns: 4 products and 17 MB 14 times on the finest level, about 0.2 ms,
 *             and an eighth of that below it, where launches cost more than work: 14 a level
 * order       every sum by rows and columns, by one thread; no atomics: the same bits from run to run
 * measured    not measured
 * source      P. Arbelaez, J. Pont-Tuset, J. Barron et al., Multiscale combinatorial grouping, 2014 (interpolation); U.
 *             Trottenberg, C. Oosterlee, A. Schueller, Multigrid, 2001
 * arch        75 80 86 89 90 100 120
 */
#include "scalar.cuh"

constexpr int BLOCK = 256;
constexpr int EVERY = 3;  // pixels from one coarse point to the next
using piece = vec<float, 4>;

// The first coarse point at x or after it.
__device__ __forceinline__ int above(int x) { return x > 0 ? (x + EVERY - 1) / EVERY : -(-x / EVERY); }

// The weight of the edge from (y, x) by (dy, dx), which is not (0, 0); both ends lie in the image.
__device__ __forceinline__ float edge(const float* weight, const int* table, int reach, int64_t plane, int width, int y,
                                      int x, int dy, int dx) {
  if (abs(dx) > reach || abs(dy) > table[abs(dx)]) return 0;
  const bool ahead = dy > 0 || (dy == 0 && dx > 0);
  const int k = table[reach + 1 + abs(dy)] + (ahead ? dx : -dx);
  const int64_t from = ahead ? (int64_t)y * width + x : (int64_t)(y + dy) * width + x + dx;
  return weight[k * plane + from];
}

// ---- coarser levels ---------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(BLOCK) grid_interpolation(
    const float* __restrict__ weight,  // [K, plane]
    const int* __restrict__ table,     // [2, reach + 1]
    const float* __restrict__ self,    // [N]: a point's weight with itself, or null: 1
    float* __restrict__ share,         // [S S, N]
    int height, int width, int64_t plane, int reach) {
  const int64_t n = (int64_t)height * width, p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (p >= n) return;
  const int y = (int)(p / width), x = (int)(p % width), slots = 2 * reach / EVERY + 1;
  const int row = above(y - reach), column = above(x - reach);
  double total = 0;
  for (int s = 0; s < slots * slots; ++s) {
    const int v = (row + s / slots) * EVERY, u = (column + s % slots) * EVERY;
    float w = 0;
    if (v >= 0 && v < height && u >= 0 && u < width)
      w = v == y && u == x ? (self ? self[p] : 1.0f) : edge(weight, table, reach, plane, width, y, x, v - y, u - x);
    w = fmaxf(w, 0.0f);
    share[s * n + p] = w;
    total += (double)w;
  }
  const double by = total > 0 ? 1 / total : 0.0;
  for (int s = 0; s < slots * slots; ++s) share[s * n + p] = (float)(by * (double)share[s * n + p]);
}

extern "C" __global__ void __launch_bounds__(BLOCK) grid_image(
    const float* __restrict__ weight,    // [K, plane]
    const int* __restrict__ table,       // [2, reach + 1]
    const float* __restrict__ diagonal,  // [N]
    const float* __restrict__ share,     // [S S, N]
    float* __restrict__ image,           // [T T, N]
    int height, int width, int64_t plane, int reach) {
  const int64_t n = (int64_t)height * width, p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (p >= n) return;
  const int y = (int)(p / width), x = (int)(p % width);
  const int slots = 2 * reach / EVERY + 1, spread = 4 * reach / EVERY + 1;
  const int a = above(y - 2 * reach) + (int)blockIdx.y / spread, b = above(x - 2 * reach) + (int)blockIdx.y % spread;
  const int top = max(max(0, y - reach), a * EVERY - reach), bottom = min(min(height - 1, y + reach), a * EVERY + reach);
  const int left = max(max(0, x - reach), b * EVERY - reach), right = min(min(width - 1, x + reach), b * EVERY + reach);
  double sum = 0;
  if (a >= 0 && b >= 0 && a * EVERY < height && b * EVERY < width) {
    for (int v = top; v <= bottom; ++v) {
      for (int u = left; u <= right; ++u) {
        const int slot = (a - above(v - reach)) * slots + b - above(u - reach);
        const double part = (double)share[slot * n + (int64_t)v * width + u];
        if (v == y && u == x) sum += (double)diagonal[p] * part;
        else sum -= (double)edge(weight, table, reach, plane, width, y, x, v - y, u - x) * part;
      }
    }
  }
  image[blockIdx.y * n + p] = (float)sum;
}

extern "C" __global__ void __launch_bounds__(BLOCK) grid_coarse(
    const float* __restrict__ share,   // [S S, N]
    const float* __restrict__ image,   // [T T, N]
    const int* __restrict__ offsets,   // [K + 1, 2], the last one (0, 0)
    float* __restrict__ weight,        // [K, plane], zero before
    float* __restrict__ diagonal,      // [coarse points]
    int height, int width, int rows, int columns, int count, int64_t plane, int reach) {
  const int64_t n = (int64_t)height * width, i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (i >= (int64_t)rows * columns) return;
  const int slots = 2 * reach / EVERY + 1, spread = 4 * reach / EVERY + 1, k = blockIdx.y;
  const int a = (int)(i / columns), b = (int)(i % columns), c = a + offsets[2 * k], d = b + offsets[2 * k + 1];
  if (c >= rows || d < 0 || d >= columns) return;
  double sum = 0;
  for (int v = max(0, a * EVERY - reach); v <= min(height - 1, a * EVERY + reach); ++v) {
    const int down = c - above(v - 2 * reach);
    if (down < 0 || down >= spread) continue;
    for (int u = max(0, b * EVERY - reach); u <= min(width - 1, b * EVERY + reach); ++u) {
      const int across = d - above(u - 2 * reach);
      if (across < 0 || across >= spread) continue;
      const int64_t p = (int64_t)v * width + u;
      const int slot = (a - above(v - reach)) * slots + b - above(u - reach);
      sum += (double)share[slot * n + p] * (double)image[(down * spread + across) * n + p];
    }
  }
  if (k == count) diagonal[i] = (float)sum;
  else weight[k * plane + i] = (float)-sum;
}

// ---- a cycle ----------------------------------------------------------------------------------------------

// out = inverse P^T (diagonal x).
extern "C" __global__ void __launch_bounds__(BLOCK) grid_restrict(
    const float* __restrict__ share,     // [S S, N]
    const float* __restrict__ x,         // [N, b]
    const float* __restrict__ diagonal,  // [N], or null: 1
    const float* __restrict__ inverse,   // [coarse points], or null: 1
    float* __restrict__ out,             // [coarse points, b]
    int height, int width, int rows, int columns, int vectors, int reach) {
  const int64_t n = (int64_t)height * width, i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (i >= (int64_t)rows * columns * vectors) return;
  const int64_t point = i / vectors;
  const int g = (int)(i % vectors), a = (int)(point / columns), b = (int)(point % columns);
  const int slots = 2 * reach / EVERY + 1;
  const piece* from = reinterpret_cast<const piece*>(x) + g;
  piece sum = {};
  for (int v = max(0, a * EVERY - reach); v <= min(height - 1, a * EVERY + reach); ++v) {
    for (int u = max(0, b * EVERY - reach); u <= min(width - 1, b * EVERY + reach); ++u) {
      const int64_t p = (int64_t)v * width + u;
      float w = share[((a - above(v - reach)) * slots + b - above(u - reach)) * n + p];
      if (diagonal) w *= diagonal[p];
      const piece other = from[p * vectors];
#pragma unroll
      for (int e = 0; e < 4; ++e) sum.v[e] += w * other.v[e];
    }
  }
  const float by = inverse ? inverse[point] : 1.0f;
#pragma unroll
  for (int e = 0; e < 4; ++e) sum.v[e] *= by;
  reinterpret_cast<piece*>(out)[i] = sum;
}

// out = P coarse, and x += that.
extern "C" __global__ void __launch_bounds__(BLOCK) grid_prolong(
    const float* __restrict__ share,   // [S S, N]
    const float* __restrict__ coarse,  // [coarse points, b]
    float* __restrict__ out,           // [N, b]
    float* __restrict__ x,             // [N, b], or null
    int height, int width, int rows, int columns, int vectors, int reach) {
  const int64_t n = (int64_t)height * width, i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (i >= n * vectors) return;
  const int64_t p = i / vectors;
  const int g = (int)(i % vectors), slots = 2 * reach / EVERY + 1;
  const int row = above((int)(p / width) - reach), column = above((int)(p % width) - reach);
  piece sum = {};
  for (int s = 0; s < slots * slots; ++s) {
    const int a = row + s / slots, b = column + s % slots;
    if (a < 0 || a >= rows || b < 0 || b >= columns) continue;
    const float w = share[s * n + p];
    const piece other = reinterpret_cast<const piece*>(coarse)[((int64_t)a * columns + b) * vectors + g];
#pragma unroll
    for (int e = 0; e < 4; ++e) sum.v[e] += w * other.v[e];
  }
  reinterpret_cast<piece*>(out)[i] = sum;
  if (x) {
    piece z = reinterpret_cast<const piece*>(x)[i];
#pragma unroll
    for (int e = 0; e < 4; ++e) z.v[e] += sum.v[e];
    reinterpret_cast<piece*>(x)[i] = z;
  }
}

// step = ahead step + by residual; x += step, or x = step at the beginning. Without `ahead` the old step is not read.
extern "C" __global__ void __launch_bounds__(BLOCK) grid_move(
    float* __restrict__ step, const float* __restrict__ residual, float* __restrict__ x,  // [pieces] of 4
    int64_t pieces, float ahead, float by, int begin) {
  const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (i >= pieces) return;
  const piece r = reinterpret_cast<const piece*>(residual)[i];
  piece d = {}, z = {};
  if (ahead != 0) d = reinterpret_cast<const piece*>(step)[i];
  if (!begin) z = reinterpret_cast<const piece*>(x)[i];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    d.v[e] = ahead * d.v[e] + by * r.v[e];
    z.v[e] += d.v[e];
  }
  reinterpret_cast<piece*>(step)[i] = d;
  reinterpret_cast<piece*>(x)[i] = z;
}
