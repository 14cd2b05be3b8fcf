/* eigen.cu: what subspace iterations need beside products: Gram matrices, small eigenproblems, combinations, residuals.
 *
 * formula     gram: L^T M R of blocks side by side. basis: C with (X C)^T M (X C) = 1 and N^T M X C = 0, by the inverse root
 *             of X's Gram matrix. ritz: eigenvectors of X^T A X; step: those in the basis [X, P, W] of LOBPCG. combine:
 *             [N, X] C. residual: r = A x - lambda M x, |M^-1/2 r|
 * layout      blocks [N, columns] by rows, columns a multiple of 4; small matrices in float64, at most MOST columns;
 *             partial sums [blocks, ...]
 * launch      gram, combine, residual: blocks over rows, any number. basis, ritz, step, norms: one block, the first three
 *             of a thread for each of Jacobi's pairs of rotations, about. Nothing waits for the host, which reads the
 *             Ritz values and norms once an iteration
 * cost        512 x 512, 16 columns, float32: gram and combine read 17 or 34 MB once, 134 MFLOP in float64: 10 us, bound by
 *             memory; basis and ritz: Jacobi's rotations, 7 sweeps of 15 rounds with 2 barriers, about 30 us of latency
 *             (48 columns: 47 rounds, about 120 us). Ten pairs of 512 x 512, r = 5, to residuals of 1e-6 on an H100, all
 *             predicted: by filters 5 iterations of 150 products (25 us, from the image 18 us) and 17 other launches
 *             (0.4 ms): 21 ms, from the image 16 ms, bound by the products. By the multigrid 10 iterations of 60 launches
 *             and 1 read, 1.1 ms each: a cycle 0.5 ms, half of it latency of coarser levels; float64 product 40 us;
 *             orthonormal directions 0.2 ms; gram, step and combine 0.25 ms; setup and start 4 ms: 15 ms in all
 * order       fixed parts, summed in their order in float64; rotations of disjoint pairs, in Brent and Luk's order; no
 *             atomics on floats: the same bits from run to run
 * measured    not measured
 * hot         eigen_gram eigen_combine
 * source      A. Stathopoulos, K. Wu, A block orthogonalization procedure with constant synchronization requirements, 2002
 *             (basis); U. Hetmaniuk, R. Lehoucq, Basis selection in LOBPCG, 2006 (step); R. Brent, F. Luk, The solution of
 *             singular-value and symmetric eigenvalue problems on multiprocessor arrays, 1985
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64
 */
#include "scalar.cuh"

constexpr int BLOCK = 256;
constexpr int MOST = 48;   // columns of a small matrix
constexpr int PITCH = MOST + 1;
constexpr int ROWS = 32;   // that eigen_gram has in shared memory
constexpr int SWEEPS = 40;  // of rotations at most; mostly 7 are enough, and more for clusters
constexpr double DEPENDENT = 1e-14;  // a direction with less than this share of the square of the others adds nothing
constexpr double LEFT = 1e-8;        // to a new P, less than this share

// A row's four numbers, in pieces of 16 bytes.
__device__ __forceinline__ void store4(real* to, const vec<real, 4>& w) {
  constexpr int N = 16 / sizeof(real);
#pragma unroll
  for (int i = 0; i < 4; i += N) {
    vec<real, N> p;
#pragma unroll
    for (int e = 0; e < N; ++e) p.v[e] = w.v[i + e];
    *reinterpret_cast<vec<real, N>*>(to + i) = p;
  }
}

// ---- Gram matrices ----------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(BLOCK, 2) eigen_gram(
    const real* __restrict__ one,    // [N, a], or null where a is 0
    const real* __restrict__ two,    // [N, b]
    const real* __restrict__ right,  // [N, c]
    const real* __restrict__ mass,   // [N], or null: 1
    double* __restrict__ part,       // [blocks, a + b, c]
    int64_t n, int a, int b, int c) {
  __shared__ double space[BLOCK * 16];  // ROWS rows of up to 2 MOST numbers, then the sums of each group of threads
  const int left = a + b, wide = left + c, across = c / 4, tiles = left / 4 * across;
  const int groups = min(BLOCK / tiles, ROWS), group = threadIdx.x / tiles, tile = threadIdx.x % tiles;
  const int i0 = tile / across * 4, j0 = left + tile % across * 4;
  const int64_t chunk = (n + (int64_t)gridDim.x * ROWS - 1) / ((int64_t)gridDim.x * ROWS) * ROWS;
  const int64_t begin = min(n, blockIdx.x * chunk), end = min(n, begin + chunk);
  double sum[4][4] = {};
  for (int64_t at = begin; at < end; at += ROWS) {
    for (int i = threadIdx.x; i < ROWS * wide; i += BLOCK) {
      const int64_t row = at + i / wide;
      const int column = i % wide;
      double v = 0;
      if (row < end) {
        if (column < a) v = (double)one[row * a + column];
        else if (column < left) v = (double)two[row * b + column - a];
        else v = (double)right[row * c + column - left] * (mass ? (double)mass[row] : 1.0);
      }
      space[i] = v;
    }
    __syncthreads();
    if (group < groups) {
      for (int row = group; row < ROWS; row += groups) {
        double l[4], r[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) l[e] = space[row * wide + i0 + e], r[e] = space[row * wide + j0 + e];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] += l[i] * r[j];
      }
    }
    __syncthreads();
  }
  if (group < groups) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) space[(group * tiles + tile) * 16 + i * 4 + j] = sum[i][j];
  }
  __syncthreads();
  for (int o = threadIdx.x; o < left * c; o += BLOCK) {
    const int i = o / c, j = o % c, from = i / 4 * across + j / 4;
    double total = 0;
    for (int g = 0; g < groups; ++g) total += space[(g * tiles + from) * 16 + i % 4 * 4 + j % 4];
    part[(int64_t)blockIdx.x * left * c + o] = total;
  }
}

// The sum of an element over parts of `size` elements, four chains of them.
__device__ __forceinline__ double summed(const double* part, int64_t size, int parts) {
  double sum[4] = {};
  int k = 0;
  for (; k + 4 <= parts; k += 4) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[e] += part[(k + e) * size];
  }
  for (; k < parts; ++k) sum[0] += part[k * size];
  return sum[0] + sum[1] + (sum[2] + sum[3]);
}

// ---- small eigenproblems ----------------------------------------------------------------------------------

// A symmetric matrix a [n, n], n even, becomes diagonal, and the columns of v its eigenvectors.
__device__ void jacobi(double* a, double* v, double* cosine, double* sine, int* turned, int n) {
  const int half = n / 2, others = n - 1;
  for (int i = threadIdx.x; i < n * n; i += blockDim.x) v[i / n * PITCH + i % n] = i / n == i % n;
  for (int sweep = 0; sweep < SWEEPS; ++sweep) {
    __syncthreads();
    if (threadIdx.x == 0) {
      *turned = 0;
      double most = 0;
      for (int i = 0; i < n; ++i) most = fmax(most, fabs(a[i * PITCH + i]));
      cosine[half] = 1e-18 * most;  // what is below is nothing
    }
    for (int round = 0; round < others; ++round) {
      const auto first = [=](int j) { return j == 0 ? others : (round + j) % others; };
      const auto second = [=](int j) { return j == 0 ? round : (round - j + others) % others; };
      __syncthreads();
      if (threadIdx.x < half) {
        const int p = first(threadIdx.x), q = second(threadIdx.x);
        const double app = a[p * PITCH + p], aqq = a[q * PITCH + q], apq = a[p * PITCH + q];
        double c = 1, s = 0;
        if (fabs(apq) > 1e-16 * sqrt(fabs(app * aqq)) && fabs(apq) > cosine[half]) {
          const double tau = (aqq - app) / (2 * apq);
          const double t = (tau < 0 ? -1.0 : 1.0) / (fabs(tau) + sqrt(1 + tau * tau));
          c = 1 / sqrt(1 + t * t);
          s = t * c;
          atomicOr(turned, 1);
        }
        cosine[threadIdx.x] = c;
        sine[threadIdx.x] = s;
      }
      __syncthreads();
      for (int i = threadIdx.x; i < half * half; i += blockDim.x) {  // two rows and two columns, which no other thread has
        const int j = i / half, k = i % half;
        const int p = first(j), q = second(j), u = first(k), w = second(k);
        const double c = cosine[j], s = sine[j], d = cosine[k], t = sine[k];
        const double pu = a[p * PITCH + u], pw = a[p * PITCH + w], qu = a[q * PITCH + u], qw = a[q * PITCH + w];
        const double ru = c * pu - s * qu, rw = c * pw - s * qw, su = s * pu + c * qu, sw = s * pw + c * qw;
        const bool gone = j == k && s != 0;  // what the rotation is made to remove
        a[p * PITCH + u] = d * ru - t * rw;
        a[p * PITCH + w] = gone ? 0.0 : t * ru + d * rw;
        a[q * PITCH + u] = gone ? 0.0 : d * su - t * sw;
        a[q * PITCH + w] = t * su + d * sw;
      }
      for (int i = threadIdx.x; i < n * half; i += blockDim.x) {
        const int row = i / half, k = i % half, u = first(k), w = second(k);
        const double d = cosine[k], t = sine[k], vu = v[row * PITCH + u], vw = v[row * PITCH + w];
        v[row * PITCH + u] = d * vu - t * vw;
        v[row * PITCH + w] = t * vu + d * vw;
      }
    }
    __syncthreads();
    if (!*turned) break;
  }
  __syncthreads();
}

// The place of a diagonal element when these are sorted, equal ones as they stand.
__device__ __forceinline__ int rank_of(const double* a, int n, int j) {
  const double mine = a[j * PITCH + j];
  int rank = 0;
  for (int k = 0; k < n; ++k) {
    const double other = a[k * PITCH + k];
    rank += other < mine || (!(mine < other) && k < j);
  }
  return min(rank, n - 1);
}

// From the Gram matrices of X with the orthonormal block N and with itself: coefficients of [N, X] that make X
// orthonormal and orthogonal to N. `fresh` marks columns that depend on the others, to be filled anew.
extern "C" __global__ void __launch_bounds__(BLOCK) eigen_basis(
    const double* __restrict__ part,   // [parts, a + b, b]
    double* __restrict__ coefficients, // [a + b, b]
    double* __restrict__ fresh,        // [b + 1]: 0 or 1, the last one their number
    int parts, int a, int b) {
  __shared__ double g[MOST * PITCH], v[MOST * PITCH], overlap[MOST * MOST / 4], cosine[MOST], sine[MOST], size[MOST];
  __shared__ int turned;
  for (int i = threadIdx.x; i < (a + b) * b; i += blockDim.x) {
    const double total = summed(part + i, (a + b) * b, parts);
    if (i < a * b) overlap[i] = total;
    else v[(i / b - a) * PITCH + i % b] = total;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < b * b; i += blockDim.x) {
    const int p = i / b, q = i % b;
    double left = 0.5 * (v[p * PITCH + q] + v[q * PITCH + p]);
    for (int k = 0; k < a; ++k) left -= overlap[k * b + p] * overlap[k * b + q];
    g[p * PITCH + q] = left;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < b; i += blockDim.x) size[i] = sqrt(fmax(g[i * PITCH + i], 1e-300));
  __syncthreads();
  for (int i = threadIdx.x; i < b * b; i += blockDim.x) g[i / b * PITCH + i % b] /= size[i / b] * size[i % b];
  jacobi(g, v, cosine, sine, &turned, b);
  for (int j = threadIdx.x; j < b; j += blockDim.x) {
    const double value = g[j * PITCH + j];
    fresh[j] = value > b * DEPENDENT ? 0.0 : 1.0;
    cosine[j] = value > b * DEPENDENT ? 1 / sqrt(value) : 0.0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < b * b; i += blockDim.x) {
    const double c = v[i / b * PITCH + i % b] * cosine[i % b] / size[i / b];
    g[i / b * PITCH + i % b] = c;
    coefficients[a * b + i] = c;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < a * b; i += blockDim.x) {
    double total = 0;
    for (int k = 0; k < b; ++k) total -= overlap[i / b * b + k] * g[k * PITCH + i % b];
    coefficients[i] = total;
  }
  if (threadIdx.x == 0) {
    double count = 0;
    for (int j = 0; j < b; ++j) count += cosine[j] == 0.0 ? 1.0 : 0.0;
    fresh[b] = count;
  }
}

// Ritz values ascending, and the eigenvectors of X^T A X.
extern "C" __global__ void __launch_bounds__(BLOCK) eigen_ritz(
    const double* __restrict__ part,   // [parts, b, b]
    double* __restrict__ values,       // [b]
    double* __restrict__ coefficients, // [b, b]
    int parts, int b) {
  __shared__ double h[MOST * PITCH], v[MOST * PITCH], cosine[MOST], sine[MOST];
  __shared__ int turned;
  for (int i = threadIdx.x; i < b * b; i += blockDim.x) v[i / b * PITCH + i % b] = summed(part + i, b * b, parts);
  __syncthreads();
  for (int i = threadIdx.x; i < b * b; i += blockDim.x)
    h[i / b * PITCH + i % b] = 0.5 * (v[i / b * PITCH + i % b] + v[i % b * PITCH + i / b]);
  __syncthreads();
  jacobi(h, v, cosine, sine, &turned, b);
  for (int j = threadIdx.x; j < b; j += blockDim.x) {
    const int rank = rank_of(h, b, j);
    values[rank] = h[j * PITCH + j];
    for (int k = 0; k < b; ++k) coefficients[k * b + rank] = v[k * PITCH + j];
  }
}

// A Rayleigh-Ritz step of LOBPCG in the orthonormal basis [X, P, W], of b columns each. X^T A X is diag(values), P^T A P is
// `held`, X^T A P is 0, and `part` holds [null space, X, P, W]^T A W. A column of P that is empty has -1 on held's diagonal.
// Results: values and `held` of the new X and P, and their coefficients, those of [null space, X, P] in [W, null space, X,
// P]. The new X are the smallest Ritz vectors, the new P what these have outside of the old X, orthonormal to them.
extern "C" __global__ void __launch_bounds__(BLOCK) eigen_step(
    const double* __restrict__ part,    // [parts, a + 3 b, b]
    double* __restrict__ values,        // [b]
    double* __restrict__ held,          // [b, b]
    double* __restrict__ coefficients,  // [a + 3 b, a + 2 b]
    int parts, int a, int b) {
  extern __shared__ __align__(16) double room[];
  __shared__ double cosine[MOST], sine[MOST], lambda[MOST];
  __shared__ int turned;
  const int n = 3 * b, pitch = b + 1;
  double* const whole = room;
  double* const v = whole + MOST * PITCH;
  double* const z = v + MOST * PITCH;  // [n, b]: the new X
  double* const q = z + n * pitch;     // [n, b]: the new P
  double* const u = q + n * pitch;     // [n, b]
  double* const small = whole;         // [b, b], where the whole has been used
  double* const turn = whole + b * PITCH;
  double* const share = whole + 2 * b * PITCH;

  for (int i = threadIdx.x; i < n * b; i += blockDim.x)
    u[i / b * pitch + i % b] = summed(part + a * b + i, (int64_t)(a + n) * b, parts);
  __syncthreads();
  for (int i = threadIdx.x; i < n * n; i += blockDim.x) {
    const int r = i / n, c = i % n;
    double value = 0;
    if (r >= 2 * b && c >= 2 * b) value = 0.5 * (u[r * pitch + c - 2 * b] + u[c * pitch + r - 2 * b]);
    else if (c >= 2 * b) value = u[r * pitch + c - 2 * b];
    else if (r >= 2 * b) value = u[c * pitch + r - 2 * b];
    else if (r < b && r == c) value = values[r];
    else if (r >= b && c >= b) value = held[(r - b) * b + c - b];
    whole[r * PITCH + c] = value;
  }
  __syncthreads();
  if (threadIdx.x == 0) {  // the trace is above all eigenvalues: what is empty comes last
    double trace = 0;
    for (int i = 0; i < n; ++i) trace += fmax(whole[i * PITCH + i], 0.0);
    for (int i = b; i < 2 * b; ++i)
      if (whole[i * PITCH + i] < 0) whole[i * PITCH + i] = 2 * trace;
  }
  jacobi(whole, v, cosine, sine, &turned, n);
  for (int j = threadIdx.x; j < n; j += blockDim.x) {
    const int rank = rank_of(whole, n, j);
    lambda[j] = whole[j * PITCH + j];
    if (rank >= b) continue;
    values[rank] = lambda[j];
    for (int r = 0; r < n; ++r) {
      z[r * pitch + rank] = v[r * PITCH + j];
      q[r * pitch + rank] = r < b ? 0.0 : v[r * PITCH + j];
    }
  }
  for (int pass = 0; pass < 2; ++pass) {
    __syncthreads();
    for (int i = threadIdx.x; i < b * b; i += blockDim.x) {
      double sum = 0;
      for (int r = 0; r < n; ++r) sum += z[r * pitch + i / b] * q[r * pitch + i % b];
      share[i / b * PITCH + i % b] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n * b; i += blockDim.x) {
      double left = q[i / b * pitch + i % b];
      for (int k = 0; k < b; ++k) left -= z[i / b * pitch + k] * share[k * PITCH + i % b];
      u[i / b * pitch + i % b] = left;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < b * b; i += blockDim.x) {
      double sum = 0;
      for (int r = 0; r < n; ++r) sum += u[r * pitch + i / b] * u[r * pitch + i % b];
      small[i / b * PITCH + i % b] = sum;
    }
    __syncthreads();
    jacobi(small, turn, cosine, sine, &turned, b);
    double most = 0;
    for (int k = 0; k < b; ++k) most = fmax(most, small[k * PITCH + k]);
    for (int i = threadIdx.x; i < n * b; i += blockDim.x) {
      const double value = small[i % b * PITCH + i % b];
      double sum = 0;
      for (int k = 0; k < b; ++k) sum += u[i / b * pitch + k] * turn[k * PITCH + i % b];
      q[i / b * pitch + i % b] = value > LEFT * most ? sum / sqrt(value) : 0.0;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n * b; i += blockDim.x) {  // P in the eigenvectors
    double sum = 0;
    for (int r = 0; r < n; ++r) sum += v[r * PITCH + i / b] * q[r * pitch + i % b];
    u[i / b * pitch + i % b] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < b * b; i += blockDim.x) {
    const int c = i / b, d = i % b;
    double sum = 0, square = 0;
    for (int j = 0; j < n; ++j) {
      sum += u[j * pitch + c] * lambda[j] * u[j * pitch + d];
      square += u[j * pitch + c] * u[j * pitch + c];
    }
    held[i] = c == d && square < 0.5 ? -1.0 : sum;
  }
  for (int i = threadIdx.x; i < (a + n) * (a + 2 * b); i += blockDim.x) {
    const int r = i / (a + 2 * b), c = i % (a + 2 * b);
    const int from = r < b ? 2 * b + r : r - a - b;  // in [X, P, W]
    double value = 0;
    if (r >= b && r < a + b) value = c == r - b;
    else if (c >= a + b) value = q[from * pitch + c - a - b];
    else if (c >= a) value = z[from * pitch + c - a];
    coefficients[i] = value;
  }
}

// ---- blocks -----------------------------------------------------------------------------------------------

// A number from -1 to 1 that depends on place and seed alone.
__device__ __forceinline__ double scattered(uint64_t place, uint64_t seed) {
  uint64_t z = place * 0x9E3779B97F4A7C15ull + seed * 0xD1342543DE82EF95ull + 0x632BE59BD9B4E019ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return (double)(int64_t)(z >> 11) * (2.0 / 9007199254740992.0) - 1.0;
}

// out = [one, two] C, which may be `two`; columns that `fresh` marks are filled with scattered numbers.
extern "C" __global__ void __launch_bounds__(BLOCK) eigen_combine(
    const real* one,                         // [N, a], or null where a is 0
    const real* two,                         // [N, b]
    const double* __restrict__ coefficients, // [a + b, c]
    const double* __restrict__ fresh,        // [c], or null
    real* out,                               // [N, c]
    int64_t n, int a, int b, int c, int rows, uint64_t seed) {
  extern __shared__ __align__(16) double tall[];  // [rows, a + b + 1], then the coefficients
  const int left = a + b, pitch = left + 1, across = c / 4;
  double* const small = tall + rows * pitch;
  for (int i = threadIdx.x; i < left * c; i += BLOCK) small[i] = coefficients[i];
  for (int64_t at = (int64_t)blockIdx.x * rows; at < n; at += (int64_t)gridDim.x * rows) {
    for (int i = threadIdx.x; i < rows * left; i += BLOCK) {
      const int64_t row = at + i / left;
      const int column = i % left;
      double v = 0;
      if (row < n) v = (double)(column < a ? one[row * a + column] : two[row * b + column - a]);
      tall[i / left * pitch + column] = v;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows / 2 * across; i += BLOCK) {
      const int r = i / across * 2, j = i % across * 4;
      double sum[2][4] = {};
      for (int k = 0; k < left; ++k) {
        const double x = tall[r * pitch + k], y = tall[(r + 1) * pitch + k];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const double m = small[k * c + j + e];
          sum[0][e] += x * m;
          sum[1][e] += y * m;
        }
      }
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const int64_t row = at + r + u;
        if (row >= n) continue;
        vec<real, 4> w;
#pragma unroll
        for (int e = 0; e < 4; ++e)
          w.v[e] = (real)(fresh && fresh[j + e] != 0 ? scattered((uint64_t)row * c + j + e, seed) : sum[u][e]);
        store4(out + row * c + j, w);
      }
    }
    __syncthreads();
  }
}

// Parts of the squares of |M^-1/2 (A x - lambda M x)|, and these vectors where `out` is given.
extern "C" __global__ void __launch_bounds__(BLOCK) eigen_residual(
    const real* __restrict__ x,         // [N, pitch], b columns from `first` on
    const real* __restrict__ ax,        // [N, pitch]
    const double* __restrict__ values,  // [b]
    const real* __restrict__ mass,      // [N], or null: 1
    real* __restrict__ out,             // [N, b], or null
    double* __restrict__ part,          // [blocks, b]
    int64_t n, int pitch, int first, int b) {
  __shared__ double sums[BLOCK];
  const int groups = BLOCK / b, group = threadIdx.x / b, column = threadIdx.x % b;
  const int64_t chunk = (n + gridDim.x - 1) / gridDim.x;
  const int64_t begin = min(n, blockIdx.x * chunk), end = min(n, begin + chunk);
  double total = 0;
  if (group < groups) {
    const double value = values[column];
    for (int64_t row = begin + group; row < end; row += groups) {
      const double m = mass ? (double)mass[row] : 1.0;
      const int64_t at = row * pitch + first + column;
      const double r = (double)ax[at] - value * m * (double)x[at];
      if (out) out[row * b + column] = (real)r;
      if (m > 0) total += r * r / m;
    }
  }
  sums[threadIdx.x] = total;
  __syncthreads();
  if (group == 0) {
    for (int g = 1; g < groups; ++g) total += sums[g * b + column];
    part[(int64_t)blockIdx.x * b + column] = total;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK) eigen_norms(
    const double* __restrict__ part,  // [parts, b]
    double* __restrict__ norms,       // [b]
    int parts, int b) {
  if (threadIdx.x < b) norms[threadIdx.x] = sqrt(summed(part + threadIdx.x, b, parts));
}
