/* message.cu: message passing on graphs: states of edges from their ends, sums of messages by node, gradients of both.
 *
 * formula     edges: e' = relu(W2 relu(A[row] + B[col] + W3 e0 + W4 e) + b2), with A = h Wa^T + b1, B = h Wb^T in a table;
 *             sums: m_i = sum over the entries of node i of relu(W2 relu(P[sender] + U e) + b2), P = h V^T + b1 in a table.
 *             w1 = [Wa Wb W3 W4] or [V U]; gradients by the chain rule, hidden layers anew
 * layout      nodes [N, Cn], initial [E, C0], edges [E, Ce], w1 [H, inputs], w2 [outputs, H]; entries sorted by stream
 *             (0: from earlier nodes, 1: from later ones), then by node: start [2 N + 1]. A tile of TILE entries lies in
 *             shared memory by columns: inputs, hidden layer, and for gradients that of the hidden layer and of the result
 * launch      4 TILE threads. message_table: TILE nodes a block, blockIdx.y the part of the table; message_edge: TILE edges;
 *             message_sum: some nodes a block, blockIdx.y the stream (or both streams in turn, `together`).
 *             message_edge_backward: some nodes, by row or by col; message_sum_backward: some nodes as senders, a stream;
 *             message_reduce: a weight each thread. A step takes four launches and a product of the nodes, its gradient
 *             nine and products of the nodes, for any number of windows; nothing is asked of the device
 * cost        message_edge: 2 E H (C0 + 2 Ce) flop; bytes E (C0 + 2 Ce) numbers, 8 E of indices, 2 E H sums of the table
 *             from L2. message_sum: 2 M H (Ce + S) flop, M Ce numbers, M H from L2. E = M = 100,000, 16 16 80 56 32 float32:
 *             0.77 and 0.54 GFLOP, 20 and 7.2 MB, and 64 and 22 MB from L2. Gradients: 2 E H (4 C0 + 7 Ce), 2 M H (3 Ce + 3 S)
 *             flop: 2.8 and 1.6 GFLOP. Predicted, not measured, on an H100 at 30 TFLOP/s and 4 TB/s of L2: 45 us a step
 * order       messages of a node in the order of its entries; weights by blocks, in a fixed number of parts, then in order;
 *             no atomics: the same bits on every run
 * measured    not measured
 * hot         message_edge message_sum message_edge_backward message_sum_backward
 * source      G. Braso, L. Leal-Taixe, Learning a Neural Solver for Multiple Object Tracking, CVPR 2020
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64 float16 bfloat16; TILE = 64 16
 */
constexpr int THREADS = 4 * TILE;
#include "message.cuh"

// ---- nodes ----------------------------------------------------------------------------------------------

// table[:, part] = nodes weight_part^T + bias_part.
extern "C" __global__ void __launch_bounds__(THREADS) message_table(
    const real* __restrict__ nodes,                                          // [N, Cn]
    const real* __restrict__ weight_0, const real* __restrict__ weight_1,    // [H, inputs]
    const real* __restrict__ bias_0, const real* __restrict__ bias_1,        // [H] or null
    acc* __restrict__ table,                                                 // [N, parts, H]
    int64_t n, int channels, int width, int inputs, int offset_0, int offset_1) {
  extern __shared__ __align__(32) unsigned char space[];
  acc* const x = reinterpret_cast<acc*>(space);
  acc* const weights = x + channels * PITCH;
  const int64_t first = (int64_t)blockIdx.x * TILE;
  const real* const w = blockIdx.y ? weight_1 + offset_1 : weight_0 + offset_0;
  const real* const bias = blockIdx.y ? bias_1 : bias_0;
  bring(nodes, channels, x, [&](int row) { return first + row < n ? first + row : (int64_t)-1; });
  layer<MANY>(
      x, channels, width, weights, [&](int, int j) { return bias ? acc(load(bias[j])) : acc(0); },
      [&](int k, int j) { return acc(load(w[(int64_t)j * inputs + k])); },
      [&](int row, int j, acc v) {
        if (first + row < n) table[((first + row) * gridDim.y + blockIdx.y) * width + j] = v;
      });
}

// ---- forward --------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS, 2) message_edge(
    const acc* __restrict__ table,                                      // [N, 2 H]
    const int32_t* __restrict__ row, const int32_t* __restrict__ col,   // [E]
    const real* __restrict__ initial, const real* __restrict__ edges,   // [E, C0], [E, Ce]
    const real* __restrict__ w1, const real* __restrict__ w2,           // [H, 2 Cn + C0 + Ce], [Ce, H]
    const real* __restrict__ b2, real* __restrict__ out,                // [Ce], [E, Ce]
    int64_t count, int channels, int c0, int ce, int width) {
  extern __shared__ __align__(32) unsigned char space[];
  acc* const x = reinterpret_cast<acc*>(space);
  acc* const hidden = x + (c0 + ce) * PITCH;
  acc* const weights = hidden + width * PITCH;
  int* const ends = reinterpret_cast<int*>(weights + WEIGHTS);
  const int64_t first = (int64_t)blockIdx.x * TILE, inputs = 2 * channels + c0 + ce;
  const auto number = [&](int r) { return first + r < count ? first + r : (int64_t)-1; };
  for (int r = threadIdx.x; r < TILE; r += THREADS) {
    ends[r] = first + r < count ? row[first + r] : -1;
    ends[TILE + r] = first + r < count ? col[first + r] : -1;
  }
  bring(initial, c0, x, number);
  bring(edges, ce, x + c0 * PITCH, number);
  __syncthreads();
  layer<MANY>(
      x, c0 + ce, width, weights,
      [&](int r, int j) {
        if (ends[r] < 0) return acc(0);
        return table[(int64_t)ends[r] * 2 * width + j] + table[((int64_t)ends[TILE + r] * 2 + 1) * width + j];
      },
      [&](int k, int j) { return acc(load(w1[j * inputs + 2 * channels + k])); },
      [&](int r, int j, acc v) { hidden[j * PITCH + r] = relu(v); });
  layer<FEW>(
      hidden, width, ce, weights, [&](int, int j) { return acc(load(b2[j])); },
      [&](int k, int j) { return acc(load(w2[(int64_t)j * width + k])); },
      [&](int r, int j, acc v) {
        if (first + r < count) store(out + (first + r) * ce + j, relu(v));
      });
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) message_sum(
    const acc* __restrict__ table,                                         // [N, parts, H]
    const int32_t* __restrict__ start,                                     // [2 N + 1]
    const int32_t* __restrict__ edge, const int32_t* __restrict__ sender,  // [M]
    const real* __restrict__ edges,                                        // [E, Ce]
    const real* __restrict__ w1_past, const real* __restrict__ w2_past, const real* __restrict__ b2_past,
    const real* __restrict__ w1_future, const real* __restrict__ w2_future, const real* __restrict__ b2_future,
    real* __restrict__ sums,                                               // [N, parts, S]
    int64_t n, int per_block, int channels, int ce, int width, int outputs, int together) {
  extern __shared__ __align__(32) unsigned char space[];
  acc* const x = reinterpret_cast<acc*>(space);
  acc* const hidden = x + ce * PITCH;
  acc* const weights = hidden + width * PITCH;
  acc* const message = weights + WEIGHTS;      // [TILE, S]
  acc* const total = message + TILE * outputs;  // [nodes, S]
  int* const ids = reinterpret_cast<int*>(total + per_block * outputs);
  const int64_t node = (int64_t)blockIdx.x * per_block, inputs = channels + ce;
  const int parts = together ? 1 : 2;
  for (int at = threadIdx.x; at < per_block * outputs; at += THREADS) total[at] = acc(0);
  for (int stream = blockIdx.y; stream < 2; stream += parts) {
    const int part = together ? 0 : stream;
    const Segments own = segments(start, n, stream, node, per_block);
    const real* const w1 = part ? w1_future : w1_past;
    const real* const w2 = part ? w2_future : w2_past;
    const real* const b2 = part ? b2_future : b2_past;
    for (int tile = own.first(); tile < own.last(); tile += TILE) {
      __syncthreads();
      for (int r = threadIdx.x; r < TILE; r += THREADS) {
        const bool inside = r < own.last() - tile;
        ids[r] = inside ? edge[tile + r] : -1;
        ids[TILE + r] = inside ? sender[tile + r] : -1;
      }
      __syncthreads();
      bring(edges, ce, x, [&](int r) { return (int64_t)ids[r]; });
      layer<MANY>(
          x, ce, width, weights,
          [&](int r, int j) {
            return ids[TILE + r] < 0 ? acc(0) : table[((int64_t)ids[TILE + r] * parts + part) * width + j];
          },
          [&](int k, int j) { return acc(load(w1[j * inputs + channels + k])); },
          [&](int r, int j, acc v) { hidden[j * PITCH + r] = relu(v); });
      layer<FEW>(
          hidden, width, outputs, weights, [&](int, int j) { return acc(load(b2[j])); },
          [&](int k, int j) { return acc(load(w2[(int64_t)j * width + k])); },
          [&](int r, int j, acc v) { message[r * outputs + j] = relu(v); });
      __syncthreads();
      own.add(tile, outputs, total, [&](int j, int r) { return message[r * outputs + j]; });
    }
  }
  __syncthreads();
  const int nodes = (int)(n - node < per_block ? n - node : per_block);
  for (int at = threadIdx.x; at < nodes * outputs; at += THREADS)
    store(sums + ((node + at / outputs) * parts + blockIdx.y) * outputs + at % outputs, total[at]);
}

// ---- gradients ------------------------------------------------------------------------------------------

// By row: all gradients but the cols' part of the table; by col: that.
extern "C" __global__ void __launch_bounds__(THREADS, 2) message_edge_backward(
    const acc* __restrict__ table,                                      // [N, 2 H]
    const int32_t* __restrict__ row, const int32_t* __restrict__ col,   // [E]
    const int32_t* __restrict__ start, const int32_t* __restrict__ order,  // [2 N + 1], edges by row or by col
    const real* __restrict__ initial, const real* __restrict__ edges,   // [E, C0], [E, Ce]
    const real* __restrict__ output, const real* __restrict__ grad,     // [E, Ce]
    const real* __restrict__ w1, const real* __restrict__ w2,           // [H, 2 Cn + C0 + Ce], [Ce, H]
    real* __restrict__ by_initial, real* __restrict__ by_edges,         // [E, C0], [E, Ce]
    acc* __restrict__ by_table, acc* __restrict__ part,                 // [N, 2 H], [blocks, H (C0 + Ce) + Ce H + Ce]
    int64_t n, int per_block, int channels, int c0, int ce, int width, int first_stream, int by_col) {
  extern __shared__ __align__(32) unsigned char space[];
  acc* const x = reinterpret_cast<acc*>(space);
  acc* const hidden = x + (c0 + ce) * PITCH;
  acc* const inner = hidden + width * PITCH;
  acc* const outside = inner + width * PITCH;
  acc* const weights = outside + ce * PITCH;
  acc* const total = weights + WEIGHTS;  // [nodes, H]
  int* const ids = reinterpret_cast<int*>(total + per_block * width);
  const int64_t inputs = 2 * channels + c0 + ce;
  const int size = width * (c0 + ce) + ce * width + ce;
  acc* const mine = part + (int64_t)blockIdx.x * size;
  if (!by_col)
    for (int at = threadIdx.x; at < size; at += THREADS) mine[at] = acc(0);
  for (int64_t node = (int64_t)blockIdx.x * per_block; node < n; node += (int64_t)gridDim.x * per_block) {
    __syncthreads();
    for (int at = threadIdx.x; at < per_block * width; at += THREADS) total[at] = acc(0);
    for (int stream = first_stream; stream < 2; ++stream) {
      const Segments own = segments(start, n, stream, node, per_block);
      for (int tile = own.first(); tile < own.last(); tile += TILE) {
        __syncthreads();
        for (int r = threadIdx.x; r < TILE; r += THREADS) {
          const int id = r < own.last() - tile ? order[tile + r] : -1;
          ids[r] = id;
          ids[TILE + r] = id < 0 ? 0 : row[id];
          ids[2 * TILE + r] = id < 0 ? 0 : col[id];
        }
        __syncthreads();
        bring(initial, c0, x, [&](int r) { return (int64_t)ids[r]; });
        bring(edges, ce, x + c0 * PITCH, [&](int r) { return (int64_t)ids[r]; });
        for (int at = threadIdx.x; at < ce * TILE; at += THREADS) {
          const int c = at % ce, r = at / ce;
          const int64_t from = (int64_t)ids[r] * ce + c;
          outside[c * PITCH + r] = from >= 0 && load(output[from]) > acc(0) ? acc(load(grad[from])) : acc(0);
        }
        layer<MANY>(
            x, c0 + ce, width, weights,
            [&](int r, int j) {
              if (ids[r] < 0) return acc(0);
              const int64_t one = ids[TILE + r], other = ids[2 * TILE + r];
              return table[one * 2 * width + j] + table[(other * 2 + 1) * width + j];
            },
            [&](int k, int j) { return acc(load(w1[j * inputs + 2 * channels + k])); },
            [&](int r, int j, acc v) { hidden[j * PITCH + r] = relu(v); });
        __syncthreads();
        layer<MANY>(
            outside, ce, width, weights, [](int, int) { return acc(0); },
            [&](int k, int j) { return acc(load(w2[(int64_t)k * width + j])); },
            [&](int r, int j, acc v) { inner[j * PITCH + r] = hidden[j * PITCH + r] > acc(0) ? v : acc(0); });
        if (!by_col)
          layer<FEW>(
              inner, width, c0 + ce, weights, [](int, int) { return acc(0); },
              [&](int k, int j) { return acc(load(w1[k * inputs + 2 * channels + j])); },
              [&](int r, int j, acc v) {
                if (ids[r] < 0) return;
                if (j < c0)
                  store(by_initial + (int64_t)ids[r] * c0 + j, v);
                else
                  store(by_edges + (int64_t)ids[r] * ce + j - c0, v);
              });
        __syncthreads();
        own.add(tile, width, total, [&](int j, int r) { return inner[j * PITCH + r]; });
        if (!by_col) {
          add_outer(inner, width, x, c0 + ce, mine);
          add_outer(outside, ce, hidden, width, mine + width * (c0 + ce));
          add_rows(outside, ce, mine + width * (c0 + ce) + ce * width);
        }
      }
    }
    __syncthreads();
    const int nodes = (int)(n - node < per_block ? n - node : per_block);
    for (int at = threadIdx.x; at < nodes * width; at += THREADS)
      by_table[((node + at / width) * 2 + by_col) * width + at % width] = total[at];
  }
}

// Of the messages of a stream, by their senders.
extern "C" __global__ void __launch_bounds__(THREADS, 1) message_sum_backward(
    const acc* __restrict__ table,                                           // [N, parts, H]
    const int32_t* __restrict__ start,                                       // [2 N + 1]
    const int32_t* __restrict__ edge, const int32_t* __restrict__ receiver,  // [M]
    const real* __restrict__ edges, const real* __restrict__ grad,           // [E, Ce], [N, parts, S]
    const real* __restrict__ w1, const real* __restrict__ w2, const real* __restrict__ b2,  // [H, Cn + Ce], [S, H], [S]
    real* __restrict__ by_edges,                                             // [E, Ce]
    acc* __restrict__ by_table, acc* __restrict__ part,                      // [N, H], [blocks, H Ce + S H + S]
    int64_t n, int per_block, int channels, int ce, int width, int outputs, int stream, int which, int parts,
    int add_edges) {
  extern __shared__ __align__(32) unsigned char space[];
  acc* const x = reinterpret_cast<acc*>(space);
  acc* const hidden = x + ce * PITCH;
  acc* const inner = hidden + width * PITCH;
  acc* const outside = inner + width * PITCH;
  acc* const weights = outside + outputs * PITCH;
  acc* const total = weights + WEIGHTS;  // [nodes, H]
  int* const ids = reinterpret_cast<int*>(total + per_block * width);
  const int64_t inputs = channels + ce;
  const int size = width * ce + outputs * width + outputs;
  acc* const mine = part + (int64_t)blockIdx.x * size;
  for (int at = threadIdx.x; at < size; at += THREADS) mine[at] = acc(0);
  for (int64_t node = (int64_t)blockIdx.x * per_block; node < n; node += (int64_t)gridDim.x * per_block) {
    const Segments own = segments(start, n, stream, node, per_block);
    __syncthreads();
    for (int at = threadIdx.x; at < per_block * width; at += THREADS) total[at] = acc(0);
    for (int tile = own.first(); tile < own.last(); tile += TILE) {
      __syncthreads();
      for (int r = threadIdx.x; r < TILE; r += THREADS) {
        const bool inside = r < own.last() - tile;
        int sender = 0;
        while (inside && own.start[sender + 1] <= tile + r) ++sender;
        ids[r] = inside ? edge[tile + r] : -1;
        ids[TILE + r] = inside ? receiver[tile + r] : -1;
        ids[2 * TILE + r] = sender;
      }
      __syncthreads();
      bring(edges, ce, x, [&](int r) { return (int64_t)ids[r]; });
      layer<MANY>(
          x, ce, width, weights,
          [&](int r, int j) {
            return ids[r] < 0 ? acc(0) : table[((node + ids[2 * TILE + r]) * parts + which) * width + j];
          },
          [&](int k, int j) { return acc(load(w1[j * inputs + channels + k])); },
          [&](int r, int j, acc v) { hidden[j * PITCH + r] = relu(v); });
      layer<FEW>(
          hidden, width, outputs, weights, [&](int, int j) { return acc(load(b2[j])); },
          [&](int k, int j) { return acc(load(w2[(int64_t)j * width + k])); },
          [&](int r, int j, acc v) {
            const bool passes = ids[r] >= 0 && v > acc(0);
            const int64_t to = ids[TILE + r];
            outside[j * PITCH + r] = passes ? acc(load(grad[(to * parts + which) * outputs + j])) : acc(0);
          });
      layer<MANY>(
          outside, outputs, width, weights, [](int, int) { return acc(0); },
          [&](int k, int j) { return acc(load(w2[(int64_t)k * width + j])); },
          [&](int r, int j, acc v) { inner[j * PITCH + r] = hidden[j * PITCH + r] > acc(0) ? v : acc(0); });
      layer<FEW>(
          inner, width, ce, weights, [](int, int) { return acc(0); },
          [&](int k, int j) { return acc(load(w1[k * inputs + channels + j])); },
          [&](int r, int j, acc v) {
            if (ids[r] < 0) return;
            real* const to = by_edges + (int64_t)ids[r] * ce + j;
            store(to, add_edges ? acc(load(*to)) + v : v);
          });
      __syncthreads();
      own.add(tile, width, total, [&](int j, int r) { return inner[j * PITCH + r]; });
      add_outer(inner, width, x, ce, mine);
      add_outer(outside, outputs, hidden, width, mine + width * ce);
      add_rows(outside, outputs, mine + width * ce + outputs * width);
    }
    __syncthreads();
    for (int at = threadIdx.x; at < own.nodes * width; at += THREADS)
      by_table[(node + at / width) * width + at % width] = total[at];
  }
}

// The parts of all blocks, in their order.
extern "C" __global__ void __launch_bounds__(THREADS) message_reduce(
    const acc* __restrict__ part, acc* __restrict__ out,  // [blocks, size], [size]
    int blocks, int size) {
  const int at = blockIdx.x * THREADS + threadIdx.x;
  if (at >= size) return;
  acc sum = acc(0);
  for (int b = 0; b < blocks; ++b) sum += part[(int64_t)b * size + at];
  out[at] = sum;
}
