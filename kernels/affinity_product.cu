/* affinity_product.cu: products of pixel affinities with blocks of vectors, and the steps of recurrences that they take.
 *
 * formula     y = scale (inverse (diagonal x - W x) - centre x) - before y, of W without its diagonal: W x, the Laplacian's
 *             A x and a step of a Chebyshev recurrence with M^-1 A in one kernel. FEATURES = 0: the weights are stored;
 *             else they are made of the image anew, exp(-features |F_p - F_q|^2 - distance[k])
 * layout      x and y [B, H W, b], b a multiple of LANES; weights [B, K, plane] with plane >= H W, or the image
 *             [B, H, W, FEATURES]. table[0, |dx|] says how far the neighbours of that column reach up and down,
 *             table[1, dy] + dx is the number of the offset (dy, dx) of the half below and to the right
 * launch      a block is TILE x TILE pixels and a thread PIXELS of a column, with GROUPS vectors of 16 bytes; grid.y is
 *             the blocks of channels, grid.z the images. The vectors of the tile and `reach` pixels around it lie in
 *             dynamic shared memory where SHARED, [group][row][column], and so do the features
 * cost        bytes: 4 K a pixel in float32 (FEATURES: 4 C) and twice x, y; flops: 4 K b a pixel (FEATURES: and 2 K
 *             exponentials). Each weight is read by two pixels, the second time from L2. A vector that is loaded from
 *             shared memory serves PIXELS pixels: at r = 5 96 steps of 4 x 16 bytes for 4 x 68 neighbours.
 *             Predicted for 512 x 512, K = 34, b = 16, float32 on an H100: 36 MB of weights and 34 MB of vectors 21 us,
 *             0.4 GB of shared memory 14 us, 0.57 GFLOP (a quarter more where a column's ends do not fit) 13 us: 25 us
 *             stored, bound by memory; 18 us from the image, bound by shared memory and arithmetic
 * order       by columns from the left, then down, one chain of sums for each pixel and vector; no atomics: the same bits
 *             from run to run
 * measured    not measured
 * hot         affinity_product
 * source      Shi and Malik, PAMI 2000, equation 11
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32; stored = float32; GROUPS = 2 4; SHARED = 1; FEATURES = 0 1 3
 * specialise  real = float64; stored = float32 float64; GROUPS = 2 4; SHARED = 1; FEATURES = 0 1 3
 * specialise  real = float32; stored = float32; GROUPS = 2; SHARED = 0; FEATURES = 0 1 3
 * specialise  real = float64; stored = float32 float64; GROUPS = 2; SHARED = 0; FEATURES = 0 1 3
 */
#include "scalar.cuh"

constexpr int BLOCK = 256;
constexpr int TILE = 32;
constexpr int PIXELS = TILE * TILE / BLOCK;  // of a thread, one below the other
constexpr int LANES = 16 / sizeof(real);
constexpr int WIDE = FEATURES ? FEATURES : 1;
constexpr int RESIDENT = GROUPS == 4 && sizeof(real) == 8 ? 1 : 2;  // blocks of a multiprocessor, such that nothing spills
using piece = vec<real, LANES>;

// The numbers of 16-byte vectors from one group of a tile to the next: such that groups begin on different banks.
__device__ __forceinline__ int apart(int pixels) { return (pixels + 7) / 8 * 8 + 2; }

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT) affinity_product(
    const stored* __restrict__ source,    // [B, K, plane], or the image [B, H, W, FEATURES]
    const stored* __restrict__ distance,  // [K], of an image alone
    const int* __restrict__ table,        // [2, reach + 1]
    const real* __restrict__ x,           // [B, H W, b]
    real* __restrict__ y,                 // [B, H W, b]
    const real* __restrict__ diagonal,    // [B, H W], or null: `self`
    const real* __restrict__ inverse,     // [B, H W], or null: 1
    int height, int width, int count, int64_t plane, int reach, unsigned across, int vectors, double features,
    double self, double centre, double scale, double before) {
  extern __shared__ __align__(16) unsigned char space[];
  const int sides = TILE + 2 * reach, area = apart(sides * sides), first = blockIdx.y * GROUPS;
  piece* const tile = reinterpret_cast<piece*>(space);
  stored* const picture = reinterpret_cast<stored*>(tile + GROUPS * area);
  const int x0 = (int)(blockIdx.x % across) * TILE, y0 = (int)(blockIdx.x / across) * TILE;
  const int64_t base = (int64_t)blockIdx.z * height * width;
  const piece* const from = reinterpret_cast<const piece*>(x) + base * vectors + first;
  const stored* const given = source + (FEATURES ? base * FEATURES : (int64_t)blockIdx.z * count * plane);
  if (SHARED) {
#pragma unroll 4
    for (int i = threadIdx.x; i < sides * sides * GROUPS; i += BLOCK) {
      const int g = i % GROUPS, at = i / GROUPS;
      const int row = y0 - reach + at / sides, column = x0 - reach + at % sides;
      piece v = {};
      if (row >= 0 && row < height && column >= 0 && column < width && first + g < vectors)
        v = from[((int64_t)row * width + column) * vectors + g];
      tile[g * area + at] = v;
    }
    if (FEATURES) {
      for (int i = threadIdx.x; i < sides * sides * WIDE; i += BLOCK) {
        const int c = i % WIDE, at = i / WIDE;
        const int row = y0 - reach + at / sides, column = x0 - reach + at % sides;
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        picture[c * sides * sides + at] = inside ? given[((int64_t)row * width + column) * WIDE + c] : stored(0);
      }
    }
    __syncthreads();
  }
  const int px = x0 + (int)threadIdx.x % TILE, py = y0 + (int)threadIdx.x / TILE * PIXELS;
  if (px >= width || py >= height) return;
  const int left = px - x0 + reach, top = py - y0 + reach;  // in the tile

  const auto feature = [&](int v, int u, int c) {  // of the pixel v rows below and u to the right; 0 outside
    if (SHARED) return picture[(c * sides + top + v) * sides + left + u];
    const bool inside = py + v >= 0 && py + v < height && px + u >= 0 && px + u < width;
    return inside ? given[((int64_t)(py + v) * width + px + u) * WIDE + c] : stored(0);
  };
  stored own[PIXELS][WIDE];
  if (FEATURES) {
#pragma unroll
    for (int i = 0; i < PIXELS; ++i)
#pragma unroll
      for (int c = 0; c < WIDE; ++c) own[i][c] = feature(i, 0, c);
  }

  piece sum[PIXELS][GROUPS] = {};
  for (int u = -reach; u <= reach; ++u) {
    const int tall = table[u < 0 ? -u : u];
    for (int v = -tall; v < PIXELS + tall; ++v) {
      real w[PIXELS];  // zero where the pixel and (v, u) are no neighbours
      stored beside[WIDE];
      if (FEATURES) {
#pragma unroll
        for (int c = 0; c < WIDE; ++c) beside[c] = feature(v, u, c);
      }
#pragma unroll
      for (int i = 0; i < PIXELS; ++i) {
        const int d = v - i;
        const bool ahead = d > 0 || (d == 0 && u > 0);
        const bool near = d >= -tall && d <= tall && (d != 0 || u != 0);
        const int k = table[reach + 1 + (near ? abs(d) : 0)] + (ahead ? u : -u);
        w[i] = 0;
        if (FEATURES) {
          if (near) {
            stored square = 0;
#pragma unroll
            for (int c = 0; c < WIDE; ++c) {
              const stored difference = own[i][c] - beside[c];
              square += difference * difference;
            }
            w[i] = (real)exp(-(square * (stored)features + distance[k]));
          }
        } else if (near && ahead) {  // zero where that leads out of the image
          if (py + i < height) w[i] = (real)given[k * plane + (int64_t)(py + i) * width + px];
        } else if (near) {
          if (py + v >= 0 && py + i < height && px + u >= 0 && px + u < width)
            w[i] = (real)given[k * plane + (int64_t)(py + v) * width + px + u];
        }
      }
      const bool inside = py + v >= 0 && py + v < height && px + u >= 0 && px + u < width;
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        piece other = {};
        if (SHARED) other = tile[g * area + (top + v) * sides + left + u];
        else if (inside && first + g < vectors) other = from[((int64_t)(py + v) * width + px + u) * vectors + g];
#pragma unroll
        for (int i = 0; i < PIXELS; ++i) {
          if (v - i < -tall || v - i > tall) continue;
#pragma unroll
          for (int e = 0; e < LANES; ++e) sum[i][g].v[e] += w[i] * other.v[e];
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < PIXELS; ++i) {
    if (py + i >= height) continue;
    const int64_t p = (int64_t)(py + i) * width + px;
    const double by = scale * (inverse ? (double)inverse[base + p] : 1.0);
    const real stay = (real)(by * (diagonal ? (double)diagonal[base + p] : self) - scale * centre);
    const real minus = (real)by, less = (real)before;
    piece* const to = reinterpret_cast<piece*>(y) + (base + p) * vectors + first;
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      if (first + g >= vectors) continue;
      const piece mine = from[p * vectors + g];
      piece out;
#pragma unroll
      for (int e = 0; e < LANES; ++e) out.v[e] = stay * mine.v[e] - minus * sum[i][g].v[e];
      if (before != 0) {
        const piece old = to[g];
#pragma unroll
        for (int e = 0; e < LANES; ++e) out.v[e] -= less * old.v[e];
      }
      to[g] = out;
    }
  }
}
