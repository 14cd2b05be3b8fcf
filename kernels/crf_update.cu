/* crf_update.cu: one mean-field update of every point: both messages gathered, made compatible, softmax.
 *
 * formula     logit[i, l] = -unary[i, l] - sum_m sum_k mu_m[l, k] y_m[i, k],
 *             y_m[i] = alpha scale_i sum_r b_ir z_m[vertex_ir], or scale_i z_m[i] where there is no lattice;
 *             q = softmax over l < labels, 0 for the padding; or -logit
 * layout      rows of `width` channels; mu [width] is a diagonal, or [width, width], zero in the padding
 * launch      GROUP lanes a point, each with PER vectors of four channels; 128 threads. MATRIX = 1 (some mu is a
 *             matrix): a group takes POINTS points at once, so that they share what is read of mu
 * cost        bytes a point: unary and q from DRAM, 4 (d + 2) for the weights and the simplex, d + 1 rows a lattice
 *             from L2. A matrix: 2 width^2 flop a point, mu from L1, messages through shared memory
 * order       by entry, by channel, and the lanes of a point by a tree: the same bits on every run
 * measured    not measured
 * hot         crf_update
 * source      P. Kraehenbuehl, V. Koltun, Efficient inference in fully connected CRFs with Gaussian edge potentials,
 *             2011; several vectors a lane instead of one: vertices and weights of a point are read by fewer lanes
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64; GROUP = 1; PER = 1; MATRIX = 0 1
 * specialise  real = float32 float64; GROUP = 2; PER = 1 2 3 4 5; MATRIX = 0 1
 * specialise  real = float32 float64; GROUP = 4 8 16 32; PER = 3 4 5; MATRIX = 0 1
 * specialise  real = float32 float64; GROUP = 32; PER = 8; MATRIX = 0 1
 */
#include "crf_lattice.cuh"

constexpr int THREADS = 128;
constexpr int WANTED = 64 / (PER * (int)sizeof(real));  // points whose sums fit into the registers beside one another
constexpr int POINTS = !MATRIX || WANTED < 1 ? 1 : WANTED > 4 ? 4 : WANTED;
constexpr int RESIDENT = MATRIX || PER * sizeof(real) > 20 ? 1 : PER * sizeof(real) > 12 ? 4 : 6;  // blocks an SM
constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

__device__ __forceinline__ real minus_infinity() { return (real)__longlong_as_double(0xfff0000000000000ull); }

struct Message {
  Filter filter;
  const real* z;
  const real* scale;  // or null
  const real* mu;
  bool matrix;
  real alpha;
};

// Where a group's messages lie in shared memory; a vector more than they need keeps groups in different banks.
constexpr int ROW = GROUP * PER;
constexpr int OWN = POINTS * ROW + 1;

__device__ __forceinline__ void subtract_message(quad (&logit)[POINTS][PER], const Message& message, quad* shared,
                                                 int64_t first, int64_t points, int lane, int width) {
#pragma unroll
  for (int p = 0; p < POINTS; ++p) {
    const int64_t i = first + p;
    quad y[PER];
    real factor = message.filter.entries == 1 ? real(1) : message.alpha;
#pragma unroll
    for (int j = 0; j < PER; ++j) y[j] = zero_quad();
    if (i < points) {
      gather_rows(y, message.filter, message.z, i, 4 * lane, 4 * GROUP, width);
      if (message.scale) factor *= message.scale[i];
    }
#pragma unroll
    for (int j = 0; j < PER; ++j) {
      const int channel = 4 * (j * GROUP + lane);
      quad some = zero_quad();
      add_quad(some, factor, y[j]);
      if (MATRIX && message.matrix) {
        shared[p * ROW + j * GROUP + lane] = some;
      } else if (channel < width) {
        const quad mu = load_quad(message.mu + channel);
#pragma unroll
        for (int c = 0; c < 4; ++c) logit[p][j].v[c] -= mu.v[c] * some.v[c];
      }
    }
  }
  if (!MATRIX || !message.matrix) return;
  __syncwarp();
  for (int k = 0; k < width; k += 4) {
    quad y[POINTS];
#pragma unroll
    for (int p = 0; p < POINTS; ++p) y[p] = shared[p * ROW + k / 4];
#pragma unroll
    for (int j = 0; j < PER; ++j) {
      const int channel = 4 * (j * GROUP + lane);
      if (channel >= width) continue;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const quad mu = load_quad(message.mu + (int64_t)(channel + c) * width + k);
#pragma unroll
        for (int p = 0; p < POINTS; ++p) logit[p][j].v[c] -= dot_quad(mu, y[p]);
      }
    }
  }
  __syncwarp();  // the next message goes to the same place
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) crf_update(
    const real* __restrict__ unary,  // [points, width]
    const real* __restrict__ z0, const real* __restrict__ scale0, const real* __restrict__ mu0,
    const int32_t* __restrict__ simplex0, const int32_t* __restrict__ vertex0, const real* __restrict__ weight0,
    const real* __restrict__ z1, const real* __restrict__ scale1, const real* __restrict__ mu1,
    const int32_t* __restrict__ simplex1, const int32_t* __restrict__ vertex1, const real* __restrict__ weight1,
    real* __restrict__ out,          // [points, width]
    int64_t points, int width, int labels, int softmax,
    int entries0, int matrix0, double alpha0, int entries1, int matrix1, double alpha1) {
  __shared__ quad messages[MATRIX ? THREADS / GROUP * OWN : 1];
  const int lane = threadIdx.x % GROUP, group = threadIdx.x / GROUP;
  const int64_t first = ((int64_t)blockIdx.x * (THREADS / GROUP) + group) * POINTS;
  quad* own = messages + (MATRIX ? group * OWN : 0);
  quad logit[POINTS][PER];
#pragma unroll
  for (int p = 0; p < POINTS; ++p)
#pragma unroll
    for (int j = 0; j < PER; ++j) {
      const int channel = 4 * (j * GROUP + lane);
      logit[p][j] = zero_quad();
      if (first + p < points && channel < width)
        add_quad(logit[p][j], real(-1), load_quad(unary + (first + p) * width + channel));
    }
  if (entries0) {
    const Message message{{simplex0, vertex0, weight0, entries0}, z0, scale0, mu0, matrix0 != 0, real(alpha0)};
    subtract_message(logit, message, own, first, points, lane, width);
  }
  if (entries1) {
    const Message message{{simplex1, vertex1, weight1, entries1}, z1, scale1, mu1, matrix1 != 0, real(alpha1)};
    subtract_message(logit, message, own, first, points, lane, width);
  }
#pragma unroll
  for (int p = 0; p < POINTS; ++p) {
    real factor = real(-1);
    if (softmax) {
      real most = minus_infinity(), sum = real(0);
#pragma unroll
      for (int j = 0; j < PER; ++j)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (4 * (j * GROUP + lane) + c >= labels) logit[p][j].v[c] = minus_infinity();
          most = max(most, logit[p][j].v[c]);
        }
#pragma unroll
      for (int shift = GROUP / 2; shift > 0; shift /= 2) most = max(most, __shfl_xor_sync(ALL, most, shift));
#pragma unroll
      for (int j = 0; j < PER; ++j)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          logit[p][j].v[c] = exponential(logit[p][j].v[c] - most);
          sum += logit[p][j].v[c];
        }
#pragma unroll
      for (int shift = GROUP / 2; shift > 0; shift /= 2) sum += __shfl_xor_sync(ALL, sum, shift);
      factor = real(1) / sum;
    }
#pragma unroll
    for (int j = 0; j < PER; ++j) {
      const int channel = 4 * (j * GROUP + lane);
      if (first + p >= points || channel >= width) continue;
      quad some = zero_quad();
      add_quad(some, factor, logit[p][j]);
      store_quad(out + (first + p) * width + channel, some);
    }
  }
}
