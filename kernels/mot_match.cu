/* mot_match.cu: matching ground truth with predictions, in all frames at once, and frame after frame for CLEAR.
 *
 * formula     per frame, the assignment of the greatest total weight over one-to-one pairs; a pair without an
 *             entry weighs 0 and is no match. Among optimal assignments the one that SciPy's
 *             linear_sum_assignment finds on the negated full matrix: rows are added one by one, Dijkstra's
 *             algorithm on the reduced costs finds the cheapest column that is free (Crouse's form of Jonker and
 *             Volgenant), and among equally near columns SciPy takes the last free one of its list, or else the
 *             first. mot_clear: weight = IoU where that reaches the threshold, + 1000 for the pair that was matched
 *             in the previous frame with boxes on both sides.
 * layout      see mot_pairs.cu; the lines of the search are the rows, or the columns where these are fewer. Scratch
 *             of a warp, in 8-byte words: float64 v, dist, line [width each], u [lines], then int32 path, line_of,
 *             remaining, seen [width each], place_of, line_seen [lines each].
 * launch      block (32, warps): a warp takes a frame (mot_match) or a sequence (mot_clear) at a time, any grid.
 *             Scratch in dynamic shared memory, or else in the workspace: 8 * words bytes a warp.
 * cost        about 1.5 searches a row; one is 40 bytes a column from shared memory and 5 x 3 shuffles: bound by
 *             latency. mot_clear solves only frames where boxes compete for one another beyond the pairs that
 *             continue; the others cost two passes over the pairs.
 * order       deterministic, one warp a frame; the same decisions as the CPU and SciPy to the last bit: the search
 *             is all sums and comparisons, in SciPy's order.
 * measured    not measured
 * source      D. F. Crouse, On implementing 2D rectangular assignment algorithms, IEEE Transactions on Aerospace
 *             and Electronic Systems 52(4), 2016; K. Bernardin, R. Stiefelhagen, CLEAR MOT metrics, 2008
 * arch        75 80 86 89 90 100 120
 */
#include "scalar.cuh"

constexpr int LANES = 32;
constexpr int MOST_WARPS = 4;
constexpr unsigned ALL = 0xffffffffu;
constexpr double CONTINUED = 1000.0;

struct Pairs {
  const int64_t* start;
  const int32_t* pred;
  const double* weight;
};

struct Frame {
  int64_t first, base;  // first row of each side
  int rows, cols;
};

struct Scratch {
  double *v, *dist, *line, *u;
  int32_t *path, *line_of, *remaining, *seen, *place_of, *line_seen;
};

__device__ __forceinline__ Scratch carve(double* words, int width, int lines) {
  Scratch s;
  s.v = words;
  s.dist = s.v + width;
  s.line = s.dist + width;
  s.u = s.line + width;
  s.path = (int32_t*)(s.u + lines);
  s.line_of = s.path + width;
  s.remaining = s.line_of + width;
  s.seen = s.remaining + width;
  s.place_of = s.seen + width;
  s.line_seen = s.place_of + lines;
  return s;
}

__device__ __forceinline__ Frame load_frame(const int64_t* gt_start, const int64_t* pred_start, int64_t frame) {
  const int64_t first = gt_start[frame], base = pred_start[frame];
  return {first, base, (int)(gt_start[frame + 1] - first), (int)(pred_start[frame + 1] - base)};
}

// The entry of a row and a column, -1 if there is none.
__device__ __forceinline__ int64_t find_entry(const Pairs& pairs, int64_t g, int64_t p) {
  for (int64_t e = pairs.start[g]; e < pairs.start[g + 1]; ++e)
    if (pairs.pred[e] == p) return e;
  return -1;
}

// Puts one line of the cost matrix, or zeros, at the places of its entries; the rest of `line` stays zero.
__device__ __forceinline__ void lay_line(const Pairs& pairs, const Frame& f, int line, bool clear, const Scratch& s) {
  const int lane = threadIdx.x;
  if (f.rows <= f.cols) {
    const int64_t g = f.first + line;
    for (int64_t e = pairs.start[g] + lane; e < pairs.start[g + 1]; e += LANES)
      if (pairs.weight[e] > 0.0) s.line[pairs.pred[e] - f.base] = clear ? 0.0 : -pairs.weight[e];
  } else {
    for (int r = lane; r < f.rows; r += LANES) {
      const int64_t e = find_entry(pairs, f.first + r, f.base + line);
      if (e >= 0 && pairs.weight[e] > 0.0) s.line[r] = clear ? 0.0 : -pairs.weight[e];
    }
  }
  __syncwarp();
}

// From a line without a place to the nearest free one; its distance comes back in `reached`.
__device__ int shortest_path(const Pairs& pairs, const Frame& f, int root, int lines, int width, const Scratch& s,
                             double& reached) {
  const int lane = threadIdx.x;
  for (int t = lane; t < width; t += LANES) {
    s.remaining[t] = width - 1 - t;
    s.seen[t] = 0;
    s.dist[t] = __longlong_as_double(0x7ff0000000000000ll);
  }
  for (int i = lane; i < lines; i += LANES) s.line_seen[i] = 0;
  reached = 0.0;
  int line = root, left = width;
  while (true) {
    __syncwarp();
    lay_line(pairs, f, line, false, s);
    const double u = s.u[line];
    double nearest = __longlong_as_double(0x7ff0000000000000ll);
    int code = 2 * width + 1;  // free places: the later the lower; taken ones behind them, the earlier the lower
    for (int t = lane; t < left; t += LANES) {
      const int place = s.remaining[t];
      const double there = reached + s.line[place] - u - s.v[place];
      double dist = s.dist[place];
      if (there < dist) {
        s.path[place] = line;
        s.dist[place] = dist = there;
      }
      const int own = s.line_of[place] < 0 ? width - t : width + 1 + t;
      if (dist < nearest || (dist == nearest && own < code)) {
        nearest = dist;
        code = own;
      }
    }
    for (int shift = LANES / 2; shift > 0; shift /= 2) {
      const double other = __shfl_xor_sync(ALL, nearest, shift);
      const int other_code = __shfl_xor_sync(ALL, code, shift);
      if (other < nearest || (other == nearest && other_code < code)) {
        nearest = other;
        code = other_code;
      }
    }
    __syncwarp();
    lay_line(pairs, f, line, true, s);
    reached = nearest;
    const int t = code <= width ? width - code : code - width - 1;
    const int place = s.remaining[t];
    --left;
    __syncwarp();
    if (lane == 0) {
      s.line_seen[line] = 1;
      s.seen[place] = 1;
      s.remaining[t] = s.remaining[left];
    }
    if (code <= width) return place;
    line = s.line_of[place];
  }
}

// The frame's assignment: place_of[line] and line_of[place].
__device__ void solve(const Pairs& pairs, const Frame& f, const Scratch& s) {
  const int lane = threadIdx.x;
  const int lines = min(f.rows, f.cols), width = max(f.rows, f.cols);
  for (int i = lane; i < lines; i += LANES) {
    s.place_of[i] = -1;
    s.u[i] = 0.0;
  }
  for (int j = lane; j < width; j += LANES) {
    s.line_of[j] = -1;
    s.v[j] = 0.0;
    s.line[j] = 0.0;
  }
  for (int root = 0; root < lines; ++root) {
    __syncwarp();
    double reached;
    int place = shortest_path(pairs, f, root, lines, width, s, reached);
    __syncwarp();
    for (int i = lane; i < lines; i += LANES)
      if (i == root)
        s.u[i] += reached;
      else if (s.line_seen[i])
        s.u[i] += reached - s.dist[s.place_of[i]];
    for (int j = lane; j < width; j += LANES)
      if (s.seen[j]) s.v[j] -= reached - s.dist[j];
    __syncwarp();
    if (lane == 0)
      for (int line = -1; line != root;) {
        line = s.path[place];
        s.line_of[place] = line;
        const int before = s.place_of[line];
        s.place_of[line] = place;
        place = before;
      }
  }
  __syncwarp();
}

// The entry of row r's pair in the assignment, -1 if it has none that weighs anything.
__device__ __forceinline__ int64_t entry_of_mate(const Pairs& pairs, const Frame& f, int r, const Scratch& s) {
  const int col = f.rows <= f.cols ? s.place_of[r] : s.line_of[r];
  const int64_t e = col < 0 ? -1 : find_entry(pairs, f.first + r, f.base + col);
  return e >= 0 && pairs.weight[e] > 0.0 ? e : -1;
}

extern "C" __global__ void __launch_bounds__(LANES * MOST_WARPS, 4) mot_match(
    const int64_t* __restrict__ gt_start, const int64_t* __restrict__ pred_start,  // [frames + 1]
    const int64_t* __restrict__ pair_start, const int32_t* __restrict__ pair_pred,
    const double* __restrict__ pair_iou, const double* __restrict__ weight,
    int64_t* mate,      // [rows]: a predicted row or -1
    double* mate_iou,   // [rows]
    double* workspace,  // null: shared memory
    int64_t frames, int64_t words) {
  extern __shared__ __align__(16) double scratch[];
  const int lane = threadIdx.x;
  const int64_t warp = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, warps = (int64_t)gridDim.x * blockDim.y;
  double* own = workspace ? workspace + warp * words : scratch + threadIdx.y * words;
  const Pairs pairs = {pair_start, pair_pred, weight};
  for (int64_t frame = warp; frame < frames; frame += warps) {
    const Frame f = load_frame(gt_start, pred_start, frame);
    const bool both = f.rows > 0 && f.cols > 0;
    const Scratch s = carve(own, max(f.rows, f.cols), min(f.rows, f.cols));
    __syncwarp();  // the scratch is laid out anew
    if (both) solve(pairs, f, s);
    for (int r = lane; r < f.rows; r += LANES) {
      const int64_t e = both ? entry_of_mate(pairs, f, r, s) : -1;
      mate[f.first + r] = e >= 0 ? pair_pred[e] : -1;
      mate_iou[f.first + r] = e >= 0 ? pair_iou[e] : 0.0;
    }
  }
}

__device__ __forceinline__ int64_t warp_sum(int64_t value) {
  for (int shift = LANES / 2; shift > 0; shift /= 2) value += __shfl_xor_sync(ALL, value, shift);
  return value;
}

__device__ __forceinline__ double warp_sum(double value) {
  for (int shift = LANES / 2; shift > 0; shift /= 2) value += __shfl_xor_sync(ALL, value, shift);
  return value;
}

// Matches the pairs of a frame that no other claims; true if that settles it.
__device__ bool settle(const Pairs& pairs, const Frame& f, int64_t* mate, const Scratch& s) {
  const int lane = threadIdx.x;
  int32_t *taken = s.line_of, *claims = s.seen;  // of each column
  for (int c = lane; c < f.cols; c += LANES) taken[c] = claims[c] = 0;
  __syncwarp();
  for (int r = lane; r < f.rows; r += LANES) {
    const int64_t g = f.first + r;
    for (int64_t e = pairs.start[g]; e < pairs.start[g + 1]; ++e)
      if (pairs.weight[e] >= CONTINUED) {  // its rivals together are worth less
        mate[g] = pairs.pred[e];
        taken[pairs.pred[e] - f.base] = 1;
      }
  }
  __syncwarp();
  bool alone = true;
  for (int r = lane; r < f.rows; r += LANES) {
    const int64_t g = f.first + r;
    int choices = 0;
    for (int64_t e = mate[g] < 0 ? pairs.start[g] : pairs.start[g + 1]; e < pairs.start[g + 1]; ++e)
      if (pairs.weight[e] > 0.0 && !taken[pairs.pred[e] - f.base]) {
        atomicAdd(&claims[pairs.pred[e] - f.base], 1);
        ++choices;
      }
    alone &= choices <= 1;
  }
  __syncwarp();
  for (int c = lane; c < f.cols; c += LANES) alone &= claims[c] <= 1;
  if (__ballot_sync(ALL, !alone)) return false;
  for (int r = lane; r < f.rows; r += LANES) {
    const int64_t g = f.first + r;
    for (int64_t e = mate[g] < 0 ? pairs.start[g] : pairs.start[g + 1]; e < pairs.start[g + 1]; ++e)
      if (pairs.weight[e] > 0.0 && !taken[pairs.pred[e] - f.base]) mate[g] = pairs.pred[e];
  }
  return true;
}

// counts [sequences, 6]: true positives, switches, times that tracking began again, identities mostly tracked, at
// least partly tracked, frames with boxes on both sides.
extern "C" __global__ void __launch_bounds__(LANES, 4) mot_clear(
    const int64_t* __restrict__ frame_start,  // [sequences + 1]
    const int64_t* __restrict__ gt_first,     // [sequences + 1]: identities
    const int64_t* __restrict__ gt_start, const int64_t* __restrict__ gt_id,
    const int64_t* __restrict__ pred_start, const int64_t* __restrict__ pred_id,
    const int64_t* __restrict__ pair_start, const int32_t* __restrict__ pair_pred,
    const double* __restrict__ pair_iou,
    double* weight,      // [pairs]
    int64_t* track,      // [5, identities]: boxes, matched, last mate, frame of the last match, begun
    int64_t* mate,       // [rows]
    int64_t* switched,   // [rows]
    int64_t* counts,     // [sequences, 6]
    double* overlap,     // [sequences]
    double* workspace,   // null: shared memory
    int64_t sequences, int64_t identities, int64_t words, double threshold) {
  extern __shared__ __align__(16) double scratch[];
  const int lane = threadIdx.x;
  double* own = workspace ? workspace + (int64_t)blockIdx.x * words : scratch;
  const Pairs pairs = {pair_start, pair_pred, weight};
  int64_t *boxes = track, *matched = track + identities, *last_mate = track + 2 * identities,
          *last_seen = track + 3 * identities, *begun = track + 4 * identities;
  for (int64_t sequence = blockIdx.x; sequence < sequences; sequence += gridDim.x) {
    int64_t tp = 0, switches = 0, scored = 0;
    double overlaps = 0.0;
    for (int64_t i = gt_first[sequence] + lane; i < gt_first[sequence + 1]; i += LANES) {
      boxes[i] = matched[i] = begun[i] = 0;
      last_mate[i] = -1;
      last_seen[i] = -2;
    }
    for (int64_t frame = frame_start[sequence]; frame < frame_start[sequence + 1]; ++frame) {
      const Frame f = load_frame(gt_start, pred_start, frame);
      const bool both = f.rows > 0 && f.cols > 0;
      const Scratch s = carve(own, max(f.rows, f.cols), min(f.rows, f.cols));
      __syncwarp();
      for (int r = lane; r < f.rows; r += LANES) {
        const int64_t g = f.first + r, identity = gt_id[g];
        boxes[identity] += 1;
        mate[g] = -1;
        switched[g] = 0;
        const int64_t before = last_seen[identity] == scored - 1 ? last_mate[identity] : -1;
        for (int64_t e = pair_start[g]; e < pair_start[g + 1]; ++e) {
          const double iou = pair_iou[e];
          weight[e] = iou < threshold ? 0.0 : pred_id[pair_pred[e]] == before ? CONTINUED + iou : iou;
        }
      }
      if (!both) continue;
      __syncwarp();
      const bool settled = settle(pairs, f, mate, s);
      __syncwarp();
      if (!settled) solve(pairs, f, s);
      for (int r = lane; r < f.rows; r += LANES) {
        const int64_t g = f.first + r, identity = gt_id[g];
        const int64_t e = !settled ? entry_of_mate(pairs, f, r, s) : mate[g] < 0 ? -1 : find_entry(pairs, g, mate[g]);
        mate[g] = e < 0 ? -1 : pair_pred[e];
        if (e < 0) continue;
        const int64_t found = pred_id[pair_pred[e]];
        overlaps += pair_iou[e];
        ++tp;
        if (last_mate[identity] >= 0 && last_mate[identity] != found) {
          switched[g] = 1;
          ++switches;
        }
        if (last_seen[identity] != scored - 1) begun[identity] += 1;
        matched[identity] += 1;
        last_mate[identity] = found;
        last_seen[identity] = scored;
      }
      ++scored;
    }
    __syncwarp();
    int64_t again = 0, most = 0, partly = 0;
    for (int64_t i = gt_first[sequence] + lane; i < gt_first[sequence + 1]; i += LANES) {
      const double share = (double)matched[i] / (double)boxes[i];
      most += share > 0.8;
      partly += share >= 0.2;
      again += begun[i] > 1 ? begun[i] - 1 : 0;
    }
    const int64_t all[6] = {warp_sum(tp), warp_sum(switches), warp_sum(again), warp_sum(most), warp_sum(partly), scored};
    overlaps = warp_sum(overlaps);
    if (lane == 0) {
      for (int k = 0; k < 6; ++k) counts[sequence * 6 + k] = all[k];
      overlap[sequence] = overlaps;
    }
  }
}
