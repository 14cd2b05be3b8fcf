/* crf_rows.cu: rows of channels on the permutohedral lattice: sums at the vertices, blur, gather; and to and from rows.
 *
 * formula     crf_splat_vertices: z[v] = sum over the sources of v of a chunk's sum, or of b_ir scale_i values[i].
 *             crf_blur: out[v] = z[v] + (z[n1(v)] + z[n2(v)]) / 2 along one axis, a missing neighbour is 0;
 *             crf_blur_pair: the same along two axes, one after the other.
 *             crf_gather: y[i] = alpha scale_i sum_r b_ir z[vertex_ir]
 * layout      rows of `width` channels, one for each point, vertex or chunk's sum; crf_to_rows, crf_from_rows: dense
 *             [images, channels, points]
 * launch      a thread for four channels of a row, up to 256 a block (channels first); crf_splat_vertices:
 *             `blockDim.y` of them share the sources of a vertex; crf_to_rows, crf_from_rows: (ceil(points/32),
 *             ceil(width/32), images) blocks of 32 x 8
 * cost        rows through L2: crf_splat_vertices one a source and one a vertex, crf_blur 4 a vertex, crf_blur_pair 10
 *             for two axes (it saves a launch), crf_gather d + 2 a point. One or two flop a number read
 * order       sources by their place in the list, then the threads that share a vertex in turn: the same bits on
 *             every run, and crf_blur_pair has those of crf_blur twice
 * measured    not measured
 * hot         crf_splat_vertices crf_blur crf_blur_pair crf_gather
 * source      A. Adams, J. Baek, M. A. Davis, Fast high-dimensional filtering using the permutohedral lattice, 2010
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64
 */
#include "crf_lattice.cuh"

constexpr int BLOCK = 256;

extern "C" __global__ void __launch_bounds__(BLOCK) crf_splat_vertices(
    const real* __restrict__ values, const real* __restrict__ scale,  // [points, width], [points] or null
    const real* __restrict__ partial,                                 // [sums of chunks, width]
    const int32_t* __restrict__ start,                                // [covered + 1]: first source of a vertex
    const int32_t* __restrict__ source,                               // row of `partial`, or ~point
    const real* __restrict__ share,                                   // 1, or the point's weight
    real* __restrict__ z,                                             // [vertices, width]
    int64_t covered, int64_t vertices, int width) {
  __shared__ quad sums[BLOCK];
  const int64_t v = (int64_t)blockIdx.x * blockDim.z + threadIdx.z;
  const int channel = 4 * threadIdx.x;
  quad sum = zero_quad();
  if (v < covered) {
    const int end = start[v + 1];
#pragma unroll 4
    for (int k = start[v] + threadIdx.y; k < end; k += blockDim.y) {
      const int32_t from = source[k];
      const real* rows = from < 0 ? values : partial;
      const int64_t row = from < 0 ? ~from : from;
      const real weight = from < 0 && scale ? share[k] * scale[row] : share[k];
      add_quad(sum, weight, load_quad(rows + row * width + channel));
    }
  }
  if (blockDim.y > 1) {
    const int at = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    sums[at] = sum;
    __syncthreads();
    if (threadIdx.y == 0)
      for (int k = 1; k < blockDim.y; ++k) add_quad(sum, real(1), sums[at + k * blockDim.x]);
  }
  if (threadIdx.y == 0 && v < vertices) store_quad(z + v * width + channel, sum);
}

// Four channels of vertex v after a step along an axis; neighbors [2, vertices].
__device__ __forceinline__ quad blurred(const real* z, const int32_t* neighbors, int64_t vertices, int64_t v,
                                        int width, int channel) {
  const int32_t n1 = neighbors[v], n2 = neighbors[vertices + v];
  quad sum = load_quad(z + v * width + channel);
  const quad a = n1 >= 0 ? load_quad(z + (int64_t)n1 * width + channel) : zero_quad();
  const quad b = n2 >= 0 ? load_quad(z + (int64_t)n2 * width + channel) : zero_quad();
#pragma unroll
  for (int c = 0; c < 4; ++c) sum.v[c] += real(0.5) * (a.v[c] + b.v[c]);
  return sum;
}

extern "C" __global__ void __launch_bounds__(BLOCK) crf_blur(
    const real* __restrict__ z, const int32_t* __restrict__ neighbors,  // [vertices, width], [2, vertices]
    real* __restrict__ out,                                             // [vertices, width]
    int64_t vertices, int width) {
  const int64_t v = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  const int channel = 4 * threadIdx.x;
  if (v < vertices) store_quad(out + v * width + channel, blurred(z, neighbors, vertices, v, width, channel));
}

// Along the first axis for the vertex and its neighbours on the second: for few vertices, where a launch costs more.
extern "C" __global__ void __launch_bounds__(BLOCK) crf_blur_pair(
    const real* __restrict__ z,                                                       // [vertices, width]
    const int32_t* __restrict__ first_axis, const int32_t* __restrict__ second_axis,  // [2, vertices]
    real* __restrict__ out,                                                           // [vertices, width]
    int64_t vertices, int width) {
  const int64_t v = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  const int channel = 4 * threadIdx.x;
  if (v >= vertices) return;
  const int32_t n1 = second_axis[v], n2 = second_axis[vertices + v];
  quad sum = blurred(z, first_axis, vertices, v, width, channel);
  const quad a = n1 >= 0 ? blurred(z, first_axis, vertices, n1, width, channel) : zero_quad();
  const quad b = n2 >= 0 ? blurred(z, first_axis, vertices, n2, width, channel) : zero_quad();
#pragma unroll
  for (int c = 0; c < 4; ++c) sum.v[c] += real(0.5) * (a.v[c] + b.v[c]);
  store_quad(out + v * width + channel, sum);
}

extern "C" __global__ void __launch_bounds__(BLOCK) crf_gather(
    const real* __restrict__ z,                                               // [vertices, width]
    const int32_t* __restrict__ simplex, const int32_t* __restrict__ vertex,  // [points], [simplices, entries]
    const real* __restrict__ weight, const real* __restrict__ scale,          // [points, entries], [points] or null
    real* __restrict__ out,                                                   // [points, width]
    int64_t points, int width, int entries, double alpha) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  const int channel = 4 * threadIdx.x;
  if (i >= points) return;
  quad y[1];
  gather_rows(y, Filter{simplex, vertex, weight, entries}, z, i, channel, 0, width);
  const real factor = scale ? real(alpha) * scale[i] : real(alpha);
#pragma unroll
  for (int c = 0; c < 4; ++c) y[0].v[c] *= factor;
  store_quad(out + i * width + channel, y[0]);
}

// ---- to and from rows: 32 x 32 tiles through shared memory, so that both sides are coalesced ------------

extern "C" __global__ void __launch_bounds__(256, 4) crf_to_rows(
    const real* __restrict__ source,  // [images, channels, points]
    real* __restrict__ rows,          // [images, points, width]
    int64_t images, int64_t points, int channels, int width, double fill) {
  __shared__ real tile[32][33];
  const int64_t first = (int64_t)blockIdx.x * 32;
  const int first_channel = blockIdx.y * 32, lane = threadIdx.x;
  for (int64_t image = blockIdx.z; image < images; image += gridDim.z) {
    for (int k = threadIdx.y; k < 32; k += 8) {
      const int c = first_channel + k;
      if (first + lane < points)
        tile[k][lane] = c < channels ? source[(image * channels + c) * points + first + lane] : real(fill);
    }
    __syncthreads();
    for (int k = threadIdx.y; k < 32; k += 8)
      if (first + k < points && first_channel + lane < width)
        rows[(image * points + first + k) * width + first_channel + lane] = tile[lane][k];
    __syncthreads();
  }
}

extern "C" __global__ void __launch_bounds__(256, 4) crf_from_rows(
    const real* __restrict__ rows,  // [images, points, width]
    real* __restrict__ result,      // [images, channels, points]
    int64_t images, int64_t points, int channels, int width) {
  __shared__ real tile[32][33];
  const int64_t first = (int64_t)blockIdx.x * 32;
  const int first_channel = blockIdx.y * 32, lane = threadIdx.x;
  for (int64_t image = blockIdx.z; image < images; image += gridDim.z) {
    for (int k = threadIdx.y; k < 32; k += 8)
      if (first + k < points && first_channel + lane < channels)
        tile[k][lane] = rows[(image * points + first + k) * width + first_channel + lane];
    __syncthreads();
    for (int k = threadIdx.y; k < 32; k += 8)
      if (first + lane < points && first_channel + k < channels)
        result[(image * channels + first_channel + k) * points + first + lane] = tile[lane][k];
    __syncthreads();
  }
}
