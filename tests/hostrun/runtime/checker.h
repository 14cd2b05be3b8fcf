// The checker's own interface: memory ranges, logical time, places in the source.
#pragma once
#include "internal.h"

enum RangeFlags { RANGE_SHARED = 1, RANGE_READ_ONLY = 2 };

// Where the kernel's library lies; its constants need no range of their own.
struct Module {
  uintptr_t begin, end, writable, writable_end;
};

enum AccessKind { PLAIN_READ, PLAIN_WRITE, ATOMIC_READ, ATOMIC_WRITE };

extern "C" {
__attribute__((visibility("default"))) void host_clear_ranges();
__attribute__((visibility("default"))) void host_add_range(void* address, size_t bytes,
                                                           const char* name, int flags);
}

// A place in the kernel: an offset into its library, or an interned HostSite.
uint32_t place_of_pc(const void* return_address);
uint32_t place_of_site(HostSite site);
// Of a signal: in the kernel itself, or in the runtime on behalf of its last access.
uint32_t place_of_fault(uintptr_t pc);
std::string place_text(uint32_t place);

void checker_begin_launch(size_t blocks, const Module& module);
void checker_end_launch();
void checker_begin_block();
void checker_sync_block(const bool* warps_present, bool whole_block);
void checker_sync_lanes(unsigned warp, unsigned lanes);
void checker_access(const void* address, unsigned bytes, AccessKind kind, uint32_t place);
bool checker_is_shared(const void* address);
