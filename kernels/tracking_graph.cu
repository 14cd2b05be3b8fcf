/* tracking_graph.cu: graphs over detections or tracklets: the nearest ones before and after each, features of links.
 *
 * formula     nearest: s_ij = |f_j - f_i - (v_i + v_j) (t_j - t_i) / 2|^2 / ((h_i + h_j) / 2)^2 of the feet f, or
 *             sum_d (a_id - a_jd)^2 of appearances; the `keep` least of the nodes that end up to `max_gap` frames
 *             before a node begins or begin so long after it ends. features: time, feet, sizes, appearance, IoU and
 *             GIoU of the boxes where straight motion puts them half way
 * layout      begin [5, N] (feet x, y, height, velocity x, y) and its frames, in the order of first frames; end: of
 *             the same nodes when they end; past [5, N]: the ends from the last frame back. range [4, N]: from where to
 *             where in `past`, and in `begin`, a node's candidates lie: the nearest in time first. Appearances [D, N],
 *             in both orders. key [N, keep]: earlier node x N + later node; -1 past the last one
 * launch      nearest: a warp for 4 nodes that follow each other in time (their candidates are nearly the same ones:
 *             each is read once for the four), lists of up to 64 in registers; more are found in passes, each after the
 *             last of the pass before. features: a thread a link
 * cost        nearest: each pair twice, 12 flops and 24 / 4 bytes from L1 or L2 each time (appearance: 3 D flops and
 *             4 D / 4 bytes), and about k log(P / k) insertions a node of P pairs, some 20 warp instructions each. Of
 *             23,645 detections with 50 frames of gap, k = 50: 106 M distances, predicted 0.6 ms on an H100. features:
 *             64 bytes of boxes and 4 F bytes of features a link
 * order       candidates before a node from the nearest in time back, then those after it in the order of first
 *             frames; of equal distances the first. No atomics: the same bits on every run
 * measured    not measured
 * hot         tracking_nearest tracking_features
 * source      G. Braso, L. Leal-Taixe, CVPR 2020 (graph, features); O. Cetintas, G. Braso, L. Leal-Taixe, CVPR 2023
 *             (half-way predictions); selection: see sorted_list.cuh
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64; APPEARANCE = 0 1
 */
#include "sorted_list.cuh"

constexpr int THREADS = 256;
constexpr int ROWS = 4;  // nodes of a warp
constexpr real FAR = real(sizeof(real) == 4 ? 3e38 : 1e300);

struct State {
  real x, y, height, vx, vy;
};

__device__ __forceinline__ State state_at(const real* __restrict__ states, int64_t i, int64_t n) {
  return {states[i], states[n + i], states[2 * n + i], states[3 * n + i], states[4 * n + i]};
}

// Roles do not matter: the frames' order turns the sign of the velocities.
__device__ __forceinline__ real feet_distance(const State& one, const State& other, int gap) {
  const real half = real(0.5) * real(gap);
  const real x = (other.x - one.x) - (one.vx + other.vx) * half;
  const real y = (other.y - one.y) - (one.vy + other.vy) * half;
  const real height = real(0.5) * (one.height + other.height);
  return (x * x + y * y) / (height * height);
}

extern "C" __global__ void __launch_bounds__(THREADS) tracking_nearest(
    const real* __restrict__ begin, const int32_t* __restrict__ begin_frame,  // [5, N], [N]
    const real* __restrict__ end, const int32_t* __restrict__ end_frame,      // [5, N], [N]
    const real* __restrict__ past, const int32_t* __restrict__ past_frame,    // [5, N], [N]
    const real* __restrict__ appearance, const real* __restrict__ past_appearance,  // [D, N] or null
    const int64_t* __restrict__ range,                                        // [4, N]
    const int64_t* __restrict__ node, const int64_t* __restrict__ past_node,  // [N]: numbers, in both orders
    real* __restrict__ after, int32_t* __restrict__ after_scan,               // [N]: where the pass before has ended
    int64_t* __restrict__ key,                                                // [N, keep]
    int64_t n, int dims, int keep, double reach, int first_pass) {
  const int lane = threadIdx.x % 32;
  const int64_t query = ((int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32) * ROWS;
  if (query >= n) return;  // of all lanes of a warp alike
  SortedList<real> list[ROWS];
  real bound[ROWS], out[ROWS];
  int out_scan[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const int64_t q = query + r < n ? query + r : n - 1;
    list[r].clear(real(reach));
    bound[r] = real(reach);
    out[r] = first_pass ? real(-1) : after[q];
    out_scan[r] = first_pass ? -1 : after_scan[q];
  }
  for (int side = 0; side < 2; ++side) {  // 0: before, 1: after
    int64_t from[ROWS], upto[ROWS], scan[ROWS], low = n, high = 0;
    State own[ROWS];
    int frame[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int64_t q = query + r;
      from[r] = upto[r] = scan[r] = 0;
      frame[r] = 0;
      if (q < n) {
        from[r] = range[2 * side * n + q];
        upto[r] = range[(2 * side + 1) * n + q];
        scan[r] = (side ? range[n + q] - range[q] : 0) - from[r];
        own[r] = state_at(side ? end : begin, q, n);
        frame[r] = side ? end_frame[q] : begin_frame[q];
        if (from[r] < upto[r]) {
          low = from[r] < low ? from[r] : low;
          high = upto[r] > high ? upto[r] : high;
        }
      } else {
        own[r] = {real(0), real(0), real(1), real(0), real(0)};
      }
    }
    const real* others = side ? begin : past;
    const int32_t* frames = side ? begin_frame : past_frame;
    for (int64_t p = low; p < high; p += 32) {
      const int64_t j = p + lane, here = j < high ? j : high - 1;
      real square[ROWS];
      if (APPEARANCE) {
        const real* looks = side ? appearance : past_appearance;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) square[r] = real(0);
        for (int d = 0; d < dims; ++d) {
          const real its = looks[d * n + here];
#pragma unroll
          for (int r = 0; r < ROWS; ++r) {
            const real off = its - appearance[d * n + (query + r < n ? query + r : n - 1)];
            square[r] += off * off;
          }
        }
      } else {
        const State other = state_at(others, here, n);
        const int32_t at = frames[here];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) square[r] = feet_distance(own[r], other, at - frame[r]);
      }
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        const int place = (int)(scan[r] + j);
        const bool inside = j >= from[r] && j < upto[r];
        const bool passed = square[r] < out[r] || (square[r] == out[r] && place <= out_scan[r]);
        list[r].absorb(bound[r], keep, inside && !passed ? square[r] : FAR, place);
      }
    }
  }
  __syncwarp();  // all lanes have read where the pass before has ended
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const int64_t q = query + r;
    const real last = list[r].last(keep);
    const int last_scan = list[r].last_index(keep);
    if (q < n) {
      if (lane == 0) {
        after[q] = last_scan < 0 ? FAR : last;
        after_scan[q] = last_scan;
      }
      const int64_t before = range[n + q] - range[q];
      for (int place = lane; place < keep; place += 32) {
        const int index = place < 32 ? list[r].low_index : list[r].high_index;
        int64_t link = -1;
        if (index >= before)
          link = node[q] * n + node[range[2 * n + q] + index - before];
        else if (index >= 0)
          link = past_node[range[q] + index] * n + node[q];
        key[q * keep + place] = link;
      }
    }
  }
}

__device__ __forceinline__ real overlap(real low, real high, real other_low, real other_high) {
  const real both = (high < other_high ? high : other_high) - (low > other_low ? low : other_low);
  return both > real(0) ? both : real(0);
}

__device__ __forceinline__ real hull(real low, real high, real other_low, real other_high) {
  return (high > other_high ? high : other_high) - (low < other_low ? low : other_low);
}

extern "C" __global__ void __launch_bounds__(THREADS) tracking_features(
    const real* __restrict__ box, const int64_t* __restrict__ frame,            // [N, 4]: left, top, width, height; [N]
    const real* __restrict__ last_box, const int64_t* __restrict__ last_frame,  // when nodes end
    const real* __restrict__ velocity, const real* __restrict__ last_velocity,  // [N, 2] or null
    const real* __restrict__ appearance,                                        // [N, D] or null
    const int64_t* __restrict__ edges,                                          // [2, E]
    float* __restrict__ features,                                               // [E, F]
    int64_t n_edges, int dims, int n_features, double fps) {
  const int64_t e = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (e >= n_edges) return;
  const int64_t i = edges[e], j = edges[n_edges + e];
  const int64_t gap = frame[j] - last_frame[i];
  real one[4], other[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    one[c] = last_box[4 * i + c];
    other[c] = box[4 * j + c];
  }
  const real height = real(0.5) * (one[3] + other[3]);
  float* to = features + e * n_features;
  to[0] = (float)(double(gap) / fps);
  to[1] = (float)(((other[0] + real(0.5) * other[2]) - (one[0] + real(0.5) * one[2])) / height);
  to[2] = (float)(((other[1] + other[3]) - (one[1] + one[3])) / height);
  to[3] = (float)log(other[3] / one[3]);
  to[4] = (float)log(other[2] / one[2]);
  int at = 5;
  if (APPEARANCE) {
    real square = 0;
    for (int d = 0; d < dims; ++d) {
      const real off = appearance[j * dims + d] - appearance[i * dims + d];
      square += off * off;
    }
    to[at++] = (float)sqrt(square);
  }
  if (velocity) {
    const real half = real(0.5) * real(gap);
    real low[2], other_low[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      low[c] = one[c] + half * last_velocity[2 * i + c];
      other_low[c] = other[c] - half * velocity[2 * j + c];
    }
    const real right = low[0] + one[2], other_right = other_low[0] + other[2];
    const real bottom = low[1] + one[3], other_bottom = other_low[1] + other[3];
    const real common = overlap(low[0], right, other_low[0], other_right) *
                        overlap(low[1], bottom, other_low[1], other_bottom);
    const real whole = one[2] * one[3] + other[2] * other[3] - common;
    const real around = hull(low[0], right, other_low[0], other_right) *
                        hull(low[1], bottom, other_low[1], other_bottom);
    to[at] = (float)(common / whole);
    to[at + 1] = (float)(common / whole - (around - whole) / around);
  }
}
