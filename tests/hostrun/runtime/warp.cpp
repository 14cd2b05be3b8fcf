// Warp collectives, tensor-core tiles and asynchronous copies.
// The last lane to arrive at a collective does the work of all lanes.
#include <string.h>

#include <algorithm>

#include "../include/tensor.h"
#include "checker.h"

// `self` has arrived but does not wait yet; null when another lane's exit is the occasion.
bool try_warp_op(unsigned warp, unsigned mask, const char* what, HostSite site, Fiber* self) {
  WarpState& state = warps[warp];
  unsigned needed = mask & state.alive;
  unsigned arrived = state.waiting | (self ? 1u << self->lane : 0);
  if (!needed || needed & ~arrived) return false;
  Fiber* lanes = fibers + warp * WARP;
  void* payload[WARP] = {};
  HostCollective body = nullptr;
  for (unsigned rest = needed; rest; rest &= rest - 1) {
    unsigned lane = (unsigned)__builtin_ctz(rest);
    Fiber& fiber = lanes[lane];
    // Names are literals of this library: the same operation has the same address.
    if (fiber.mask != mask || fiber.waiting_in != what || !same_site(fiber.site, site)) return false;
    payload[lane] = fiber.payload;
    body = fiber.body;
  }
  unsigned exited = mask & state.existing & ~needed;
  if (exited) {
    report(FAULT, "%s at %s:%d names lanes %08x that have exited (undefined behaviour)", what,
           site.file, site.line, exited);
  }
  ++stats.warp_ops;
  if (body)
    body(payload, needed);
  else if (launch.check)
    checker_sync_lanes(warp, needed);
  unsigned released = needed & state.waiting;
  for (unsigned rest = released; rest; rest &= rest - 1)
    lanes[__builtin_ctz(rest)].state = State::runnable;
  state.waiting &= ~released;
  return true;
}

void host_collective(unsigned mask, void* payload, HostCollective body, const char* what,
                     HostSite site) {
  Fiber& self = *current;
  if (!(mask >> self.lane & 1))
    host_fail(site, "%s: lane %u is not in its own mask %08x", what, self.lane, mask);
  self.payload = payload;
  self.body = body;
  self.waiting_in = what;
  self.site = site;
  self.mask = mask;
  if (try_warp_op(self.warp, mask, what, site, &self)) return;
  self.state = State::at_warp_op;
  warps[self.warp].waiting |= 1u << self.lane;
  switch_to_scheduler();
}

void host_warp_sync(unsigned mask, HostSite site) {
  host_collective(mask, nullptr, nullptr, "__syncwarp", site);
}

// ---- shuffles, votes, reductions

namespace {

struct Exchange {
  uint64_t value, result;
  unsigned size;
  int source;
};

struct Vote {
  uint64_t value;
  HostWarpOp op;
  unsigned result;
};

const char* shuffle_name(HostShuffle kind) {
  switch (kind) {
    case HOST_SHUFFLE_INDEX:
      return "__shfl_sync";
    case HOST_SHUFFLE_UP:
      return "__shfl_up_sync";
    case HOST_SHUFFLE_DOWN:
      return "__shfl_down_sync";
    default:
      return "__shfl_xor_sync";
  }
}

int source_lane(int lane, HostShuffle kind, int operand, int width) {
  int begin = lane & ~(width - 1);
  int end = begin + width;
  int source = lane;
  switch (kind) {
    case HOST_SHUFFLE_INDEX:
      return begin + (operand & (width - 1));
    case HOST_SHUFFLE_UP:
      source = lane - operand;
      return source < begin ? lane : source;
    case HOST_SHUFFLE_DOWN:
      source = lane + operand;
      return source >= end ? lane : source;
    default:
      // An earlier segment may be read, a later one may not.
      source = lane ^ operand;
      return source >= end ? lane : source;
  }
}

void exchange(void** payload, unsigned lanes) {
  for (unsigned lane = 0; lane < WARP; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    auto& mine = *(Exchange*)payload[lane];
    unsigned source = (unsigned)mine.source & (WARP - 1);
    if (lanes >> source & 1)
      mine.result = ((Exchange*)payload[source])->value;
    else
      memset(&mine.result, HOST_POISON, mine.size);  // the source lane takes no part
  }
}

const char* warp_op_name(HostWarpOp op) {
  switch (op) {
    case HOST_BALLOT:
      return "__ballot_sync";
    case HOST_ANY:
      return "__any_sync";
    case HOST_ALL:
      return "__all_sync";
    case HOST_MATCH_ANY:
      return "__match_any_sync";
    case HOST_MATCH_ALL:
      return "__match_all_sync";
    default:
      return "__reduce_sync";
  }
}

unsigned combine(HostWarpOp op, unsigned a, unsigned b) {
  switch (op) {
    case HOST_ADD:
      return a + b;
    case HOST_MIN_UNSIGNED:
      return std::min(a, b);
    case HOST_MAX_UNSIGNED:
      return std::max(a, b);
    case HOST_MIN_SIGNED:
      return (unsigned)std::min((int)a, (int)b);
    case HOST_MAX_SIGNED:
      return (unsigned)std::max((int)a, (int)b);
    case HOST_AND:
      return a & b;
    case HOST_OR:
      return a | b;
    default:
      return a ^ b;
  }
}

unsigned matching(void** payload, unsigned lanes, uint64_t value) {
  unsigned equal = 0;
  for (unsigned lane = 0; lane < WARP; ++lane)
    if ((lanes >> lane & 1) && ((Vote*)payload[lane])->value == value) equal |= 1u << lane;
  return equal;
}

void vote(void** payload, unsigned lanes) {
  const Vote& first = *(Vote*)payload[__builtin_ctz(lanes)];
  HostWarpOp op = first.op;
  unsigned ballot = lanes & ~matching(payload, lanes, 0);
  unsigned reduced = (unsigned)first.value;
  for (unsigned lane = __builtin_ctz(lanes) + 1; lane < WARP; ++lane)
    if (lanes >> lane & 1) reduced = combine(op, reduced, (unsigned)((Vote*)payload[lane])->value);
  for (unsigned lane = 0; lane < WARP; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    auto& mine = *(Vote*)payload[lane];
    switch (op) {
      case HOST_BALLOT:
        mine.result = ballot;
        break;
      case HOST_ANY:
        mine.result = ballot != 0;
        break;
      case HOST_ALL:
        mine.result = ballot == lanes;
        break;
      case HOST_MATCH_ANY:
        mine.result = matching(payload, lanes, mine.value);
        break;
      case HOST_MATCH_ALL:
        mine.result = matching(payload, lanes, mine.value) == lanes ? lanes : 0;
        break;
      default:
        mine.result = reduced;
    }
  }
}

}  // namespace

uint64_t host_shuffle(unsigned mask, uint64_t value, unsigned size, HostShuffle kind, int operand,
                      int width, HostSite site) {
  if (width < 1 || width > 32 || (width & (width - 1)))
    host_fail(site, "%s: width %d is no power of two up to 32", shuffle_name(kind), width);
  int source = source_lane((int)current->lane, kind, operand, width);
  Exchange mine = {value, 0, size, source};
  host_collective(mask, &mine, exchange, shuffle_name(kind), site);
  return mine.result;
}

unsigned host_warp_op(unsigned mask, uint64_t value, HostWarpOp op, HostSite site) {
  Vote mine = {value, op, 0};
  host_collective(mask, &mine, vote, warp_op_name(op), site);
  return mine.result;
}

// ---- tensor-core tiles: D[16][8] = A[16][K] * B[K][8] + C

namespace {

struct Tile {
  HostMma kind;
  float* d;
  const unsigned* a;
  const unsigned* b;
  const float* c;
};

float element(HostMma kind, unsigned word, int half) {
  if (kind == HOST_MMA_TF32) return host_bit_cast<float>(word & ~0x1fffu);
  auto bits = (unsigned short)(word >> (16 * half));
  return kind == HOST_MMA_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

// Lane l holds rows l/4 (+8) and columns around l%4 of A, and the transposed places of B.
void mma(void** payload, unsigned) {
  float a[16][16], b[16][8], d[16][8];
  HostMma kind = ((Tile*)payload[0])->kind;
  int per_word = kind == HOST_MMA_TF32 ? 1 : 2;
  int k_step = 4 * per_word;
  for (int lane = 0; lane < (int)WARP; ++lane) {
    const Tile& tile = *(Tile*)payload[lane];
    int group = lane / 4, member = lane % 4;
    for (int half = 0; half < per_word; ++half) {
      int k = member * per_word + half;
      for (int i = 0; i < 4; ++i)
        a[group + 8 * (i & 1)][k + k_step * (i >> 1)] = element(kind, tile.a[i], half);
      for (int i = 0; i < 2; ++i) b[k + k_step * i][group] = element(kind, tile.b[i], half);
    }
    for (int i = 0; i < 4; ++i) d[group + 8 * (i >> 1)][2 * member + (i & 1)] = tile.c[i];
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 2 * k_step; ++k)
      for (int column = 0; column < 8; ++column)
        d[row][column] = __builtin_fmaf(a[row][k], b[k][column], d[row][column]);
  for (int lane = 0; lane < (int)WARP; ++lane) {
    const Tile& tile = *(Tile*)payload[lane];
    int group = lane / 4, member = lane % 4;
    for (int i = 0; i < 4; ++i) tile.d[i] = d[group + 8 * (i >> 1)][2 * member + (i & 1)];
  }
}

void require_full_warp(const char* what, HostSite site) {
  if (warps[current->warp].alive != ~0u) host_fail(site, "%s needs all 32 lanes of the warp", what);
}

struct MatrixLoad {
  unsigned* out;
  const unsigned char* row;
  int matrices;
  bool transposed;
};

void load_matrices(void** payload, unsigned) {
  for (int lane = 0; lane < (int)WARP; ++lane) {
    const auto& mine = *(MatrixLoad*)payload[lane];
    for (int i = 0; i < mine.matrices; ++i) {
      unsigned short pair[2];
      for (int half = 0; half < 2; ++half) {
        int near = 2 * (lane % 4) + half, far = lane / 4;
        int row = mine.transposed ? near : far;
        int column = mine.transposed ? far : near;
        const auto& owner = *(MatrixLoad*)payload[8 * i + row];
        memcpy(&pair[half], owner.row + 2 * column, 2);
      }
      mine.out[i] = pair[0] | (unsigned)pair[1] << 16;
    }
  }
}

}  // namespace

void host_mma(HostMma kind, float* d, const unsigned* a, const unsigned* b, const float* c,
              HostSite site) {
  require_full_warp("mma", site);
  Tile mine = {kind, d, a, b, c};
  host_collective(~0u, &mine, mma, "mma", site);
}

void host_ldmatrix(unsigned* out, const void* row, int matrices, bool transposed, HostSite site) {
  require_full_warp("ldmatrix", site);
  bool owns_a_row = (int)current->lane < 8 * matrices;
  if (owns_a_row) {
    if ((uintptr_t)row % 16) host_fail(site, "ldmatrix: row address not aligned to 16 bytes");
    host_touch(row, 16, HOST_READ, site);
  }
  MatrixLoad mine = {out, (const unsigned char*)row, matrices, transposed};
  host_collective(~0u, &mine, load_matrices, "ldmatrix", site);
}

// ---- cp.async: the data land only when somebody waits, until then the target is poisoned

void host_cp_async(void* dst, const void* src, unsigned bytes, bool valid, HostSite site) {
  Fiber& self = *current;
  if ((uintptr_t)dst % bytes || (valid && (uintptr_t)src % bytes))
    host_fail(site, "misaligned cp.async of %u bytes (to %p, from %p)", bytes, dst, src);
  if (valid) host_touch(src, bytes, HOST_READ, site);
  host_async_begin(dst, bytes, site);
  memset(dst, HOST_POISON, bytes);
  self.copies.push_back({dst, src, bytes, valid, self.copy_group, site});
}

void host_cp_async_commit() { ++current->copy_group; }

// Lands all committed groups but the newest ones; a thread that exits lands everything.
void land_copies(Fiber& fiber, unsigned newest_in_flight) {
  auto landed = [&](const AsyncCopy& copy) {
    bool in_flight = copy.group + newest_in_flight >= fiber.copy_group;
    if (in_flight && fiber.state != State::done) return false;
    fiber.site = copy.site;
    if (copy.valid)
      memcpy(copy.dst, copy.src, copy.bytes);
    else
      memset(copy.dst, 0, copy.bytes);
    host_async_land(copy.dst, copy.bytes);
    return true;
  };
  auto end = std::remove_if(fiber.copies.begin(), fiber.copies.end(), landed);
  fiber.copies.erase(end, fiber.copies.end());
}

void host_cp_async_wait(unsigned newest) { land_copies(*current, newest); }
