// The functions that the device headers call and the runtime library defines.
#pragma once
#include "types.h"

// Where in the kernel's text a call stands. Taken as a default argument, it names the caller's line,
// and it honours #line, so reports speak of the author's own files.
struct HostSite {
  const char* file;
  int line;
  static constexpr HostSite here(const char* file = __builtin_FILE(),
                                 int line = __builtin_LINE()) {
    return {file, line};
  }
};

struct HostBlockVote {
  int count, all, any;
};

// Logical time, one entry per warp: what a synchronisation object has seen of each warp.
struct HostClock {
  unsigned seen[32];
};

enum HostShuffle { HOST_SHUFFLE_INDEX, HOST_SHUFFLE_UP, HOST_SHUFFLE_DOWN, HOST_SHUFFLE_XOR };

enum HostWarpOp {
  HOST_BALLOT,
  HOST_ANY,
  HOST_ALL,
  HOST_MATCH_ANY,
  HOST_MATCH_ALL,
  HOST_ADD,
  HOST_MIN_UNSIGNED,
  HOST_MAX_UNSIGNED,
  HOST_MIN_SIGNED,
  HOST_MAX_SIGNED,
  HOST_AND,
  HOST_OR,
  HOST_XOR,
};

// A kernel's parameter: kind as in launch_glue.h, size in bytes, mangled name of its type.
struct HostParameter {
  char kind;
  size_t size;
  const char* type;
};

enum HostMma { HOST_MMA_F16, HOST_MMA_BF16, HOST_MMA_TF32 };

enum HostAccess { HOST_READ, HOST_WRITE };

// Runs once per warp operation, on the last lane to arrive, for all lanes set in `lanes`.
typedef void (*HostCollective)(void** payload, unsigned lanes);

#pragma GCC visibility push(default)
extern "C" {

// The built-in variables never change within one CUDA thread: the compiler may fold repeated calls.
uint3 host_thread_idx() __attribute__((const));
uint3 host_block_idx() __attribute__((const));
uint3 host_block_dim() __attribute__((const));
uint3 host_grid_dim() __attribute__((const));
unsigned host_thread_rank() __attribute__((const));
void* host_dynamic_shared() __attribute__((const));
// Counts the blocks executed so far: lets per-block state notice that it is stale.
unsigned long long host_block_serial();

void host_barrier(unsigned id, unsigned threads, HostSite site);
HostBlockVote host_barrier_vote(int predicate, HostSite site);
void host_warp_sync(unsigned mask, HostSite site);
void host_collective(unsigned mask, void* payload, HostCollective body, const char* what,
                     HostSite site);
uint64_t host_shuffle(unsigned mask, uint64_t value, unsigned size, HostShuffle kind, int operand,
                      int width, HostSite site);
unsigned host_warp_op(unsigned mask, uint64_t value, HostWarpOp op, HostSite site);

void host_mma(HostMma kind, float* d, const unsigned* a, const unsigned* b, const float* c,
              HostSite site);
void host_ldmatrix(unsigned* out, const void* row, int matrices, bool transposed, HostSite site);
void host_cp_async(void* dst, const void* src, unsigned bytes, bool valid, HostSite site);
void host_cp_async_commit();
void host_cp_async_wait(unsigned newest);

// What the checker must be told about accesses that the compiler does not instrument.
void host_touch(const void* address, unsigned bytes, HostAccess access, HostSite site);
void host_atomic(const void* address, unsigned bytes, HostSite site);
void host_async_begin(void* address, unsigned bytes, HostSite site);
void host_async_land(void* address, unsigned bytes);
void host_fence_device();
void host_release(HostClock* clock);
void host_acquire(const HostClock* clock);

const char* host_signature_text(const HostParameter* parameters, size_t count);

void host_yield(HostSite site);
long long host_ticks();
[[noreturn]] void host_fail(HostSite site, const char* format, ...);
}
#pragma GCC visibility pop

#define HOST_POISON 0xFF  // all ones: NaN in every float format, -1 in every integer
