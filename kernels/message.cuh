/* message.cuh: small layers on a tile of rows that lie in shared memory by columns, and sums over the rows of a node; in
 * float or double. Who includes it says how many rows a tile has and how many threads a block: TILE and THREADS.
 */
#pragma once

using acc = accumulate<real>::type;

constexpr int PITCH = TILE + 4;  // numbers between columns of a tile
constexpr int DEPTH = 16;        // inputs whose weights are brought at a time
constexpr int LANES = 16;        // threads side by side over outputs; the others over four rows each
constexpr int MANY = 5, FEW = 2; // outputs of a thread at a time, of hidden layers and of results
constexpr int WEIGHTS = DEPTH * (LANES * MANY + 1);  // numbers of shared memory for weights

__device__ __forceinline__ acc relu(acc x) { return x < acc(0) ? acc(0) : x; }  // NaN stays

// finish(row, j, start(row, j) + sum over k of x[k][row] weight(k, j)) for all rows of a tile and j < n. The tile x may be
// what this block wrote before: a barrier comes first.
template <int PER, class Start, class Weight, class Finish>
__device__ __forceinline__ void layer(const acc* x, int depth, int n, acc* weights, Start start, Weight weight,
                                         Finish finish) {
  constexpr int COLS = LANES * PER;
  const int tx = threadIdx.x % LANES, row = threadIdx.x / LANES * 4;
  for (int first = 0; first < n; first += COLS) {
    const int j = first + tx * PER;
    acc sum[4][PER];
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int p = 0; p < PER; ++p) sum[i][p] = j + p < n ? start(row + i, j + p) : acc(0);
    for (int from = 0; from < depth; from += DEPTH) {
      __syncthreads();
      for (int at = threadIdx.x; at < DEPTH * COLS; at += THREADS) {
        const int k = at % DEPTH, col = at / DEPTH;
        const bool inside = from + k < depth && first + col < n;
        weights[k * (COLS + 1) + col] = inside ? weight(from + k, first + col) : acc(0);
      }
      __syncthreads();
      const int terms = depth - from < DEPTH ? depth - from : DEPTH;
#pragma unroll 4
      for (int k = 0; k < terms; ++k) {
        const vec<acc, 4> a = *reinterpret_cast<const vec<acc, 4>*>(x + (from + k) * PITCH + row);
#pragma unroll
        for (int p = 0; p < PER; ++p) {
          const acc b = weights[k * (COLS + 1) + tx * PER + p];
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[i][p] += a.v[i] * b;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int p = 0; p < PER; ++p)
        if (j + p < n) finish(row + i, j + p, sum[i][p]);
  }
}

// out[i][j] += sum over rows of x[i][row] y[j][row], i < rows_x, j < rows_y; each number by one thread.
__device__ __forceinline__ void add_outer(const acc* x, int rows_x, const acc* y, int rows_y, acc* out) {
  constexpr int X = 4, Y = 2;
  const int wide = (rows_y + Y - 1) / Y, high = (rows_x + X - 1) / X;
  for (int at = threadIdx.x; at < wide * high; at += THREADS) {
    const int i = at / wide * X, j = at % wide * Y;
    acc sum[X][Y] = {};
    for (int row = 0; row < TILE; row += 4) {
      vec<acc, 4> a[X], b[Y];
#pragma unroll
      for (int e = 0; e < X; ++e)
        a[e] = *reinterpret_cast<const vec<acc, 4>*>(x + (i + e < rows_x ? i + e : i) * PITCH + row);
#pragma unroll
      for (int e = 0; e < Y; ++e)
        b[e] = *reinterpret_cast<const vec<acc, 4>*>(y + (j + e < rows_y ? j + e : j) * PITCH + row);
#pragma unroll
      for (int e = 0; e < X; ++e)
#pragma unroll
        for (int f = 0; f < Y; ++f)
#pragma unroll
          for (int r = 0; r < 4; ++r) sum[e][f] += a[e].v[r] * b[f].v[r];
    }
#pragma unroll
    for (int e = 0; e < X; ++e)
#pragma unroll
      for (int f = 0; f < Y; ++f)
        if (i + e < rows_x && j + f < rows_y) out[(i + e) * rows_y + j + f] += sum[e][f];
  }
}

// out[i] += sum over rows of x[i][row].
__device__ __forceinline__ void add_rows(const acc* x, int rows_x, acc* out) {
  for (int i = threadIdx.x; i < rows_x; i += THREADS) {
    acc sum = acc(0);
    for (int row = 0; row < TILE; ++row) sum += x[i * PITCH + row];
    out[i] += sum;
  }
}

// A block's nodes, and the entries of theirs that a tile holds.
struct Segments {
  const int32_t* start;  // [nodes + 1]
  int nodes;
  __device__ int first() const { return start[0]; }
  __device__ int last() const { return start[nodes]; }
  // total[node][j] += value(j, row) over the node's rows of the tile, in their order.
  template <class Value> __device__ __forceinline__ void add(int tile, int n, acc* total, Value value) const {
    for (int at = threadIdx.x; at < nodes * n; at += THREADS) {
      const int node = at / n, j = at % n;
      int from = start[node] - tile, to = start[node + 1] - tile;
      from = from < 0 ? 0 : from;
      to = to < TILE ? to : TILE;
      acc sum = total[at];
      for (int row = from; row < to; ++row) sum += value(j, row);
      total[at] = sum;
    }
  }
};

__device__ __forceinline__ Segments segments(const int32_t* start, int64_t n, int stream, int64_t node, int most) {
  return {start + stream * n + node, (int)(n - node < most ? n - node : most)};
}

// Brings rows of [.., width] into a tile by columns; number(row) < 0 gives zeros.
template <class Number>
__device__ __forceinline__ void bring(const real* x, int width, acc* tile, Number number) {
  for (int at = threadIdx.x; at < width * TILE; at += THREADS) {
    const int c = at % width, row = at / width;
    const int64_t from = number(row);
    tile[c * PITCH + row] = from >= 0 ? acc(load(x[from * width + c])) : acc(0);
  }
}
