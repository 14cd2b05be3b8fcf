/* upsample.cu: enlarged logits used up at once, as labels or as a cross entropy, and the gradient of the latter.
 *
 * formula     z[n, c] = A_h x[n, c] A_w^T, bilinear, as resize.cu has it to the last bit (TAPS = 2).
 *             upsample_argmax: labels[n, i, j] = the first c of the largest z[n, c, i, j]; NaN is largest.
 *             upsample_entropy: lse = log sum_c exp z[c]; with S = sum_c w[c] the loss of a pixel of class t is
 *             (1 - e) w[t] (lse - z[t]) + e / C (S lse - sum_c w[c] z[c]).
 *             upsample_entropy_vjp: gx[n, c] = A_h^T q[n, c] A_w, where for the gradient g of the loss
 *             q[c] = g ((1 - e) w[t] (p[c] - [c = t]) + e / C (S p[c] - w[c])), p = exp(z - lse).
 * layout      logits [N, C, h, w] by strides, in elements; labels, target, losses, lse [N, H, W]; gx [N, C, h, w].
 * launch      upsample_argmax, upsample_entropy: a thread owns a column of a band of rows; for each class it
 *             walks down the band, the rows of logits interpolated along w in registers, and keeps the best
 *             class, or the largest logit and the sum of exponentials so far, of each of its pixels. The few
 *             logits that a warp needs are in L1: 8 loads serve 16 rows of a class at x8.
 *             upsample_entropy_vjp: a block owns ROWS x cols logits of CLASSES classes; as resize_adjoint, it
 *             sums down the columns first, then along them in shared memory. lse is had from a first pass.
 * cost        bytes: logits, and labels, target or lse once; the vjp reads target and lse C / CLASSES times,
 *             from L2. operations an enlarged logit: argmax 6, entropy 9 and an exponential, vjp 16 and one.
 *             H100 at 30 T operations/s, batch 8, logits of 16 bits: VOC 21 x 65^2 to 513^2 9, 15, 35 us (bound 6.5
 *             of the argmax, 9.8 of the loss); Cityscapes 19 x 128 x 256 to 1024 x 2048 65, 105, 240 us (47, 71); ADE
 *             150 x 64^2 to 512^2 63, 100, 230 us (47, 70).
 * order       every sum in a fixed order, no atomics: the same bits from run to run.
 * measured    not measured
 * source      ours; definitions of torch.nn.functional.cross_entropy. M. Milakov, N. Gimelshein, Online normalizer
 *             calculation for softmax, 2018, algorithm 3.
 * arch        75 80 86 89 90 100 120
 * hot         upsample_argmax upsample_entropy upsample_entropy_vjp
 * specialise  real = float32 float64 float16 bfloat16; TAPS = 2; LABEL = 1 4 8
 */
#include "sampling.cuh"

template <int BYTES> struct integer { using type = uint8_t; };
template <> struct integer<4> { using type = int32_t; };
template <> struct integer<8> { using type = int64_t; };
using label_t = integer<LABEL>::type;

constexpr int COLUMNS = 128;  // threads of a block that goes down columns
constexpr int BLOCK = 256;
constexpr int BAND = 16;      // rows of labels of a thread
constexpr int LOSSES = 8;     // rows of losses of a thread
constexpr int ROWS = 4;       // rows of logits that a block of the vjp owns
constexpr int CLASSES = 4;    // and classes
constexpr int EACH = 4;       // logits that a thread of it owns
constexpr int TABLE = 64;     // rows whose taps are in shared memory at a time
constexpr int RESIDENT = sizeof(acc) == 8 ? 1 : 2;  // blocks of the vjp that a multiprocessor holds at least

struct Logits {
  const real* p;
  int64_t n, c, h, w;  // strides
};

__device__ __forceinline__ float exponential(float x) { return exp2_approx(x * 1.4426950408889634f); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

__device__ __forceinline__ acc infinity() { return acc(__int_as_float(0x7f800000)); }
__device__ __forceinline__ acc not_a_number() { return acc(__int_as_float(0x7fffffff)); }

// sum + w v, where a weight of zero takes nothing, not even of an infinity.
__device__ __forceinline__ acc add(acc sum, acc w, acc v) { return w != acc(0) ? fma(w, v, sum) : sum; }

// A column of enlarged logits, read from top to bottom.
struct Column {
  const real *left, *right;
  acc of_left, of_right;
  int64_t step;
  int rows, next;
  acc held[2];  // rows next - 2 and next - 1 of the logits, interpolated along w

  __device__ __forceinline__ Column(const Logits& x, int64_t n, int c, const Axis& h, const Axis& w, const Taps& t,
                                    int first) {
    const real* plane = x.p + n * x.n + c * x.c;
    left = plane + clamp(t.first, w.in) * x.w;
    right = plane + clamp(t.first + 1, w.in) * x.w;
    of_left = t.w[0], of_right = t.w[1];
    step = x.h, rows = h.in, next = first;
    held[0] = held[1] = acc(0);
  }

  // At rows that do not go up.
  __device__ __forceinline__ acc at(const Taps& t) {
    for (next = max(next, t.first); next < t.first + 2; ++next) {
      const int64_t row = clamp(next, rows) * step;
      held[0] = held[1];
      held[1] = add(add(acc(0), of_left, load(left[row])), of_right, load(right[row]));
    }
    return add(add(acc(0), t.w[0], held[0]), t.w[1], held[1]);
  }
};

// ---- argmax ---------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(COLUMNS, 2 * RESIDENT)
upsample_argmax(const real* __restrict__ x, label_t* __restrict__ labels, int64_t images, int classes,
                int64_t n_step, int64_t c_step, int64_t h_step, int64_t w_step, int h_in, int w_in, int h_out,
                int w_out, double h_scale, double h_center, double w_scale, double w_center) {
  __shared__ Taps row[BAND];
  const Axis h = {h_in, h_out, h_scale, h_center}, w = {w_in, w_out, w_scale, w_center};
  const Logits logits = {x, n_step, c_step, h_step, w_step};
  const int tiles = (w_out + COLUMNS - 1) / COLUMNS;
  const int column = (int)(blockIdx.x % tiles) * COLUMNS + threadIdx.x, top = (int)(blockIdx.x / tiles) * BAND;
  if (threadIdx.x < BAND) row[threadIdx.x] = taps(h, min(top + (int)threadIdx.x, h_out - 1));
  __syncthreads();
  const Taps across = taps(w, min(column, w_out - 1));
  for (int64_t n = blockIdx.y; n < images; n += gridDim.y) {
    acc best[BAND];
    int label[BAND];
    for (int c = 0; c < classes; ++c) {
      Column z(logits, n, c, h, w, across, row[0].first);
#pragma unroll
      for (int r = 0; r < BAND; ++r) {
        const acc v = z.at(row[r]);
        if (c == 0 || v > best[r] || (v != v && best[r] == best[r])) best[r] = v, label[r] = c;
      }
    }
#pragma unroll
    for (int r = 0; r < BAND; ++r) {
      if (column < w_out && top + r < h_out) labels[(n * h_out + top + r) * w_out + column] = (label_t)label[r];
    }
  }
}

// ---- cross entropy --------------------------------------------------------------------------------------

__device__ __forceinline__ acc weight_of(const real* weight, int64_t c) { return weight ? load(weight[c]) : acc(1); }

__device__ __forceinline__ acc sum_of_weights(const real* weight, int classes) {
  acc sum = weight ? acc(0) : acc(classes);
  for (int c = 0; weight && c < classes; ++c) sum += load(weight[c]);
  return sum;
}

// The sum over a block in a fixed order, in sums[0].
__device__ __forceinline__ void block_sum(double* sums, double own, int threads) {
  sums[threadIdx.x] = own;
  __syncthreads();
  for (int k = threads / 2; k; k /= 2) {
    if (threadIdx.x < k) sums[threadIdx.x] += sums[threadIdx.x + k];
    __syncthreads();
  }
}

// Writes what is not null: losses, lse, and for each block its sums of losses and of weights.
extern "C" __global__ void __launch_bounds__(COLUMNS, 2 * RESIDENT)
upsample_entropy(const real* __restrict__ x, const label_t* __restrict__ target, const real* __restrict__ weight,
                 real* __restrict__ losses,     // [images, h_out, w_out]
                 acc* __restrict__ lse,         // [images, h_out, w_out]
                 double* __restrict__ partial,  // [2, blocks]
                 int64_t images, int classes, int ignore, double smoothing, int64_t n_step, int64_t c_step,
                 int64_t h_step, int64_t w_step, int h_in, int w_in, int h_out, int w_out, double h_scale,
                 double h_center, double w_scale, double w_center) {
  __shared__ Taps row[LOSSES];
  __shared__ double sums[COLUMNS];
  const Axis h = {h_in, h_out, h_scale, h_center}, w = {w_in, w_out, w_scale, w_center};
  const Logits logits = {x, n_step, c_step, h_step, w_step};
  const int tiles = (w_out + COLUMNS - 1) / COLUMNS;
  const int column = (int)(blockIdx.x % tiles) * COLUMNS + threadIdx.x, top = (int)(blockIdx.x / tiles) * LOSSES;
  if (threadIdx.x < LOSSES) row[threadIdx.x] = taps(h, min(top + (int)threadIdx.x, h_out - 1));
  __syncthreads();
  const Taps across = taps(w, min(column, w_out - 1));
  const acc alone = acc(1 - smoothing), shared = acc(smoothing / classes);
  const acc weights = smoothing != 0 ? sum_of_weights(weight, classes) : acc(0);
  double loss_sum = 0, weight_sum = 0;
  for (int64_t n = blockIdx.y; n < images; n += gridDim.y) {
    acc most[LOSSES], total[LOSSES], own[LOSSES], all[LOSSES];
    int64_t wanted[LOSSES];
#pragma unroll
    for (int r = 0; r < LOSSES; ++r) {
      most[r] = -infinity(), total[r] = own[r] = all[r] = acc(0);
      const bool there = column < w_out && top + r < h_out;
      wanted[r] = there ? (int64_t)target[(n * h_out + top + r) * w_out + column] : ignore;
    }
    for (int c = 0; c < classes; ++c) {
      Column z(logits, n, c, h, w, across, row[0].first);
      const acc w_c = smoothing != 0 ? weight_of(weight, c) : acc(0);
#pragma unroll
      for (int r = 0; r < LOSSES; ++r) {
        const acc v = z.at(row[r]);
        const acc e = v == most[r] ? acc(1) : exponential(-fabs(v - most[r]));
        total[r] = v > most[r] ? fma(total[r], e, acc(1)) : total[r] + e;
        most[r] = max(most[r], v);
        own[r] = c == wanted[r] ? v : own[r];
        if (smoothing != 0) all[r] = fma(w_c, v, all[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < LOSSES; ++r) {
      if (column >= w_out || top + r >= h_out) continue;
      const acc entropy = most[r] + logarithm(total[r]);
      const bool counts = wanted[r] != ignore;
      const bool good = wanted[r] >= 0 && wanted[r] < classes;
      const acc w_t = counts && good ? weight_of(weight, wanted[r]) : acc(0);
      acc loss = alone * w_t * (entropy - own[r]);
      if (smoothing != 0) loss += shared * (weights * entropy - all[r]);
      loss = !counts ? acc(0) : good ? loss : not_a_number();
      const int64_t at = (n * h_out + top + r) * w_out + column;
      if (losses) store(losses + at, loss);
      if (lse) lse[at] = entropy;
      loss_sum += double(loss);
      weight_sum += double(w_t);
    }
  }
  if (!partial) return;
  const int64_t blocks = (int64_t)gridDim.x * gridDim.y, block = (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
  block_sum(sums, loss_sum, COLUMNS);
  if (threadIdx.x == 0) partial[block] = sums[0];
  __syncthreads();
  block_sum(sums, weight_sum, COLUMNS);
  if (threadIdx.x == 0) partial[blocks + block] = sums[0];
}

// One block: the loss, a mean or a sum, and the sum of the weights.
extern "C" __global__ void __launch_bounds__(BLOCK)
upsample_entropy_total(const double* __restrict__ partial,  // [2, blocks]
                       real* __restrict__ loss,             // []
                       double* __restrict__ share,          // []
                       int64_t blocks, int mean) {
  __shared__ double sums[BLOCK];
  double own[2] = {};
  for (int64_t k = threadIdx.x; k < blocks; k += BLOCK) {
    own[0] += partial[k];
    own[1] += partial[blocks + k];
  }
  block_sum(sums, own[1], BLOCK);
  const double weights = sums[0];
  __syncthreads();
  block_sum(sums, own[0], BLOCK);
  if (threadIdx.x == 0) {
    store(loss, acc(mean ? sums[0] / weights : sums[0]));
    *share = weights;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT)
upsample_entropy_vjp(const real* __restrict__ x, const label_t* __restrict__ target, const real* __restrict__ weight_,
                     const acc* __restrict__ lse,       // [images, h_out, w_out]
                     const real* __restrict__ grad,     // [images, h_out, w_out] or []
                     const double* __restrict__ share,  // [] or null: what the gradient is divided by
                     real* __restrict__ gx,             // [images, classes, h_in, w_in]
                     int64_t images, int classes, int ignore, double smoothing, int by_pixel, int64_t n_step,
                     int64_t c_step, int64_t h_step, int64_t w_step, int h_in, int w_in, int h_out, int w_out,
                     double h_scale, double h_center, double w_scale, double w_center, int cols) {
  __shared__ acc sums[ROWS][CLASSES][BLOCK];
  __shared__ Taps row[TABLE], along[BLOCK];
  __shared__ vec<acc, ROWS> down[TABLE];
  __shared__ int begin[BLOCK], end[BLOCK];
  const Axis h = {h_in, h_out, h_scale, h_center}, w = {w_in, w_out, w_scale, w_center};
  const Logits logits = {x, n_step, c_step, h_step, w_step};
  const int t = threadIdx.x;
  const int col_tiles = (w_in + cols - 1) / cols, row_tiles = (h_in + ROWS - 1) / ROWS;
  const int left = (int)(blockIdx.x % col_tiles) * cols, wide = min(cols, w_in - left);
  const int top = (int)(blockIdx.x / col_tiles % row_tiles) * ROWS;
  const int class0 = (int)(blockIdx.x / col_tiles / row_tiles) * CLASSES;
  if (t < wide) {
    begin[t] = outputs_begin(w, left + t);
    end[t] = outputs_end(w, left + t);
  }
  const int rows_begin = outputs_begin(h, top), rows_end = outputs_end(h, min(top + ROWS, h_in) - 1);
  __syncthreads();
  const int columns_begin = begin[0], columns_end = end[wide - 1];
  const acc alone = acc(1 - smoothing), shared = acc(smoothing / classes);
  const acc weights = smoothing != 0 ? sum_of_weights(weight_, classes) : acc(0);
  const double pixels = share ? *share : 1.0;
  const acc factor = pixels != 0 ? acc((by_pixel ? 1.0 : double(load(*grad))) / pixels) : acc(0);

  for (int64_t n = blockIdx.y; n < images; n += gridDim.y) {
    acc result[EACH] = {};
    for (int c0 = columns_begin; c0 < columns_end; c0 += BLOCK) {
      const int column = c0 + t;
      const bool reads = column < columns_end;
      const Taps across = taps(w, min(column, w_out - 1));
      acc sum[CLASSES][ROWS] = {};
      for (int r0 = rows_begin; r0 < rows_end; r0 += TABLE) {
        const int count = min(TABLE, rows_end - r0);
        __syncthreads();
        if (t < count) {
          row[t] = taps(h, r0 + t);
#pragma unroll
          for (int i = 0; i < ROWS; ++i) down[t].v[i] = weight(row[t], top + i, h_in);
        }
        __syncthreads();
        if (!reads) continue;
        Column z[CLASSES] = {
            {logits, n, min(class0, classes - 1), h, w, across, row[0].first},
            {logits, n, min(class0 + 1, classes - 1), h, w, across, row[0].first},
            {logits, n, min(class0 + 2, classes - 1), h, w, across, row[0].first},
            {logits, n, min(class0 + 3, classes - 1), h, w, across, row[0].first},
        };
        const int64_t from = (n * h_out + r0) * w_out + column;
        for (int r = 0; r < count; ++r) {
          const int64_t at = from + (int64_t)r * w_out;
          const int64_t label = (int64_t)target[at];
          const bool counts = label != ignore;
          const int wanted = label >= 0 && label < classes ? (int)label : -1;
          const acc g = !counts ? acc(0) : wanted < 0 ? not_a_number() : by_pixel ? factor * load(grad[at]) : factor;
          const acc of_target = g * alone * (wanted < 0 ? acc(0) : weight_of(weight_, wanted));
          const acc of_all = g * shared, each = fma(of_all, weights, of_target), entropy = lse[at];
#pragma unroll
          for (int e = 0; e < CLASSES; ++e) {
            const acc p = exponential(z[e].at(row[r]) - entropy);
            acc q = each != acc(0) ? each * p : acc(0);
            if (smoothing != 0) q -= of_all * weight_of(weight_, min(class0 + e, classes - 1));
            q -= class0 + e == wanted ? of_target : acc(0);
#pragma unroll
            for (int i = 0; i < ROWS; ++i) sum[e][i] = fma(down[r].v[i], q, sum[e][i]);
          }
        }
      }
      __syncthreads();  // the sums and taps of the columns before have been read
      along[t] = across;
#pragma unroll
      for (int e = 0; e < CLASSES; ++e) {
#pragma unroll
        for (int i = 0; i < ROWS; ++i) sums[i][e][t] = sum[e][i];
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < EACH; ++k) {
        const int item = k * BLOCK + t, j = item % cols, i = item / cols % ROWS, e = item / cols / ROWS;
        if (e >= CLASSES || j >= wide) continue;
        const int last = min(c0 + BLOCK, end[j]);
        for (int c = max(c0, begin[j]); c < last; ++c) {
          result[k] = add(result[k], weight(along[c - c0], left + j, w_in), sums[i][e][c - c0]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
      const int item = k * BLOCK + t, j = item % cols, i = item / cols % ROWS, e = item / cols / ROWS;
      if (e >= CLASSES || j >= wide || top + i >= h_in || class0 + e >= classes) continue;
      store(gx + ((n * classes + class0 + e) * h_in + top + i) * w_in + left + j, result[k]);
    }
  }
}
