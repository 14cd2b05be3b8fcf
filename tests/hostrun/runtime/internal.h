// State shared by the scheduler, the warp operations and the checker.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

#include "../include/runtime_api.h"

constexpr unsigned WARP = 32;
constexpr unsigned MAX_WARPS = 32;

enum class State { fresh, runnable, at_barrier, at_warp_op, done };

struct AsyncCopy {
  void* dst;
  const void* src;
  unsigned bytes;
  bool valid;
  unsigned group;
  HostSite site;
};

// One CUDA thread.
struct Fiber {
  uint3 index;
  unsigned rank, warp, lane;
  State state;
  void* stack_pointer;
  char* stack;
  void* asan_fake_stack;
  HostSite site;  // of the last call into the runtime
  // What it waits for.
  const char* waiting_in;
  unsigned barrier;
  unsigned mask;
  void* payload;
  HostCollective body;
  int predicate;
  HostBlockVote vote;
  // cp.async in flight.
  std::vector<AsyncCopy> copies;
  unsigned copy_group;
};

// Sets of lanes.
struct WarpState {
  unsigned existing, alive, waiting;
};

struct Launch {
  void (*entry)(void**);
  void** args;
  unsigned grid[3];
  unsigned block[3];
  unsigned threads;
  unsigned long long seed;
  int order;
  int check;
  int preempt;
};

struct Stats {
  unsigned long long barriers, warp_ops, switches, accesses;
};

extern Launch launch;
extern Stats stats;
extern Fiber* fibers;
extern WarpState warps[MAX_WARPS];
extern Fiber* current;  // null outside of a kernel's thread
extern uint3 block_index;
extern unsigned block_rank;
extern uint32_t now;  // logical time of the race checker, advanced by every synchronisation

// What a launch can end in; a fatal report also stops it, after the others it goes on.
enum Outcome { OK = 0, FATAL = 1, RACE = 2, FAULT = 4 };
extern int outcome;
bool launch_failed();
void report(int kind, const char* format, ...);
// Leaves the current thread for good; does nothing outside of one.
void give_up();

uint32_t random_number();
void switch_to_scheduler();
bool on_a_fiber_stack(uintptr_t address, bool own_only);

void land_copies(Fiber& fiber, unsigned newest_in_flight);
bool try_warp_op(unsigned warp, unsigned mask, const char* what, HostSite site, Fiber* self);
bool same_site(HostSite a, HostSite b);

