/* eigen_sparse.cu: what the eigensolver needs of a sparse matrix by rows: its products with blocks, its components.
 *
 * formula     y = scale (inverse (diagonal x - W x) - centre x) - before y, W by rows and without its diagonal. Components
 *             as in eigen_components.cu
 * layout      x and y [N, b], b a multiple of LANES; start [N + 1], columns and weights [nonzeros]
 * launch      sparse_step: a thread a row and a vector of 16 bytes, the vectors of a row side by side; sparse_join: a warp a
 *             row
 * cost        bytes: 8 a nonzero in float32, and 4 b gathered from L2; flops: 2 b a nonzero. 262,144 rows of 68, b = 16:
 *             143 MB and 1.14 GB from L2, about 200 us on an H100, predicted: bound by L2
 * order       the nonzeros of a row from the first to the last; no atomics on floats: the same bits from run to run
 * measured    not measured
 * source      Y. Saad, Iterative methods for sparse linear systems, 2003, section 3.4
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32; stored = float32
 * specialise  real = float64; stored = float32 float64
 */
#include "scalar.cuh"
#include "components.cuh"

constexpr int BLOCK = 256;
constexpr int LANES = 16 / sizeof(real);
using piece = vec<real, LANES>;

extern "C" __global__ void __launch_bounds__(BLOCK) sparse_step(
    const int64_t* __restrict__ start,    // [N + 1]
    const int32_t* __restrict__ columns,  // [nonzeros]
    const stored* __restrict__ weight,    // [nonzeros]
    const real* __restrict__ x,           // [N, b]
    real* __restrict__ y,                 // [N, b]
    const real* __restrict__ diagonal,    // [N]
    const real* __restrict__ inverse,     // [N], or null: 1
    int64_t n, int vectors, double centre, double scale, double before) {
  const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (i >= n * vectors) return;
  const int64_t row = i / vectors;
  const int g = (int)(i % vectors);
  const piece* from = reinterpret_cast<const piece*>(x) + g;
  piece sum = {};
  for (int64_t j = start[row]; j < start[row + 1]; ++j) {
    const real w = (real)weight[j];
    const piece other = from[(int64_t)columns[j] * vectors];
#pragma unroll
    for (int e = 0; e < LANES; ++e) sum.v[e] += w * other.v[e];
  }
  const double by = scale * (inverse ? (double)inverse[row] : 1.0);
  const real stay = (real)(by * (double)diagonal[row] - scale * centre), minus = (real)by, less = (real)before;
  const piece mine = from[row * vectors];
  piece* to = reinterpret_cast<piece*>(y) + i;
  piece out;
#pragma unroll
  for (int e = 0; e < LANES; ++e) out.v[e] = stay * mine.v[e] - minus * sum.v[e];
  if (before != 0) {
    const piece old = *to;
#pragma unroll
    for (int e = 0; e < LANES; ++e) out.v[e] -= less * old.v[e];
  }
  *to = out;
}

extern "C" __global__ void __launch_bounds__(BLOCK) sparse_join(
    const int64_t* __restrict__ start,    // [N + 1]
    const int32_t* __restrict__ columns,  // [nonzeros]
    const stored* __restrict__ weight,    // [nonzeros]
    const double* __restrict__ degree,    // [N]
    int32_t* parent,                      // [N]
    int64_t n, double share) {
  const int64_t row = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / 32;
  if (row >= n) return;
  for (int64_t j = start[row] + threadIdx.x % 32; j < start[row + 1]; j += 32) {
    const int other = columns[j];
    if (other < row && (double)weight[j] > share * fmin(degree[row], degree[other])) join(parent, (int)row, other);
  }
}
