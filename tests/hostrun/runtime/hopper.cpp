// mbarrier, TMA and wgmma. Loads land and products are formed only when somebody waits for them.
#include "../include/hopper.h"

#include <string.h>

#include <unordered_map>

#include "../include/tensor.h"
#include "checker.h"

namespace {

struct TmaLoad {
  char* dst;
  const cv3_tmap* map;
  int x, y;
};

struct MemoryBarrier {
  int count;
  int pending;
  long expected_bytes;
  unsigned phase;
  std::vector<TmaLoad> loads;
  HostClock clock;
};

struct Product {
  float* d;
  const char* a;
  const char* b;
  unsigned group;
};

struct WarpgroupQueue {
  std::vector<Product> products;
  unsigned group;
};

std::unordered_map<void*, MemoryBarrier> barriers;
std::unordered_map<unsigned, WarpgroupQueue> queues;  // by thread
unsigned long long serial;

void forget_other_blocks() {
  if (serial == host_block_serial()) return;
  serial = host_block_serial();
  barriers.clear();
  queues.clear();
}

MemoryBarrier& barrier_at(void* address, HostSite site) {
  forget_other_blocks();
  auto found = barriers.find(address);
  if (found == barriers.end()) host_fail(site, "mbarrier used before mbar_init");
  return found->second;
}

unsigned load_bytes(const cv3_tmap& map) {
  return map.box_columns * map.box_rows * map.item_bytes;
}

// The 128-byte swizzle: 16-byte chunks change places within a row of eight.
unsigned swizzled(unsigned row, unsigned byte) {
  unsigned chunk = (byte >> 4) ^ (row & 7);
  return row * 128 + (chunk << 4 | (byte & 15));
}

void land(const TmaLoad& load) {
  const cv3_tmap& map = *load.map;
  for (unsigned row = 0; row < map.box_rows; ++row) {
    for (unsigned column = 0; column < map.box_columns; ++column) {
      unsigned byte = column * map.item_bytes;
      unsigned row_bytes = map.box_columns * map.item_bytes;
      char* dst = load.dst + (map.swizzle ? swizzled(row, byte) : row * row_bytes + byte);
      long x = load.x + (long)column, y = load.y + (long)row;
      bool inside = x >= 0 && y >= 0 && x < (long)map.columns && y < (long)map.rows;
      const char* src = (const char*)map.base + y * (long)map.row_bytes + x * map.item_bytes;
      if (inside)
        memcpy(dst, src, map.item_bytes);
      else
        memset(dst, 0, map.item_bytes);
    }
  }
  host_async_land(load.dst, load_bytes(map));
}

void complete_phase(MemoryBarrier& barrier) {
  if (barrier.pending || barrier.expected_bytes) return;
  for (const TmaLoad& load : barrier.loads) land(load);
  if (!barrier.loads.empty()) host_release(&barrier.clock);
  barrier.loads.clear();
  barrier.phase ^= 1;
  barrier.pending = barrier.count;
}

}  // namespace

void host_mbar_init(void* address, int count, HostSite site) {
  forget_other_blocks();
  host_touch(address, 8, HOST_WRITE, site);
  memset(address, 0, 8);
  barriers[address] = {count, count, 0, 0, {}, {}};
}

void host_mbar_arrive(void* address, unsigned expected_bytes, HostSite site) {
  MemoryBarrier& barrier = barrier_at(address, site);
  complete_phase(barrier);
  host_release(&barrier.clock);
  barrier.expected_bytes += expected_bytes;
  --barrier.pending;
}

void host_mbar_wait(void* address, unsigned parity, HostSite site) {
  MemoryBarrier& barrier = barrier_at(address, site);
  complete_phase(barrier);
  while (barrier.phase == parity) {
    host_yield(site);
    complete_phase(barrier);
  }
  host_acquire(&barrier.clock);
}

void host_tma_load_2d(void* dst, const cv3_tmap* map, void* address, int x, int y, HostSite site) {
  unsigned alignment = map->swizzle ? 1024 : 128;
  if ((uintptr_t)dst % alignment)
    host_fail(site, "the target of a TMA load is not aligned to %u bytes", alignment);
  if (map->swizzle && map->box_columns * map->item_bytes != 128)
    host_fail(site, "the 128-byte swizzle needs rows of 128 bytes");
  MemoryBarrier& barrier = barrier_at(address, site);
  host_async_begin(dst, load_bytes(*map), site);
  memset(dst, HOST_POISON, load_bytes(*map));
  barrier.loads.push_back({(char*)dst, map, x, y});
  barrier.expected_bytes -= load_bytes(*map);
}

void host_wgmma_m64n64k16_bf16(float* d, const void* a, const void* b, HostSite site) {
  forget_other_blocks();
  WarpgroupQueue& queue = queues[host_thread_rank()];
  // Each thread of the warpgroup vouches for one 16-byte chunk of either operand.
  unsigned rank = host_thread_rank() % 128, row = rank / 2;
  for (const void* operand : {a, b}) {
    auto base = (uintptr_t)operand & ~(uintptr_t)1023;
    auto byte = (unsigned)((uintptr_t)operand - base) + rank % 2 * 16;
    host_touch((const void*)(base + swizzled(row, byte)), 16, HOST_READ, site);
  }
  queue.products.push_back({d, (const char*)a, (const char*)b, queue.group});
}

void host_wgmma_commit() { ++queues[host_thread_rank()].group; }

static float element(const char* operand, unsigned row, unsigned k) {
  auto base = (uintptr_t)operand & ~(uintptr_t)1023;
  auto byte = (unsigned)((uintptr_t)operand - base) + 2 * k;
  return bf16_to_f32(*(const unsigned short*)(base + swizzled(row, byte)));
}

static void multiply(const Product& product) {
  unsigned rank = host_thread_rank() % 128, warp = rank / 32, lane = rank % 32;
  for (unsigned i = 0; i < 32; ++i) {
    unsigned row = 16 * warp + lane / 4 + 8 * (i >> 1 & 1);
    unsigned column = 8 * (i >> 2) + 2 * (lane % 4) + (i & 1);
    for (unsigned k = 0; k < 16; ++k)
      product.d[i] = __builtin_fmaf(element(product.a, row, k), element(product.b, column, k),
                                    product.d[i]);
  }
}

void host_wgmma_wait(unsigned newest) {
  WarpgroupQueue& queue = queues[host_thread_rank()];
  std::vector<Product> in_flight;
  for (const Product& product : queue.products) {
    if (product.group + newest < queue.group)
      multiply(product);
    else
      in_flight.push_back(product);
  }
  queue.products.swap(in_flight);
}
