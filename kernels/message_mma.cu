/* message_mma.cu: message passing forward on the tensor cores, for 16-bit states.
 *
 * formula     as message_edge and message_sum of message.cu. A warp does 16 rows: 16 hidden units at a time are a product
 *             of its inputs, to which the table's part is added, and at once one term of the second layer's products: as
 *             they leave the first, they lie as the second wants them
 * layout      as message.cu; weights in shared memory by outputs, padded with zeros to whole tiles of 16 and 8; inputs and
 *             results of a warp's rows in registers. C0, Ce, Cn and H are even, C0 + Ce at most 16 STEPS, results 8 PARTS
 * launch      256 threads, 128 rows at a time. message_edge_mma: any number of blocks, which share the edges;
 *             message_sum_mma: some nodes a block, blockIdx.y the stream (or both streams in turn, `together`)
 * cost        flops as message.cu, half of its bytes of states; the table's sums, 2 H and H floats a row from L2, are the
 *             most: 64 and 22 MB a step of 100,000 edges and messages, 22 us at 4 TB/s. Predicted, not measured
 * order       16 products at a time inside the instruction; messages of a node in the order of its entries; no atomics: the
 *             same bits on every run. Hidden units are rounded to 16 bits, sums are in float
 * measured    not measured
 * hot         message_edge_mma message_sum_mma
 * source      fragments: PTX ISA, section 9.7.14; a result as the next operand: T. Dao et al., FlashAttention, 2022 (idea)
 * arch        80 86 89 90 100 120
 * specialise  real = float16 bfloat16; STEPS = 1 2 4; PARTS = 2 4
 */
constexpr int TILE = 128, THREADS = 256;
#include "conv_multiply.cuh"
#include "message.cuh"

constexpr int PAD = 8;  // numbers between rows of weights: the lanes of a fragment meet different banks
constexpr int INPUTS = 16 * STEPS + PAD;

__device__ __forceinline__ unsigned bits(float x) {
  real r;
  store(&r, x);
  return r.bits;
}

__device__ __forceinline__ unsigned pair(float low, float high) { return bits(low) | bits(high) << 16; }

// Weights of both layers in shared memory.
struct Weights {
  unsigned short *first, *second;  // [width, INPUTS], [8 PARTS, width + PAD]
  int width;                       // hidden units in whole tiles

  __device__ Weights(unsigned short* space, int hidden) : first(space), width((hidden + 15) / 16 * 16) {
    second = first + width * INPUTS;
  }

  __device__ void bring(const real* w1, int64_t stride, int from, int inputs, const real* w2, int hidden, int outputs) {
    for (int at = threadIdx.x; at < width * 16 * STEPS; at += THREADS) {
      const int k = at % (16 * STEPS), j = at / (16 * STEPS);
      first[j * INPUTS + k] = k < inputs && j < hidden ? w1[j * stride + from + k].bits : (unsigned short)0;
    }
    for (int at = threadIdx.x; at < 8 * PARTS * width; at += THREADS) {
      const int k = at % width, j = at / width;
      second[j * (width + PAD) + k] = k < hidden && j < outputs ? w2[(int64_t)j * hidden + k].bits : (unsigned short)0;
    }
  }

  // The lane's part of 16 x 8 weights, inputs from k, outputs from j.
  __device__ static void fragment(const unsigned short* rows, int pitch, int j, int k, unsigned (&b)[2]) {
    const unsigned short* at = rows + (j + threadIdx.x % 32 / 4) * pitch + k + threadIdx.x % 4 * 2;
    b[0] = *reinterpret_cast<const unsigned*>(at);
    b[1] = *reinterpret_cast<const unsigned*>(at + 8);
  }

  // out += the second layer of the first; start(half, j) is what two hidden units, from j on, of row g + 8 half start from.
  template <class Start>
  __device__ __forceinline__ void apply(const unsigned (&x)[STEPS][4], float (&out)[PARTS][4], int hidden,
                                        Start start) const {
    const int column = threadIdx.x % 4 * 2;
    for (int unit = 0; unit < width; unit += 16) {
      float sum[2][4];
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const int j = unit + 8 * q + column;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const vec<float, 2> v = j < hidden ? start(half, j) : vec<float, 2>{{0.0f, 0.0f}};
          sum[q][2 * half] = v.v[0];
          sum[q][2 * half + 1] = v.v[1];
        }
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
          unsigned b[2];
          fragment(first, INPUTS, unit + 8 * q, 16 * s, b);
          multiply(sum[q], x[s], b, real{});
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[q][e] = relu(sum[q][e]);
      }
      const unsigned a[4] = {pair(sum[0][0], sum[0][1]), pair(sum[0][2], sum[0][3]), pair(sum[1][0], sum[1][1]),
                             pair(sum[1][2], sum[1][3])};
#pragma unroll
      for (int p = 0; p < PARTS; ++p) {
        unsigned b[2];
        fragment(second, width + PAD, 8 * p, unit, b);
        multiply(out[p], a, b, real{});
      }
    }
  }
};

__device__ __forceinline__ unsigned two(const real* at) { return *reinterpret_cast<const unsigned*>(at); }

__device__ __forceinline__ void start_from(const real* b2, int outputs, float (&out)[PARTS][4]) {
#pragma unroll
  for (int p = 0; p < PARTS; ++p)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int j = 8 * p + threadIdx.x % 4 * 2 + e % 2;
      out[p][e] = j < outputs ? load(b2[j]) : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) message_edge_mma(
    const acc* __restrict__ table,                                      // [N, 2 H]
    const int32_t* __restrict__ row, const int32_t* __restrict__ col,   // [E]
    const real* __restrict__ initial, const real* __restrict__ edges,   // [E, C0], [E, Ce]
    const real* __restrict__ w1, const real* __restrict__ w2,           // [H, 2 Cn + C0 + Ce], [Ce, H]
    const real* __restrict__ b2, real* __restrict__ out,                // [Ce], [E, Ce]
    int64_t count, int channels, int c0, int ce, int width) {
  extern __shared__ __align__(32) unsigned char space[];
  Weights weights(reinterpret_cast<unsigned short*>(space), width);
  weights.bring(w1, 2 * channels + c0 + ce, 2 * channels, c0 + ce, w2, width, ce);
  __syncthreads();
  const int g = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
  for (int64_t first = (int64_t)blockIdx.x * TILE; first < count; first += (int64_t)gridDim.x * TILE) {
    int64_t edge[2], ends[2][2];
    unsigned x[STEPS][4];
    float result[PARTS][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t at = first + threadIdx.x / 32 * 16 + g + 8 * half;
      edge[half] = at < count ? at : -1;
      ends[half][0] = at < count ? row[at] : -1;
      ends[half][1] = at < count ? col[at] : -1;
    }
#pragma unroll
    for (int s = 0; s < STEPS; ++s)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t at = edge[e % 2];
        const int c = 16 * s + 8 * (e / 2) + column;
        x[s][e] = at < 0 || c >= c0 + ce ? 0u : c < c0 ? two(initial + at * c0 + c) : two(edges + at * ce + c - c0);
      }
    start_from(b2, ce, result);
    weights.apply(x, result, width, [&](int half, int j) {
      vec<float, 2> sum = {{0.0f, 0.0f}};
      if (edge[half] < 0) return sum;
      const auto* of_row = reinterpret_cast<const vec<float, 2>*>(table + ends[half][0] * 2 * width + j);
      const auto* of_col = reinterpret_cast<const vec<float, 2>*>(table + (ends[half][1] * 2 + 1) * width + j);
      sum.v[0] = of_row->v[0] + of_col->v[0];
      sum.v[1] = of_row->v[1] + of_col->v[1];
      return sum;
    });
#pragma unroll
    for (int p = 0; p < PARTS; ++p)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int j = 8 * p + column;
        if (edge[half] >= 0 && j < ce)
          *reinterpret_cast<unsigned*>(out + edge[half] * ce + j) =
              pair(relu(result[p][2 * half]), relu(result[p][2 * half + 1]));
      }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) message_sum_mma(
    const acc* __restrict__ table,                                         // [N, parts, H]
    const int32_t* __restrict__ start,                                     // [2 N + 1]
    const int32_t* __restrict__ edge, const int32_t* __restrict__ sender,  // [M]
    const real* __restrict__ edges,                                        // [E, Ce]
    const real* __restrict__ w1_past, const real* __restrict__ w2_past, const real* __restrict__ b2_past,
    const real* __restrict__ w1_future, const real* __restrict__ w2_future, const real* __restrict__ b2_future,
    real* __restrict__ sums,                                               // [N, parts, S]
    int64_t n, int per_block, int channels, int ce, int width, int outputs, int together) {
  extern __shared__ __align__(32) unsigned char space[];
  acc* const message = reinterpret_cast<acc*>(space);  // [TILE, S]
  acc* const total = message + TILE * outputs;         // [nodes, S]
  Weights weights(reinterpret_cast<unsigned short*>(total + (per_block * outputs + 3) / 4 * 4), width);
  const int64_t node = (int64_t)blockIdx.x * per_block;
  const int parts = together ? 1 : 2, part = together ? 0 : blockIdx.y;
  const real* const b2 = part ? b2_future : b2_past;
  const int g = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2, mine = threadIdx.x / 32 * 16 + g;
  weights.bring(part ? w1_future : w1_past, channels + ce, channels, ce, part ? w2_future : w2_past, width, outputs);
  for (int at = threadIdx.x; at < per_block * outputs; at += THREADS) total[at] = acc(0);
  for (int stream = blockIdx.y; stream < 2; stream += parts) {
    const Segments own = segments(start, n, stream, node, per_block);
    for (int tile = own.first(); tile < own.last(); tile += TILE) {
      int64_t id[2], from[2];
      unsigned x[STEPS][4];
      float result[PARTS][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool inside = mine + 8 * half < own.last() - tile;
        id[half] = inside ? edge[tile + mine + 8 * half] : -1;
        from[half] = inside ? sender[tile + mine + 8 * half] : -1;
      }
#pragma unroll
      for (int s = 0; s < STEPS; ++s)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int c = 16 * s + 8 * (e / 2) + column;
          x[s][e] = id[e % 2] < 0 || c >= ce ? 0u : two(edges + id[e % 2] * ce + c);
        }
      start_from(b2, outputs, result);
      __syncthreads();  // weights are there, and messages of the tile before are summed
      weights.apply(x, result, width, [&](int half, int j) {
        if (from[half] < 0) return vec<float, 2>{{0.0f, 0.0f}};
        return *reinterpret_cast<const vec<float, 2>*>(table + (from[half] * parts + part) * width + j);
      });
#pragma unroll
      for (int p = 0; p < PARTS; ++p)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int j = 8 * p + column + e % 2;
          if (j < outputs) message[(mine + 8 * (e / 2)) * outputs + j] = relu(result[p][e]);
        }
      __syncthreads();
      own.add(tile, outputs, total, [&](int j, int r) { return message[r * outputs + j]; });
    }
  }
  __syncthreads();
  const int nodes = (int)(n - node < per_block ? n - node : per_block);
  for (int at = threadIdx.x; at < nodes * outputs; at += THREADS)
    store(sums + ((node + at / outputs) * parts + blockIdx.y) * outputs + at % outputs, total[at]);
}
