/* resize_conv_mma.cu: the phases of a resize and a convolution on the tensor cores: 16-bit inputs, float32 sums.
 *
 * formula     as resize_conv.cu with TAPS = 0; combined weights are rounded to 16 bits
 * layout      source channels last, [image][row][col][pitch], pitch a multiple of 8, zeros past the channels; combined
 *             weights [row kind][column kind][tap][channel][pitch]; result of any strides
 * launch      (tiles * ceil(channels/64), images) blocks of 256 threads; a tile is 128 places of a job (resize_conv.cuh);
 *             shared memory: STAGES * (128 + 64) * 64 bytes, then 64 channels of a tile's results
 * cost        2 N Cout C flop for each element that a result takes from; source, weights and result once from memory; a
 *             block reads (128 + 64) * 64 bytes per 128 * 64 * 32 multiply-adds
 * order       taps in order, channels in order within a tap, 16 at a time inside the instruction: run to run
 * measured    not measured
 * hot         resize_conv_mma
 * source      mma.sync m16n8k16 fragments: PTX ISA, section 9.7.14; multistage pipeline: CUTLASS 2.x, "Efficient GEMM"
 * arch        80 86 89 90 100 120
 * specialise  real = float16 bfloat16; TAPS = 0
 */
#include "conv_multiply.cuh"
#include "resize_conv.cuh"
#include "scalar.cuh"

constexpr int STAGES = 3;
constexpr int BM = 128;             // places of a tile
constexpr int BN = 64;              // channels of a tile
constexpr int BK = 32;              // source channels of a step: 64 bytes a row, in four pieces of 16
constexpr int WARP_COLS = BN / 2;   // 8 warps as 4 (places) x 2 (channels); each owns 32 x WARP_COLS results
constexpr int TILES_N = WARP_COLS / 8;
constexpr int STAGE = (BM + BN) * BK;  // elements

// Piece c of a row, moved so that the eight rows that ldmatrix reads together lie in different banks.
__device__ __forceinline__ int swizzled(int row, int c) { return row * BK + (c ^ (row >> 1 & 3)) * 8; }

extern "C" __global__ void __launch_bounds__(256, 2) resize_conv_mma(
    const real* __restrict__ source,   // [images, source_rows, source_cols, pitch]
    const real* __restrict__ packed,   // [row_kinds, col_kinds, high * wide, channels, pitch]
    const real* __restrict__ bias,     // [channels] or null
    real* __restrict__ result,         // [images, channels, rows, cols], strided
    const int* __restrict__ integers,  // see Tables
    int64_t result_n, int64_t result_c, int64_t result_h, int64_t result_w, int images, int pitch, int channels,
    int source_rows, int source_cols, int rows, int cols, int jobs, int row_kinds, int col_kinds, int high, int wide) {
  extern __shared__ __align__(16) unsigned char shared[];
  real* stages = (real*)shared;            // STAGES x { elements [BM][BK], weights [BN][BK] }
  real* found = stages + STAGES * STAGE;  // [BN][found_pitch]
  __shared__ Place places[BM];
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int channel_tiles = (channels + BN - 1) / BN;
  const int channel_base = blockIdx.x % channel_tiles * BN, tile = (int)(blockIdx.x / channel_tiles);
  const Tables tables = Tables::of(integers, jobs, rows, cols, row_kinds);
  const Job job = tables.find(tile, jobs);
  if (thread < BM) places[thread] = Place::at(tables, job, (tile - job.tile_begin) * BM + thread);
  __syncthreads();

  // A thread copies piece `part` of rows `line` and `line + 64` of the elements, and of row `line` of the weights.
  const int part = thread & 3, line = thread >> 2;
  const int tall = tables.row_length[job.row_kind];
  const int found_pitch = BM * job.count + 2;
  const int warp_row = (warp & 3) * 32, warp_col = (warp >> 2) * WARP_COLS;

  for (int64_t image = blockIdx.y; image < images; image += gridDim.y) {
    const real* from_image = source + image * source_rows * source_cols * pitch;
    for (int i = 0; i < job.count; ++i) {
      const int kind = tables.col_kind[job.first + i];
      const int across = tables.col_length[kind], taps = tall * across;
      const real* plane = packed + ((int64_t)job.row_kind * col_kinds + kind) * high * wide * channels * pitch;
      int row[2], col[2], weight_tap = 0;  // of the elements that this thread copies
      bool valid[2];
      auto locate = [&](int tap) {
        const int r = tap / across, s = tap - r * across;
        weight_tap = r * wide + s;
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          const Place p = places[line + 64 * k];
          const int column = p.inside ? job.first + p.repeat * job.period + i : 0;
          row[k] = tables.row_base[p.row] + r;
          col[k] = tables.col_base[column] + s;
          valid[k] = p.inside && row[k] >= 0 && row[k] < source_rows && col[k] >= 0 && col[k] < source_cols;
        }
      };
      // The next step to copy: a tap and the first of its 32 source channels.
      int tap = 0, channel = 0, slot = 0;
      locate(0);
      auto copy_step = [&]() {
        if (tap < taps) {
          real* elements = stages + slot * STAGE;
          const int at = channel + part * 8;
          const bool there = at < pitch;
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            const bool ok = there && valid[k];
            const real* from = ok ? from_image + ((int64_t)row[k] * source_cols + col[k]) * pitch + at : source;
            cp_async16(&elements[swizzled(line + 64 * k, part)], from, ok);
          }
          const int c = channel_base + line;
          const bool ok = there && c < channels;
          const real* from = plane + ((int64_t)weight_tap * channels + c) * pitch + at;
          cp_async16(&elements[BM * BK + swizzled(line, part)], ok ? from : packed, ok);
          channel += BK;
          if (channel >= pitch) {
            channel = 0;
            if (++tap < taps) locate(tap);
          }
        }
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        cp_async_commit();
      };

      float sum[2][TILES_N][4] = {};
      const int steps = taps * ((pitch + BK - 1) / BK);
#pragma unroll
      for (int k = 0; k < STAGES - 1; ++k) copy_step();
      int current = 0;
      for (int step = 0; step < steps; ++step) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // this step has landed for every thread, and everyone is done with the slot that is next refilled
        copy_step();
        const real* elements = stages + current * STAGE;
        const real* columns = elements + BM * BK;
#pragma unroll
        for (int k = 0; k < BK / 16; ++k) {
          unsigned a[2][4], b[TILES_N][2];
#pragma unroll
          for (int e = 0; e < 2; ++e)
            ldmatrix_x4(a[e], &elements[swizzled(warp_row + 16 * e + (lane & 15), 2 * k + (lane >> 4))]);
#pragma unroll
          for (int j = 0; j < TILES_N; j += 2) {
            unsigned pair[4];
            const int c = warp_col + 8 * j + (lane & 7) + (lane >> 4) * 8;
            ldmatrix_x4(pair, &columns[swizzled(c, 2 * k + (lane >> 3 & 1))]);
            b[j][0] = pair[0];
            b[j][1] = pair[1];
            b[j + 1][0] = pair[2];
            b[j + 1][1] = pair[3];
          }
#pragma unroll
          for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int j = 0; j < TILES_N; ++j) multiply(sum[e][j], a[e], b[j], real{});
        }
        current = current + 1 == STAGES ? 0 : current + 1;
      }
      cp_async_wait<0>();
      __syncthreads();  // the slots are free for the next columns
#pragma unroll
      for (int e = 0; e < 2; ++e)
#pragma unroll
        for (int j = 0; j < TILES_N; ++j)
#pragma unroll
          for (int f = 0; f < 4; ++f) {
            const int place = warp_row + 16 * e + (lane >> 2) + f / 2 * 8;
            const int c = warp_col + 8 * j + (lane & 3) * 2 + f % 2;
            const bool biased = bias && channel_base + c < channels;
            store(&found[c * found_pitch + place * job.count + i],
                  sum[e][j][f] + (biased ? load(bias[channel_base + c]) : 0.f));
          }
    }
    __syncthreads();
    real* to = result + image * result_n + channel_base * result_c;
    flush<BM, BN>(found, found_pitch, places, job, to, channels - channel_base, result_c, result_h, result_w);
    __syncthreads();  // all has left before the next image's results come
  }
}
