/* affinity.cu: affinities of pixels within a radius, as symmetric half stencils: weights, degrees, products.
 *
 * formula     gaussian: w_k[p] = exp(-scale |F_p - F_q|^2 - distance[k]), q = p + offset k. contour: exp(-scale m), m
 *             the greatest edge strength on the line from p to q. degree: self + sum_k w_k[p] + w_k[p - offset k].
 *             product: y[p] = self x[p] + sum_k w_k[p] x[p + offset k] + w_k[p - offset k] x[p - offset k].
 * layout      image [B, H, W, C], x and y [B, H W, b], weights [B, K, plane] with plane >= H W, offsets (dy, dx) of
 *             the half below and to the right; a weight that leads out of the image is 0. b a multiple of LANES.
 * launch      weights: a thread a pixel, grid.y offsets, grid.z images. degree: a thread a pixel, grid.y images.
 *             product: a block is TILE_W x TILE_H pixels and a thread one of them, with GROUPS vectors of 16 bytes;
 *             grid.y is the blocks of channels, grid.z the images. The vectors of the tile and `reach` pixels around it
 *             lie in dynamic shared memory where SHARED, [group][row][column].
 * cost        bytes: 4 K a pixel in float32 and twice x and y; flops: 4 K b a pixel. At 512 x 512, K = 34, b = 16:
 *             36 MB of weights and 34 MB of vectors, 0.57 GFLOP: 21 us at 3.35 TB/s. Each weight is read by two pixels,
 *             the second time from L2. Shared memory: 16 bytes for 4 FMA, 1.1 GB, about 35 us at 33 TB/s: the bound.
 * order       by k, the pixel ahead before the one behind; no atomics: the same bits from run to run.
 * measured    not measured
 * hot         affinity_product
 * source      Shi and Malik, PAMI 2000, equation 11
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32; GROUPS = 1 4; SHARED = 0 1
 * specialise  real = float64; GROUPS = 1 4; SHARED = 0 1
 */
#include "scalar.cuh"

constexpr int BLOCK = 256;
constexpr int TILE_W = 32;
constexpr int TILE_H = 8;
constexpr int LANES = 16 / sizeof(real);
using piece = vec<real, LANES>;

extern "C" __global__ void __launch_bounds__(BLOCK) affinity_gaussian(
    const real* __restrict__ image,      // [B, H, W, C]
    const int* __restrict__ offsets,     // [K, 2]
    const double* __restrict__ distance, // [K]
    real* __restrict__ weight,           // [B, K, plane]
    int height, int width, int channels, int count, int64_t plane, double scale) {
  const int64_t p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  const int64_t pixels = (int64_t)height * width;
  if (p >= pixels) return;
  const int k = blockIdx.y;
  const int64_t b = blockIdx.z;
  const int y = (int)(p / width) + offsets[2 * k], x = (int)(p % width) + offsets[2 * k + 1];
  real w = 0;
  if (y < height && x >= 0 && x < width) {
    const real* one = image + (b * pixels + p) * channels;
    const real* other = image + (b * pixels + (int64_t)y * width + x) * channels;
    real square = 0;
    for (int c = 0; c < channels; ++c) {
      const real difference = one[c] - other[c];
      square += difference * difference;
    }
    w = exp(-(square * (real)scale + (real)distance[k]));
  }
  weight[(b * count + k) * plane + p] = w;
}

// floor(a / b) of b > 0.
__device__ __forceinline__ int floor_div(int a, int b) { return (a >= 0 ? a : a - b + 1) / b; }

extern "C" __global__ void __launch_bounds__(BLOCK) affinity_contour(
    const real* __restrict__ edge,    // [B, H, W]
    const int* __restrict__ offsets,  // [K, 2]
    real* __restrict__ weight,        // [B, K, plane]
    int height, int width, int count, int64_t plane, double scale) {
  const int64_t p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  const int64_t pixels = (int64_t)height * width;
  if (p >= pixels) return;
  const int k = blockIdx.y;
  const int64_t b = blockIdx.z;
  const int dy = offsets[2 * k], dx = offsets[2 * k + 1];
  const int y = (int)(p / width), x = (int)(p % width);
  real w = 0;
  if (y + dy < height && x + dx >= 0 && x + dx < width) {
    const int n = max(dy, abs(dx));
    real most = 0;
    for (int t = 0; t <= n; ++t) {  // floor(d t / n + 1 / 2), in whole numbers
      const int row = y + floor_div(2 * dy * t + n, 2 * n), column = x + floor_div(2 * dx * t + n, 2 * n);
      most = fmax(most, edge[b * pixels + (int64_t)row * width + column]);
    }
    w = exp(-(most * (real)scale));
  }
  weight[(b * count + k) * plane + p] = w;
}

extern "C" __global__ void __launch_bounds__(BLOCK) affinity_degree(
    const real* __restrict__ weight,  // [B, K, plane]
    const int* __restrict__ offsets,  // [K, 2]
    real* __restrict__ degree,        // [B, H W]
    int height, int width, int count, int64_t plane, double self) {
  const int64_t p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  const int64_t pixels = (int64_t)height * width;
  if (p >= pixels) return;
  const int y = (int)(p / width), x = (int)(p % width);
  double total = self;
  const real* w = weight + (int64_t)blockIdx.y * count * plane + p;
  for (int k = 0; k < count; ++k, w += plane) {
    const int dy = offsets[2 * k], dx = offsets[2 * k + 1];
    total += (double)w[0];
    if (y >= dy && x - dx >= 0 && x - dx < width) total += (double)w[-((int64_t)dy * width + dx)];
  }
  degree[blockIdx.y * pixels + p] = (real)total;
}

// Where a thread works, and the vectors that it reads: from shared memory, a tile with `reach` pixels around it, or
// from the image itself. Pixels outside of the image are zero in the tile.
struct Tile {
  int y, x;          // the thread's pixel
  int64_t pixel;     // its number in the batch
  bool there;
  int columns, at;   // of the tile; the thread's place in it
  int64_t area;      // pixels of a group of the tile
};

__device__ __forceinline__ Tile tile_of(int height, int width, int reach, unsigned across) {
  const int x0 = (int)(blockIdx.x % across) * TILE_W, y0 = (int)(blockIdx.x / across) * TILE_H;
  const int column = threadIdx.x % TILE_W, row = threadIdx.x / TILE_W;
  Tile t;
  t.y = y0 + row, t.x = x0 + column;
  t.there = t.y < height && t.x < width;
  t.pixel = ((int64_t)blockIdx.z * height + t.y) * width + t.x;
  t.columns = TILE_W + 2 * reach;
  t.at = (row + reach) * t.columns + column + reach;
  t.area = (int64_t)t.columns * (TILE_H + 2 * reach);
  return t;
}

__device__ __forceinline__ void fill(piece* shared, const piece* x, const Tile& t, int height, int width, int reach,
                                     int vectors, int first) {
  const int top = t.y - (int)(threadIdx.x / TILE_W) - reach, left = t.x - (int)(threadIdx.x % TILE_W) - reach;
  for (int i = threadIdx.x; i < (int)t.area; i += BLOCK) {
    const int row = top + i / t.columns, column = left + i % t.columns;
    const bool inside = row >= 0 && row < height && column >= 0 && column < width;
    const int64_t from = (((int64_t)blockIdx.z * height + row) * width + column) * vectors + first;
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      piece v = {};
      if (inside && first + g < vectors) v = x[from + g];
      shared[g * t.area + i] = v;
    }
  }
}

__device__ __forceinline__ void add(piece (&sum)[GROUPS], real w, const piece* shared, const piece* x, const Tile& t,
                                    int width, int dy, int dx, int vectors, int first) {
#pragma unroll
  for (int g = 0; g < GROUPS; ++g) {
    piece v = {};
    if (SHARED) v = shared[g * t.area + t.at + dy * t.columns + dx];
    else if (first + g < vectors) v = x[(t.pixel + (int64_t)dy * width + dx) * vectors + first + g];
#pragma unroll
    for (int e = 0; e < LANES; ++e) sum[g].v[e] += w * v.v[e];
  }
}

__device__ __forceinline__ void finish(piece (&sum)[GROUPS], real self, const piece* x, piece* y, const Tile& t,
                                       int vectors, int first) {
#pragma unroll
  for (int g = 0; g < GROUPS; ++g) {
    if (first + g >= vectors) continue;
    const piece own = x[t.pixel * vectors + first + g];
#pragma unroll
    for (int e = 0; e < LANES; ++e) sum[g].v[e] += self * own.v[e];
    y[t.pixel * vectors + first + g] = sum[g];
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2) affinity_product(
    const real* __restrict__ weight,  // [B, K, plane]
    const int* __restrict__ offsets,  // [K, 2]
    const real* __restrict__ x,       // [B, H W, b]
    real* __restrict__ y,             // [B, H W, b]
    int height, int width, int count, int64_t plane, int reach, unsigned across, int vectors, double self) {
  extern __shared__ __align__(16) unsigned char space[];
  piece* shared = reinterpret_cast<piece*>(space);
  const Tile t = tile_of(height, width, reach, across);
  const int first = blockIdx.y * GROUPS;
  const piece* from = reinterpret_cast<const piece*>(x);
  if (SHARED) {
    fill(shared, from, t, height, width, reach, vectors, first);
    __syncthreads();
  }
  if (!t.there) return;
  piece sum[GROUPS] = {};
  const real* w = weight + (int64_t)blockIdx.z * count * plane + (int64_t)t.y * width + t.x;
  for (int k = 0; k < count; ++k, w += plane) {
    const int dy = offsets[2 * k], dx = offsets[2 * k + 1];
    if (t.y + dy < height && t.x + dx >= 0 && t.x + dx < width)
      add(sum, w[0], shared, from, t, width, dy, dx, vectors, first);
    if (t.y >= dy && t.x - dx >= 0 && t.x - dx < width)
      add(sum, w[-((int64_t)dy * width + dx)], shared, from, t, width, -dy, -dx, vectors, first);
  }
  finish(sum, (real)self, from, reinterpret_cast<piece*>(y), t, vectors, first);
}
