/* mot_pairs.cu: the overlapping pairs of all frames of all sequences, and the sums over them behind HOTA and IDF1.
 *
 * formula     pairs (g, p) of one frame with IoU > 0. HOTA: share = IoU / (column sum + row sum - IoU);
 *             agreement of two identities = S / (n_g + n_p - S) with S the sum of the shares of their pairs;
 *             weight of a pair = agreement * IoU. Over matched pairs: TP, overlaps, and c * c / (n_g + n_p - c),
 *             c * c / n_g, c * c / n_p for the c matches of two identities, at each level of overlap.
 * layout      boxes [N, 4] corners, rows by sequence and frame, frames numbered through; identities numbered
 *             through, those of one sequence in a row. Pairs are a sparse matrix by ground-truth row: pair_start
 *             [Ng + 1], pair_pred ascending, pair_iou. own_start [identities + 1], own_row: rows by identity.
 * launch      blocks of 256 threads, any grid. A warp takes a box (mot_overlap, mot_columns) or an identity
 *             (mot_align, mot_cooccur, mot_associate) at a time, a thread a box (mot_share); mot_total:
 *             a block per sequence.
 * cost        mot_overlap: 32 bytes a pair of boxes of a frame, from L1, 14 flops; called twice, to count and to
 *             write 12 bytes a pair found. The rest: 8 to 24 bytes a pair found, from L2: bound by latency.
 * order       deterministic, no atomics: one warp or thread owns a row or an identity and goes through its boxes
 *             in the order of frames. Every sum that decides a matching is rounded as on the CPU (NumPy's order,
 *             no fused multiply-add), so that both make the same decisions.
 * measured    not measured
 * source      J. Luiten et al., HOTA: a higher order metric for evaluating multi-object tracking, 2021
 * arch        75 80 86 89 90 100 120
 */
#include "scalar.cuh"

constexpr int BLOCK = 256;
constexpr int LANES = 32;
constexpr unsigned ALL = 0xffffffffu;
constexpr int SUM_BLOCK = 128;  // NumPy sums up to so many numbers in eight interleaved parts
constexpr int SUM_DEPTH = 32;   // and halves longer rows

__device__ __forceinline__ int lane_id() { return threadIdx.x % LANES; }
__device__ __forceinline__ int64_t warp_id() { return ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / LANES; }
__device__ __forceinline__ int64_t warp_count() { return (int64_t)gridDim.x * BLOCK / LANES; }

struct Box {
  double x0, y0, x1, y1;
};

__device__ __forceinline__ Box load_box(const double* box, int64_t i) {
  return {box[4 * i], box[4 * i + 1], box[4 * i + 2], box[4 * i + 3]};
}

// A product that the compiler does not fuse with a sum: areas are rounded as on the CPU.
__device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }

__device__ __forceinline__ double overlap_of(const Box& a, const Box& b, double eps) {
  const double width = fmin(a.x1, b.x1) - fmax(a.x0, b.x0);
  const double height = fmin(a.y1, b.y1) - fmax(a.y0, b.y0);
  if (!(width > 0.0 && height > 0.0)) return 0.0;
  const double area_a = times(a.x1 - a.x0, a.y1 - a.y0), area_b = times(b.x1 - b.x0, b.y1 - b.y0);
  const double inter = times(width, height), both = area_a + area_b - inter;
  return area_a <= eps || area_b <= eps || both <= eps ? 0.0 : inter / both;
}

// Without pair_pred: pair_start[g + 1] = the number of pairs of row g. With it: the pairs, at pair_start[g].
extern "C" __global__ void __launch_bounds__(BLOCK, 4) mot_overlap(
    const double* __restrict__ gt_box,       // [rows, 4]
    const int64_t* __restrict__ gt_frame,    // [rows]
    const double* __restrict__ pred_box,     // [., 4]
    const int64_t* __restrict__ pred_start,  // [frames + 1]
    int64_t* pair_start,                     // [rows + 1]
    int32_t* pair_pred, double* pair_iou,    // [pairs] or null
    int64_t rows, double eps) {
  for (int64_t g = warp_id(); g < rows; g += warp_count()) {
    const Box own = load_box(gt_box, g);
    const int64_t first = pred_start[gt_frame[g]], last = pred_start[gt_frame[g] + 1];
    int64_t at = pair_pred ? pair_start[g] : 0;
    for (int64_t chunk = first; chunk < last; chunk += LANES) {
      const int64_t p = chunk + lane_id();
      const double iou = p < last ? overlap_of(own, load_box(pred_box, p), eps) : 0.0;
      const unsigned found = __ballot_sync(ALL, iou > 0.0);
      if (pair_pred && iou > 0.0) {
        const int64_t to = at + __popc(found & ((1u << lane_id()) - 1));
        pair_pred[to] = (int32_t)p;
        pair_iou[to] = iou;
      }
      at += __popc(found);
    }
    if (!pair_pred && lane_id() == 0) pair_start[g + 1] = at;
  }
}

// The entries of a line of a frame's matrix: their places, ascending, and their values.
struct RowEntries {
  const int32_t* pred;
  const double* iou;
  int64_t base;
  __device__ __forceinline__ int64_t place(int64_t e) const { return pred[e] - base; }
  __device__ __forceinline__ double value(int64_t e) const { return iou[e]; }
};

struct ColumnEntries {  // of a frame's only column: row after row, zero where a row has none
  const int64_t* start;
  const double* iou;
  int64_t first;
  __device__ __forceinline__ int64_t place(int64_t r) const { return r; }
  __device__ __forceinline__ double value(int64_t r) const {
    const int64_t e = start[first + r];
    return e < start[first + r + 1] ? iou[e] : 0.0;
  }
};

// The sum of up to SUM_BLOCK places from `low`, of the entries `first` to `last`, as NumPy rounds it.
template <class Entries>
__device__ double interleaved(const Entries& line, int64_t first, int64_t last, int64_t low, int n) {
  double total = 0.0;
  int64_t rest = first;
  if (n >= 8) {
    double part[8];
    const int64_t even = low + n - n % 8;
    while (rest < last && line.place(rest) < even) ++rest;
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      part[r] = 0.0;
      for (int64_t e = first; e < rest; ++e)
        if ((line.place(e) - low) % 8 == r) part[r] += line.value(e);
    }
    total = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
  }
  for (int64_t e = rest; e < last; ++e) total += line.value(e);
  return total;
}

// The sum of a line of n places: NumPy halves long ones, at multiples of eight, and adds pairwise.
template <class Entries>
__device__ double line_sum(const Entries& line, int64_t first, int64_t last, int64_t n) {
  if (n <= SUM_BLOCK) return interleaved(line, first, last, 0, (int)n);
  int waiting_depth[SUM_DEPTH];
  double waiting[SUM_DEPTH];
  int top = 0;
  for (int64_t low = 0; low < n;) {
    int64_t start = 0, size = n;
    int depth = 0;
    while (size > SUM_BLOCK) {
      const int64_t half = size / 2 - size / 2 % 8;
      ++depth;
      if (low >= start + half) {
        start += half;
        size -= half;
      } else {
        size = half;
      }
    }
    int64_t end = first;
    while (end < last && line.place(end) < low + size) ++end;
    double total = interleaved(line, first, end, low, (int)size);
    first = end;
    low += size;
    while (top > 0 && waiting_depth[top - 1] == depth) {
      total = waiting[--top] + total;
      --depth;
    }
    waiting_depth[top] = depth;
    waiting[top++] = total;
  }
  return waiting[0];
}

// The sum of each prediction's overlaps, over the ground truth in its order; a frame's only prediction is summed
// as NumPy sums a row.
extern "C" __global__ void __launch_bounds__(BLOCK, 4) mot_columns(
    const double* __restrict__ gt_box,       // [., 4]
    const int64_t* __restrict__ gt_start,    // [frames + 1]
    const double* __restrict__ pred_box,     // [rows, 4]
    const int64_t* __restrict__ pred_frame,  // [rows]
    const int64_t* __restrict__ pred_start,  // [frames + 1]
    const int64_t* __restrict__ pair_start, const double* __restrict__ pair_iou,
    double* column,  // [rows]
    int64_t rows, double eps) {
  for (int64_t p = warp_id(); p < rows; p += warp_count()) {
    const int64_t frame = pred_frame[p], first = gt_start[frame], last = gt_start[frame + 1];
    double total = 0.0;
    if (pred_start[frame + 1] - pred_start[frame] == 1) {
      if (lane_id() == 0) total = line_sum(ColumnEntries{pair_start, pair_iou, first}, 0, last - first, last - first);
    } else {
      const Box own = load_box(pred_box, p);
      for (int64_t chunk = first; chunk < last; chunk += LANES) {
        const int64_t g = chunk + lane_id();
        const double iou = g < last ? overlap_of(load_box(gt_box, g), own, eps) : 0.0;
        for (unsigned found = __ballot_sync(ALL, iou > 0.0); found; found &= found - 1)
          total += __shfl_sync(ALL, iou, __ffs(found) - 1);
      }
    }
    if (lane_id() == 0) column[p] = total;
  }
}

// weight = share of each pair.
extern "C" __global__ void __launch_bounds__(BLOCK, 4) mot_share(
    const int64_t* __restrict__ gt_frame,    // [rows]
    const int64_t* __restrict__ pred_start,  // [frames + 1]
    const int64_t* __restrict__ pair_start, const int32_t* __restrict__ pair_pred,
    const double* __restrict__ pair_iou,
    const double* __restrict__ column,  // sums of the predictions
    double* weight,                     // [pairs]
    int64_t rows, double eps) {
  for (int64_t g = (int64_t)blockIdx.x * BLOCK + threadIdx.x; g < rows; g += (int64_t)gridDim.x * BLOCK) {
    const int64_t base = pred_start[gt_frame[g]], cols = pred_start[gt_frame[g] + 1] - base;
    const int64_t first = pair_start[g], last = pair_start[g + 1];
    const double row = line_sum(RowEntries{pair_pred, pair_iou, base}, first, last, cols);
    for (int64_t e = first; e < last; ++e) {
      const double every = column[pair_pred[e]] + row - pair_iou[e];
      weight[e] = every > eps ? pair_iou[e] / every : 0.0;
    }
  }
}

// weight: from shares to agreement * IoU. Each warp has a row of sums, zero before and after.
extern "C" __global__ void __launch_bounds__(BLOCK, 4) mot_align(
    const int64_t* __restrict__ own_start,   // [identities + 1]
    const int64_t* __restrict__ own_row, const int64_t* __restrict__ own_sequence,
    const int64_t* __restrict__ pred_id,     // of each predicted row
    const int64_t* __restrict__ pred_count,  // boxes of each predicted identity
    const int64_t* __restrict__ pred_first,  // [sequences]: first predicted identity
    const int64_t* __restrict__ pair_start, const int32_t* __restrict__ pair_pred,
    const double* __restrict__ pair_iou,
    double* weight,
    double* workspace,  // [warps, most predicted identities of a sequence]
    int64_t identities, int64_t pitch) {
  double* potential = workspace + warp_id() * pitch;
  for (int64_t identity = warp_id(); identity < identities; identity += warp_count()) {
    const int64_t first = own_start[identity], last = own_start[identity + 1];
    const int64_t base = pred_first[own_sequence[identity]];
    for (int64_t i = first; i < last; ++i) {
      const int64_t g = own_row[i];
      for (int64_t e = pair_start[g] + lane_id(); e < pair_start[g + 1]; e += LANES)
        potential[pred_id[pair_pred[e]] - base] += weight[e];
      __syncwarp();
    }
    for (int64_t i = first; i < last; ++i) {
      const int64_t g = own_row[i];
      for (int64_t e = pair_start[g] + lane_id(); e < pair_start[g + 1]; e += LANES) {
        const int64_t p = pred_id[pair_pred[e]];
        const double together = potential[p - base];
        const double agreed = together / ((double)(last - first) + (double)pred_count[p] - together);
        weight[e] = times(agreed, pair_iou[e]);
      }
    }
    __syncwarp();
    for (int64_t i = first; i < last; ++i) {
      const int64_t g = own_row[i];
      for (int64_t e = pair_start[g] + lane_id(); e < pair_start[g + 1]; e += LANES)
        potential[pred_id[pair_pred[e]] - base] = 0.0;
      __syncwarp();
    }
  }
}

// In how many frames two identities overlap by the threshold: a dense matrix for each sequence, zero before.
extern "C" __global__ void __launch_bounds__(BLOCK, 4) mot_cooccur(
    const int64_t* __restrict__ own_start, const int64_t* __restrict__ own_row,
    const int64_t* __restrict__ own_sequence, const int64_t* __restrict__ pred_id,
    const int64_t* __restrict__ gt_first,    // [sequences]: first ground-truth identity
    const int64_t* __restrict__ pred_first,  // [sequences]
    const int64_t* __restrict__ pair_start, const int32_t* __restrict__ pair_pred,
    const double* __restrict__ pair_iou,
    double* count,  // [sequences, most identities, most predicted identities]
    int64_t identities, int64_t most_gt, int64_t most_pred, double threshold) {
  for (int64_t identity = warp_id(); identity < identities; identity += warp_count()) {
    const int64_t sequence = own_sequence[identity];
    double* row = count + (sequence * most_gt + identity - gt_first[sequence]) * most_pred;
    for (int64_t i = own_start[identity]; i < own_start[identity + 1]; ++i) {
      const int64_t g = own_row[i];
      for (int64_t e = pair_start[g] + lane_id(); e < pair_start[g + 1]; e += LANES)
        if (pair_iou[e] >= threshold) row[pred_id[pair_pred[e]] - pred_first[sequence]] += 1.0;
      __syncwarp();
    }
  }
}

// HOTA's five sums over the matched boxes of an identity, a lane for each level. The counts are zero before.
extern "C" __global__ void __launch_bounds__(BLOCK, 4) mot_associate(
    const int64_t* __restrict__ own_start, const int64_t* __restrict__ own_row,
    const int64_t* __restrict__ own_sequence, const int64_t* __restrict__ pred_id,
    const int64_t* __restrict__ pred_count, const int64_t* __restrict__ pred_first,
    const int64_t* __restrict__ mate,      // [rows]: a predicted row or -1
    const double* __restrict__ mate_iou,   // [rows]
    const double* __restrict__ level,      // [levels], ascending
    int32_t* workspace,                    // [warps, most predicted identities of a sequence, levels]
    double* sums,                          // [identities, 5, levels]
    int64_t identities, int64_t pitch, int levels) {
  const int a = lane_id();
  int32_t* count = workspace + warp_id() * pitch * levels;
  for (int64_t identity = warp_id(); identity < identities; identity += warp_count()) {
    const int64_t first = own_start[identity], last = own_start[identity + 1];
    const int64_t base = pred_first[own_sequence[identity]];
    if (a < levels) {  // a lane touches its own level's counts alone
      double tp = 0.0, located = 0.0, jaccard = 0.0, recall = 0.0, precision = 0.0;
      for (int64_t i = first; i < last; ++i) {
        const int64_t g = own_row[i];
        if (mate[g] >= 0 && mate_iou[g] >= level[a]) {
          count[(pred_id[mate[g]] - base) * levels + a] += 1;
          tp += 1.0;
          located += mate_iou[g];
        }
      }
      for (int64_t i = first; i < last; ++i) {
        const int64_t g = own_row[i];
        if (mate[g] < 0) continue;
        const int64_t p = pred_id[mate[g]];
        const double c = (double)count[(p - base) * levels + a];
        if (c > 0.0) {
          const double n_gt = (double)(last - first), n_pred = (double)pred_count[p];
          jaccard += times(c, c / fmax(1.0, n_gt + n_pred - c));
          recall += times(c, c / fmax(1.0, n_gt));
          precision += times(c, c / fmax(1.0, n_pred));
          count[(p - base) * levels + a] = 0;
        }
      }
      double* out = sums + identity * 5 * levels + a;
      out[0] = tp;
      out[levels] = located;
      out[2 * levels] = jaccard;
      out[3 * levels] = recall;
      out[4 * levels] = precision;
    }
  }
}

// Sums over the identities of each sequence.
extern "C" __global__ void __launch_bounds__(BLOCK, 4) mot_total(
    const double* __restrict__ sums,       // [identities, columns]
    const int64_t* __restrict__ gt_first,  // [sequences + 1]
    double* total,                         // [sequences, columns]
    int columns) {
  const int64_t sequence = blockIdx.x;
  for (int c = threadIdx.x; c < columns; c += BLOCK) {
    double all = 0.0;
    for (int64_t i = gt_first[sequence]; i < gt_first[sequence + 1]; ++i) all += sums[i * columns + c];
    total[sequence * columns + c] = all;
  }
}
