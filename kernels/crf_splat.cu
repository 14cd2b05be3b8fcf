/* crf_splat.cu: what points in one simplex give to its vertices, and the gradient with respect to where points lie.
 *
 * formula     crf_splat_chunks: partial[c, r] = sum over the points i of chunk c of b_ir scale_i values[i].
 *             crf_feature_vjp: db_ir = alpha (<z[v_ir], grad_i> + <z_t[v_ir], values_i>), v_ir vertex r of point i;
 *             de_j = (db[d - rank_j] - db[d - rank_j + 1]) / (d + 1), counted modulo d + 1; df = E^T de
 * layout      rows of `width` channels; a chunk is 2 to 64 points of one simplex
 * launch      crf_splat_chunks: a thread for four channels of a chunk, up to 256 a block (channels first);
 *             crf_feature_vjp: 8 lanes a point, 128 threads
 * cost        crf_splat_chunks: each row once, each sum once; 8 (d + 1) flop for 16 bytes of float32.
 *             crf_feature_vjp: 2 (d + 1) rows from L2 and 2 from DRAM a point
 * order       by place in the chunk; the 8 lanes by a tree: the same bits on every run
 * measured    not measured
 * hot         crf_splat_chunks
 * source      A. Adams, J. Baek, M. A. Davis, Fast high-dimensional filtering using the permutohedral lattice, 2010;
 *             ENTRIES = d + 1 keeps a simplex' sums in registers
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64; ENTRIES = 2 3 4 5 6 7 8 9
 */
#include "crf_lattice.cuh"

constexpr int LANES = 8;  // of a point in crf_feature_vjp
constexpr int THREADS = 128;
constexpr unsigned ALL = 0xffffffffu;

extern "C" __global__ void __launch_bounds__(256) crf_splat_chunks(
    const real* __restrict__ values, const real* __restrict__ scale,  // [points, width], [points] or null
    const int32_t* __restrict__ span,                                 // [chunks, 2]: first place, end
    const int32_t* __restrict__ point,                                // [points]: by place
    const real* __restrict__ weight,                                  // [points, ENTRIES]
    real* __restrict__ partial,                                       // [chunks, ENTRIES, width]
    int64_t chunks, int width) {
  const int64_t chunk = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (chunk >= chunks) return;
  const int channel = 4 * threadIdx.x, end = span[2 * chunk + 1];
  quad sum[ENTRIES];
#pragma unroll
  for (int r = 0; r < ENTRIES; ++r) sum[r] = zero_quad();
#pragma unroll 2
  for (int place = span[2 * chunk]; place < end; ++place) {
    const int64_t i = point[place];
    const real factor = scale ? scale[i] : real(1);
    const quad row = load_quad(values + i * width + channel);
#pragma unroll
    for (int r = 0; r < ENTRIES; ++r) add_quad(sum[r], weight[i * ENTRIES + r] * factor, row);
  }
#pragma unroll
  for (int r = 0; r < ENTRIES; ++r) store_quad(partial + (chunk * ENTRIES + r) * width + channel, sum[r]);
}

extern "C" __global__ void __launch_bounds__(THREADS) crf_feature_vjp(
    const real* __restrict__ z, const real* __restrict__ z_t,          // [vertices, width]
    const real* __restrict__ values, const real* __restrict__ grad,    // [total, width]
    const int32_t* __restrict__ simplex,                               // [total]
    const int32_t* __restrict__ vertex,                                // [simplices, ENTRIES]
    const int32_t* __restrict__ ranks,                                 // [simplices]: four bits each
    real* __restrict__ out,                                            // [images, ENTRIES - 1, points]
    int64_t total, int64_t points, int width, double alpha, double stretch) {
  constexpr int DIMS = ENTRIES - 1;
  const int lane = threadIdx.x % LANES;
  const int64_t i = (int64_t)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
  const bool there = i < total;
  const int64_t s = there ? simplex[i] : 0;
  real db[ENTRIES];
#pragma unroll
  for (int r = 0; r < ENTRIES; ++r) db[r] = real(0);
  for (int channel = 4 * lane; there && channel < width; channel += 4 * LANES) {
    const quad g = load_quad(grad + i * width + channel), x = load_quad(values + i * width + channel);
#pragma unroll
    for (int r = 0; r < ENTRIES; ++r) {
      const int64_t row = (int64_t)vertex[s * ENTRIES + r] * width + channel;
      db[r] += dot_quad(load_quad(z + row), g) + dot_quad(load_quad(z_t + row), x);
    }
  }
#pragma unroll
  for (int r = 0; r < ENTRIES; ++r)
#pragma unroll
    for (int shift = LANES / 2; shift > 0; shift /= 2) db[r] += __shfl_xor_sync(ALL, db[r], shift);
  if (!there || lane >= DIMS) return;
  const uint32_t packed = (uint32_t)ranks[s];
  int left = DIMS * (DIMS + 1) / 2;  // what the ranks sum to: the last one is not kept
  real before = real(0), own = real(0);
#pragma unroll
  for (int j = 0; j <= DIMS; ++j) {
    const int rank = j < DIMS ? (int)(packed >> (4 * j) & 15) : left;
    left -= rank;
    const int at = DIMS - rank, after = rank > 0 ? at + 1 : 0;
    real de = real(0);
#pragma unroll
    for (int r = 0; r < ENTRIES; ++r) de += (r == at ? db[r] : real(0)) - (r == after ? db[r] : real(0));
    if (j <= lane) before += de;  // lane j is the gradient of coordinate j, which is in e_0 to e_(j + 1)
    if (j == lane + 1) own = de;
  }
  const double factor = alpha * stretch / sqrt((double)((lane + 1) * (lane + 2))) / ENTRIES;
  const int64_t image = i / points;
  out[(image * DIMS + lane) * points + (i - image * points)] = real(factor) * (before - real(lane + 1) * own);
}
