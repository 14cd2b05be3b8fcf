/* conv_weight_mma.cu: the gradient of a 2-D convolution with respect to its weights on the tensor cores, float32 sums.
 *
 * formula     dw[o,c,r,s] = sum_{n,p,q} dy[n,o,p,q] x[n,c, p*stride - pad + r*dilation, q*stride - pad + s*dilation]
 *             BORDER: outside the image stand pixels of it
 * layout      dy and x channels last, [image][row][col][group][pitch], pitches multiples of 8, zeros past the channels;
 *             partial sums [split][group][tap][Cout / groups][C / groups], which conv2d_weight_reduce adds
 * launch      splits * groups * taps * ceil(Cout/128) * ceil(Cin/BN) blocks of 256, STAGES * (128 + BN) * 64 bytes shared
 * cost        2 N Ho Wo Cout Cin/groups kh kw flop; dy is read once per tap and BN channels of x, x once per tap and 128
 *             channels of dy; splits * weights * 4 bytes written and read once more
 * order       pixels 16 at a time in order within a split, splits in order; their number depends on the shapes alone
 * measured    not measured
 * hot         conv2d_weight_mma
 * source      mma.sync m16n8k16 fragments, ldmatrix.trans: PTX ISA, section 9.7.14; split-K: CUTLASS, "Efficient GEMM"
 * arch        80 86 89 90 100 120
 * specialise  real = float16 bfloat16; BN = 64 128; STAGES = 3 4; BORDER = 0 1
 */
#include "conv_geometry.cuh"
#include "conv_multiply.cuh"
#include "scalar.cuh"

constexpr int BM = 128;  // output channels of a tile
constexpr int BK = 32;   // pixels of a step
constexpr int WARP_COLS = BN / 2;  // 8 warps as 4 (output channels) x 2 (input channels); each owns 32 x WARP_COLS sums
constexpr int TILES_N = WARP_COLS / 8;
constexpr int STAGE = BK * (BM + BN);  // elements

// Piece c (8 channels) of a pixel's row, moved so that eight pixels in a column of pieces lie in different banks.
template <int WIDTH> __device__ __forceinline__ int swizzled(int row, int c) { return row * WIDTH + (c ^ (row & 7)) * 8; }

extern "C" __global__ void __launch_bounds__(256, 2) conv2d_weight_mma(
    const real* __restrict__ grad,    // [images * rows * cols, groups, grad_pitch]
    const real* __restrict__ source,  // [images, source_rows, source_cols, groups, source_pitch]
    float* __restrict__ partial,
    int64_t pixels_per_split, int images, int groups, int grad_pitch, int source_pitch, int out_channels,
    int in_channels, int source_rows, int source_cols, int rows, int cols, int kernel_rows, int kernel_cols,
    int stride_rows, int stride_cols, int pad_top, int pad_left, int dilation_rows, int dilation_cols,
    int border, double inverse_plane) {
  extern __shared__ __align__(16) unsigned char shared[];
  real* stages = (real*)shared;  // STAGES x { grads [BK][BM], sources [BK][BN] }
  const Geometry geometry{kernel_cols, stride_rows,   stride_cols,   pad_top,    pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols, border};
  const Pixels all{images, rows, cols, inverse_plane};
  const int taps = kernel_rows * kernel_cols, thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int out_tiles = (out_channels + BM - 1) / BM, in_tiles = (in_channels + BN - 1) / BN;
  int block = blockIdx.x;
  const int in_base = block % in_tiles * BN;
  block /= in_tiles;
  const int out_base = block % out_tiles * BM;
  block /= out_tiles;
  const int tap_index = block % taps;
  const Tap tap = geometry.tap(tap_index);
  block /= taps;
  const int group = block % groups, split = block / groups;
  const int64_t first = split * pixels_per_split, last = min(first + pixels_per_split, all.count());

  // In each step a thread copies pieces of two pixels of dy and of one or two of x.
  constexpr int PIECES_M = BM / 8, PIECES_N = BN / 8, LINES_N = 256 / PIECES_N;
  int64_t next = first;
  int slot = 0;
  auto copy_step = [&]() {
    if (next < last) {
      real* grads = stages + slot * STAGE;
      real* sources = grads + BK * BM;
#pragma unroll
      for (int i = 0; i < BK; i += 256 / PIECES_M) {
        const int line = thread / PIECES_M + i, piece = thread % PIECES_M, at = out_base + piece * 8;
        const bool ok = next + line < last && at < grad_pitch;
        const real* from = grad + ((next + line) * groups + group) * grad_pitch + at;
        cp_async16(&grads[swizzled<BM>(line, piece)], ok ? from : grad, ok);
      }
#pragma unroll
      for (int i = 0; i < BK; i += LINES_N) {
        const int line = thread / PIECES_N + i, piece = thread % PIECES_N, at = in_base + piece * 8;
        const Pixel p = all.at(next + line);
        int row = 0, col = 0;
        const bool ok = next + line < last && at < source_pitch
                        && geometry.source<false, BORDER>(p.row, p.col, tap, row, col);
        const int64_t pixel = ((int64_t)p.image * source_rows + row) * source_cols + col;
        const real* from = source + (pixel * groups + group) * source_pitch + at;
        cp_async16(&sources[swizzled<BN>(line, piece)], ok ? from : source, ok);
      }
      next += BK;
    }
    slot = slot + 1 == STAGES ? 0 : slot + 1;
    cp_async_commit();
  };

  float sum[2][TILES_N][4] = {};
  const int warp_row = (warp & 3) * 32, warp_col = (warp >> 2) * WARP_COLS, eighth = lane >> 3, line = lane & 7;
#pragma unroll
  for (int i = 0; i < STAGES - 1; ++i) copy_step();
  int current = 0;
  for (int64_t start = first; start < last; start += BK) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // this step has landed for every thread, and everyone is done with the slot that copy_step refills
    copy_step();
    const real* grads = stages + current * STAGE;
    const real* sources = grads + BK * BM;
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      // Both operands lie by pixel, the summed index; ldmatrix turns each 8 x 8 block round on its way.
      unsigned a[2][4], b[TILES_N][2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        ldmatrix_x4_trans(
            a[i], &grads[swizzled<BM>(k + eighth / 2 * 8 + line, (warp_row + 16 * i) / 8 + eighth % 2)]);
#pragma unroll
      for (int j = 0; j < TILES_N; j += 2) {
        unsigned pair[4];
        ldmatrix_x4_trans(
            pair, &sources[swizzled<BN>(k + eighth % 2 * 8 + line, warp_col / 8 + j + eighth / 2)]);
        b[j][0] = pair[0];
        b[j][1] = pair[1];
        b[j + 1][0] = pair[2];
        b[j + 1][1] = pair[3];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < TILES_N; ++j) multiply(sum[i][j], a[i], b[j], real{});
    }
    current = current + 1 == STAGES ? 0 : current + 1;
  }

  float* out = partial + (((int64_t)split * groups + group) * taps + tap_index) * out_channels * in_channels;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < TILES_N; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int o = out_base + warp_row + 16 * i + (lane >> 2) + e / 2 * 8;
        const int c = in_base + warp_col + 8 * j + (lane & 3) * 2 + e % 2;
        if (o < out_channels && c < in_channels) out[(int64_t)o * in_channels + c] = sum[i][j][e];
      }
}
