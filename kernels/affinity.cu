/* affinity.cu: affinities of pixels within a radius, as symmetric half stencils: weights and degrees.
 *
 * formula     gaussian: w_k[p] = exp(-scale |F_p - F_q|^2 - distance[k]), q = p + offset k. contour: exp(-scale m), m
 *             the greatest edge strength on the line from p to q. degree: self + sum_k w_k[p] + w_k[p - offset k].
 * layout      image [B, H, W, C], weights [B, K, plane] with plane >= H W, offsets (dy, dx) of the half below and to the
 *             right; a weight that leads out of the image is 0. Products are in affinity_product.cu.
 * launch      weights: a thread a pixel, grid.y offsets, grid.z images. degree: a thread a pixel, grid.y images.
 * cost        bytes: 4 K a pixel in float32, and the image; the degree reads each weight twice, once from L2. At
 *             512 x 512, K = 34: 36 MB, 11 us at 3.35 TB/s, for 9 M exponentials.
 * order       sums by k, the pixel ahead before the one behind; no atomics: the same bits from run to run.
 * measured    not measured
 * source      Shi and Malik, PAMI 2000, equation 11
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64
 */
#include "scalar.cuh"

constexpr int BLOCK = 256;

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
