/* eigen_components.cu: connected components of pixel affinities, of edges above a share of the smaller degree.
 *
 * formula     p and q are in one component where w_pq > share min(degree_p, degree_q)
 * layout      parent [H W]: each vertex's own number at first, at the end the smallest of its component; weights or image
 *             and offsets as in affinity.cu and affinity_product.cu
 * launch      eigen_join: a thread a pixel, grid.y offsets; eigen_roots: a thread a pixel
 * cost        reads each weight once and two parents for each edge, from L2: at 512 x 512, K = 34: 36 MB and 71 MB of
 *             gathers, about 40 us, predicted; steps along trees are few as most pixels hang on the first ones at once
 * order       integer minima alone: the result does not depend on the order of the threads
 * measured    not measured
 * source      D. P. Playne, K. Hawick, A new algorithm for parallel connected-component labelling on GPUs, 2018 (idea)
 * arch        75 80 86 89 90 100 120
 * specialise  stored = float32 float64; FEATURES = 0 1 3
 */
#include "components.cuh"

constexpr int BLOCK = 256;
constexpr int WIDE = FEATURES ? FEATURES : 1;

extern "C" __global__ void __launch_bounds__(BLOCK) eigen_join(
    const stored* __restrict__ source,    // [K, plane], or the image [H, W, FEATURES]
    const stored* __restrict__ distance,  // [K], of an image alone
    const int* __restrict__ offsets,      // [K, 2]
    const double* __restrict__ degree,    // [H W]
    int32_t* parent,                      // [H W]
    int height, int width, int64_t plane, double features, double share) {
  const int64_t p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  const int k = blockIdx.y;
  if (p >= (int64_t)height * width) return;
  const int y = (int)(p / width) + offsets[2 * k], x = (int)(p % width) + offsets[2 * k + 1];
  if (y >= height || x < 0 || x >= width) return;
  const int64_t q = (int64_t)y * width + x;
  double w;
  if (FEATURES) {
    stored square = 0;
#pragma unroll
    for (int c = 0; c < WIDE; ++c) {
      const stored difference = source[p * WIDE + c] - source[q * WIDE + c];
      square += difference * difference;
    }
    w = (double)exp(-(square * (stored)features + distance[k]));
  } else {
    w = (double)source[k * plane + p];
  }
  if (w > share * fmin(degree[p], degree[q])) join(parent, (int)p, (int)q);
}

extern "C" __global__ void __launch_bounds__(BLOCK) eigen_roots(
    const int32_t* parent, int32_t* __restrict__ root,  // [N]
    int* __restrict__ count, int64_t n) {               // of roots; zero before
  const int64_t p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (p >= n) return;
  const int found = root_of(parent, (int)p);
  root[p] = found;
  if (found == p) atomicAdd(count, 1);
}
