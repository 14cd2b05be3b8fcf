/* crf_lattice.cuh: rows of channels by vectors of four, and what a point gathers from the vertices around it.
 * A row is [width] numbers, its width a multiple of four and its address one of 16 bytes.
 */
#pragma once
#include "scalar.cuh"

struct alignas(16) quad { real v[4]; };

__device__ __forceinline__ quad load_quad(const real* p) { return *reinterpret_cast<const quad*>(p); }
__device__ __forceinline__ void store_quad(real* p, const quad& x) { *reinterpret_cast<quad*>(p) = x; }

__device__ __forceinline__ quad zero_quad() { return {{real(0), real(0), real(0), real(0)}}; }

// sum += weight * x
__device__ __forceinline__ void add_quad(quad& sum, real weight, const quad& x) {
#pragma unroll
  for (int c = 0; c < 4; ++c) sum.v[c] += weight * x.v[c];
}

__device__ __forceinline__ real dot_quad(const quad& a, const quad& b) {
  return (a.v[0] * b.v[0] + a.v[1] * b.v[1]) + (a.v[2] * b.v[2] + a.v[3] * b.v[3]);
}

// A filter as its points see it: each lies in a simplex, each simplex has `entries` vertices. With one entry there is
// no lattice, and row i is point i's own.
struct Filter {
  const int32_t* simplex;  // [points]
  const int32_t* vertex;   // [simplices, entries]
  const real* weight;      // [points, entries]
  int entries;
};

// y[j] = sum_r weight_ir z[vertex_ir], of VECTORS vectors of channels that lie `apart` channels from one another.
template <int VECTORS> __device__ __forceinline__ void gather_rows(
    quad (&y)[VECTORS], const Filter& filter, const real* z, int64_t point, int channel, int apart, int width) {
  constexpr int AHEAD = VECTORS * sizeof(real) < 32 ? 3 : 1;  // entries whose rows are under way at once
  if (filter.entries == 1) {
#pragma unroll
    for (int j = 0; j < VECTORS; ++j)
      y[j] = channel + j * apart < width ? load_quad(z + point * width + channel + j * apart) : zero_quad();
    return;
  }
#pragma unroll
  for (int j = 0; j < VECTORS; ++j) y[j] = zero_quad();
  const int32_t* vertex = filter.vertex + (int64_t)filter.simplex[point] * filter.entries;
  const real* weight = filter.weight + point * filter.entries;
#pragma unroll AHEAD
  for (int r = 0; r < filter.entries; ++r) {
    const real* row = z + (int64_t)vertex[r] * width + channel;
    const real share = weight[r];
#pragma unroll
    for (int j = 0; j < VECTORS; ++j)
      if (channel + j * apart < width) add_quad(y[j], share, load_quad(row + j * apart));
  }
}
