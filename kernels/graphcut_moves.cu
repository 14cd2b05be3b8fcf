/* graphcut_moves.cu: alpha-expansion, alpha-beta swap and fusion: the graph of a move, and what its cut is worth.
 *
 * formula     E(l) = sum_p unary[l_p, p] + sum_k sum_p weight[k, p] table[l_p, l_(p + step_k)]; a move offers node p
 *             the labels zero_p and one_p, and with x = 1 for one_p an edge p, q of weight w is, E_xy = w table,
 *             E00 + (E10 - E00 - back) x + (E11 - E10 + back) y + back x (1 - y) + ahead (1 - x) y,
 *             back + ahead = E01 + E10 - E00 - E11 in equal shares; where negative, E01 and E10 are raised
 * layout      [problem, node], nodes by rows; problem b is of image b % images. An edge that leaves the grid has no
 *             weight. Terms are whole numbers: products in double, exact below 2^52, rounded to the nearest
 * launch      a thread a node, 256 a block, blockIdx.y for the problem (then every gridDim.y-th)
 * cost        moves_build: 4 table look-ups from L1 and two loads for each of 2 K edges a node; bytes of DRAM a node:
 *             4 for labels (8 with proposals), two costs, 8 K for weights, 4 or 8 (2 K + 1) written: 66 for float32,
 *             4-neighbours and int32. moves_gain: 5 + 8 K, moves_take: 9 at most. A move: these 3 launches and the
 *             cut's, 8 bytes a problem to the device and 8 back
 * order       integer sums: the same bits on every run
 * measured    not measured
 * hot         moves_build
 * source      V. Kolmogorov, R. Zabih, What energy functions can be minimized via graph cuts?, 2004, section 4.1, with
 *             equal shares; each node gathers its own edges, so that nothing is added by atomics
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64; WIDE = 0 1
 */
#include "scalar.cuh"

constexpr int THREADS = 256;
constexpr unsigned ALL = 0xffffffffu;

template <bool wide> struct integer { using type = int32_t; };
template <> struct integer<true> { using type = int64_t; };
using whole = typename integer<WIDE != 0>::type;

__device__ __forceinline__ int64_t nearest(double x) { return (int64_t)rint(x); }

// The unary term; +inf counts as `forbidden`.
__device__ __forceinline__ int64_t cost(real x, double scale, double forbidden) {
  return nearest(fmin((double)x * scale, forbidden));
}

struct Pair {
  int zero, one;
};

// What a move offers a node with this label: a proposal, an expansion (second < 0), a swap, or nothing (first < 0).
__device__ __forceinline__ Pair offered(int label, const int32_t* proposal, int64_t at, int first, int second) {
  if (proposal) return {label, proposal[at]};
  if (first < 0) return {label, label};
  if (second < 0) return {label, first};
  const bool within = label == first || label == second;
  return {within ? second : label, within ? first : label};
}

struct Edge {
  int64_t here, there;  // E10 - E00, E11 - E10
  int64_t both;         // E01 + E10 - E00 - E11, or 0
};

__device__ __forceinline__ Edge edge(const double* table, int labels, double w, Pair p, Pair q) {
  const double e00 = table[(int64_t)p.zero * labels + q.zero], e01 = table[(int64_t)p.zero * labels + q.one];
  const double e10 = table[(int64_t)p.one * labels + q.zero], e11 = table[(int64_t)p.one * labels + q.one];
  Edge e{nearest(w * (e10 - e00)), nearest(w * (e11 - e10)), nearest(w * (e01 + e10 - e00 - e11))};
  if (e.both < 0) {
    e.here -= e.both >> 1;
    e.there += e.both >> 1;
    e.both = 0;
  }
  return e;
}

extern "C" __global__ void __launch_bounds__(THREADS) moves_start(
    const real* __restrict__ unary,  // [images, labels, nodes]
    int32_t* __restrict__ label,     // [problems, nodes]: the cheapest, the first among equals
    int64_t nodes, int problems, int images, int labels) {
  const int64_t node = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (node >= nodes) return;
  for (int problem = blockIdx.y; problem < problems; problem += gridDim.y) {
    const real* own = unary + (int64_t)(problem % images) * labels * nodes + node;
    real least = own[0];
    int best = 0;
    for (int l = 1; l < labels; ++l) {
      const real x = own[l * nodes];
      if (x < least) least = x, best = l;
    }
    label[problem * nodes + node] = best;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) moves_build(
    const real* __restrict__ unary,         // [images, labels, nodes]
    const double* __restrict__ weight,      // [images, pairs, nodes], times scale
    const double* __restrict__ table,       // [labels, labels]
    const int64_t* __restrict__ step,       // [pairs]: how many nodes further each edge leads
    const int32_t* __restrict__ label,      // [problems, nodes]
    const int32_t* __restrict__ proposal,   // [problems, nodes] or null
    const int32_t* __restrict__ first, const int32_t* __restrict__ second,  // [problems]
    whole* __restrict__ terminal,           // [problems, nodes]
    whole* __restrict__ residual,           // [problems, 2 pairs, nodes]
    int64_t nodes, int problems, int images, int labels, int pairs, double scale,
    double forbidden) {
  const int64_t node = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (node >= nodes) return;
  for (int problem = blockIdx.y; problem < problems; problem += gridDim.y) {
    const int64_t base = problem * nodes;
    const int image = problem % images, alpha = first[problem], beta = second[problem];
    const Pair own = offered(label[base + node], proposal, base + node, alpha, beta);
    const real* costs = unary + (int64_t)image * labels * nodes + node;
    int64_t gain = own.zero == own.one ? 0 : cost(costs[own.zero * nodes], scale, forbidden) -
                                        cost(costs[own.one * nodes], scale, forbidden);
    int64_t most = 1;  // more than all edges of the node can carry
    for (int k = 0; k < pairs; ++k) {
      const double* w = weight + ((int64_t)image * pairs + k) * nodes;
      int64_t leaving[2] = {0, 0};  // ahead, and the opposite way
      if (w[node] != 0) {
        const int64_t q = node + step[k];
        const Edge e = edge(table, labels, w[node], own, offered(label[base + q], proposal, base + q, alpha, beta));
        leaving[0] = e.both >> 1;
        gain -= e.here - leaving[0];
        most += e.both;
      }
      const int64_t q = node - step[k];
      if (q >= 0 && q < nodes && w[q] != 0) {
        const Edge e = edge(table, labels, w[q], offered(label[base + q], proposal, base + q, alpha, beta), own);
        leaving[1] = e.both - (e.both >> 1);
        gain -= e.there + (e.both >> 1);
        most += e.both;
      }
      residual[((int64_t)problem * 2 * pairs + k) * nodes + node] = (whole)leaving[0];
      residual[((int64_t)problem * 2 * pairs + pairs + k) * nodes + node] = (whole)leaving[1];
    }
    terminal[base + node] = (whole)max(-most, min(most, gain));
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) moves_gain(
    const real* __restrict__ unary, const double* __restrict__ weight, const double* __restrict__ table,
    const int64_t* __restrict__ step, const int32_t* __restrict__ label, const int32_t* __restrict__ proposal,
    const int32_t* __restrict__ first, const int32_t* __restrict__ second,
    const uint8_t* __restrict__ cut,        // [problems, nodes]: 1 takes `one`
    uint64_t* __restrict__ change,          // [problems]: what the energy changes by is added to it, as int64
    int64_t nodes, int problems, int images, int labels, int pairs, double scale,
    double forbidden) {
  __shared__ int64_t sums[THREADS / 32];
  const int64_t node = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  for (int problem = blockIdx.y; problem < problems; problem += gridDim.y) {
    const int64_t base = problem * nodes;
    const int image = problem % images, alpha = first[problem], beta = second[problem];
    int64_t sum = 0;
    if (node < nodes) {
      const int old = label[base + node];
      const Pair own = offered(old, proposal, base + node, alpha, beta);
      const int now = cut[base + node] ? own.one : own.zero;
      const real* costs = unary + (int64_t)image * labels * nodes + node;
      if (now != old) sum = cost(costs[now * nodes], scale, forbidden) - cost(costs[old * nodes], scale, forbidden);
      for (int k = 0; k < pairs; ++k) {
        const double w = weight[((int64_t)image * pairs + k) * nodes + node];
        if (w == 0) continue;
        const int64_t q = node + step[k];
        const int before = label[base + q];
        const Pair other = offered(before, proposal, base + q, alpha, beta);
        const int after = cut[base + q] ? other.one : other.zero;
        if (now == old && after == before) continue;
        sum += nearest(w * table[(int64_t)now * labels + after]) - nearest(w * table[(int64_t)old * labels + before]);
      }
    }
    for (int shift = 16; shift > 0; shift /= 2) sum += __shfl_xor_sync(ALL, sum, shift);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int warp = 1; warp < THREADS / 32; ++warp) sum += sums[warp];
      if (sum) atomicAdd((unsigned long long*)change + problem, (unsigned long long)sum);
    }
    __syncthreads();  // the sums are written again for the next problem
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) moves_take(
    int32_t* __restrict__ label, const int32_t* __restrict__ proposal, const int32_t* __restrict__ first,
    const int32_t* __restrict__ second, const uint8_t* __restrict__ cut, const int64_t* __restrict__ change,
    int64_t nodes, int problems) {
  const int64_t node = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (node >= nodes) return;
  for (int problem = blockIdx.y; problem < problems; problem += gridDim.y) {
    if (change[problem] >= 0) continue;  // only what lowers the energy
    const int64_t at = problem * nodes + node;
    const Pair own = offered(label[at], proposal, at, first[problem], second[problem]);
    label[at] = cut[at] ? own.one : own.zero;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) moves_energy(
    const real* __restrict__ unary, const double* __restrict__ weight, const double* __restrict__ table,
    const int64_t* __restrict__ step, const int32_t* __restrict__ label,
    double* __restrict__ out,  // [problems, nodes]: the unary term, and those of the edges that begin here, times scale
    int64_t nodes, int problems, int images, int labels, int pairs, double scale) {
  const int64_t node = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (node >= nodes) return;
  for (int problem = blockIdx.y; problem < problems; problem += gridDim.y) {
    const int64_t base = problem * nodes;
    const int image = problem % images, own = label[base + node];
    double sum = (double)unary[((int64_t)image * labels + own) * nodes + node] * scale;
    for (int k = 0; k < pairs; ++k) {
      const double w = weight[((int64_t)image * pairs + k) * nodes + node];
      if (w == 0) continue;
      const double term = w * table[(int64_t)own * labels + label[base + node + step[k]]];
      sum = __dadd_rn(sum, term);  // not fused, as on the CPU
    }
    out[base + node] = sum;
  }
}
