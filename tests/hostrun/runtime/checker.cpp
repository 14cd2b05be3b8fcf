// Finds out-of-bounds and misaligned accesses, reads of unwritten shared memory and data races.
//
// Every few bytes of a buffer have a cell: it remembers their last plain write and, since then, who
// has read or atomically updated them, less those whom a later access of the same kind stands for.
// Two accesses race unless a barrier, __syncwarp or mbarrier lies between them; between blocks,
// unless the first block has fenced after its access and the second one has done an atomic since.
#include "checker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Threads of a block that have made the same access since the same synchronisation.
struct Group {
  uint32_t warp;  // of one of them, counted from 1 over all blocks; 0: nobody
  uint32_t time, place;
  uint32_t kind;
  uint32_t lanes;  // of that warp, if there is no table
  uint32_t table;  // an index into `lane_tables`: the lanes of each warp of the block
  uint32_t next;   // an index into `more_groups`, 0: the last one
};

struct Cell {
  uint32_t writer, write_time, write_place;  // threads count from 1, 0: nobody
  Group group;         // accesses since the plain write, except plain writes
  bool atomic_writes;  // some of the groups may be of atomic writes
  bool in_flight;      // the target of a copy that nobody has waited for
};

struct Range {
  uintptr_t begin;
  size_t bytes;
  std::string name;
  int flags;
  unsigned cell_shift;  // a cell stands for 1 << cell_shift bytes
  std::vector<Cell> cells;

  bool contains(uintptr_t address) const { return address - begin < bytes; }
};

struct Access {
  uint64_t address;
  uint32_t place, block;
  uint16_t thread;
  uint8_t bytes, kind;
  uint32_t shared;
};

constexpr uint32_t SITE_PLACE = 0x80000000u;
constexpr uint32_t NOWHERE = ~0u;

std::vector<Range> ranges;
size_t last_range;
uint32_t last_place;
Module kernel_module;
std::vector<HostSite> sites;
std::unordered_map<uint64_t, uint32_t> site_index;
std::unordered_set<uint64_t> reported_pairs;  // of places: one report for each is enough

// Logical time: what lies before sees[a][b] in b happened before what a does now.
uint32_t block_time;  // everybody in the block
uint32_t warp_sees[MAX_WARPS][MAX_WARPS];
uint32_t lane_sees[MAX_WARPS][WARP][WARP];
std::vector<uint32_t> fence_time, atomic_time;  // of each block
// An access bears the time of its warp's last synchronisation, so that lanes can share a group.
uint32_t warp_time[MAX_WARPS];
bool part_syncs[MAX_WARPS];  // lane_sees says something about this warp

// Both grow as needed; what is free forms a list.
std::vector<Group> more_groups;
std::vector<uint32_t> lane_tables;
uint32_t free_group, free_table;
uint32_t table_size;

Access* trace;
size_t trace_room, trace_used;
unsigned trace_blocks;

constexpr uint32_t MAX_RANKS = MAX_WARPS * WARP;

uint32_t my_id() { return block_rank * MAX_RANKS + current->rank + 1; }
uint32_t my_warp() { return block_rank * MAX_WARPS + current->warp + 1; }
uint32_t my_time() { return warp_time[current->warp]; }
unsigned block_of(uint32_t thread) { return (thread - 1) / MAX_RANKS; }
unsigned rank_of(uint32_t thread) { return (thread - 1) % MAX_RANKS; }
unsigned block_of(const Group& group) { return (group.warp - 1) / MAX_WARPS; }
unsigned warp_of(const Group& group) { return (group.warp - 1) % MAX_WARPS; }

// All warps have synchronised as far as their accesses' times go.
void advance_all_warps() { std::fill(warp_time, warp_time + MAX_WARPS, now); }

// Blocks run one after the other, so this is final once the earlier block has ended.
bool fenced(unsigned block, uint32_t time) { return fence_time[block] > time; }

bool block_ordered(unsigned block, uint32_t time) {
  return fenced(block, time) && atomic_time[block_rank] > fence_time[block];
}

bool warp_ordered(unsigned warp, uint32_t time) {
  return block_time > time || warp_sees[current->warp][warp] > time;
}

bool ordered(uint32_t thread, uint32_t time) {
  unsigned block = block_of(thread);
  if (block != block_rank) return block_ordered(block, time);
  unsigned rank = rank_of(thread);
  if (rank == current->rank) return true;
  unsigned warp = rank / WARP;
  if (warp_ordered(warp, time)) return true;
  return warp == current->warp && lane_sees[warp][current->lane][rank % WARP] > time;
}

// The lanes of a warp of this block whose access nothing orders before the current thread.
uint32_t unordered_lanes(unsigned warp, uint32_t time, uint32_t lanes) {
  if (warp_ordered(warp, time)) return 0;
  if (warp != current->warp) return lanes;
  lanes &= ~(1u << current->lane);
  if (!part_syncs[warp]) return lanes;
  const uint32_t* sees = lane_sees[warp][current->lane];
  for (uint32_t rest = lanes; rest; rest &= rest - 1)
    if (sees[__builtin_ctz(rest)] > time) lanes &= ~(rest & -rest);
  return lanes;
}

// Calls visit(warp, lanes) for each warp of a group, by reference, until it returns false.
template <class Visit>
void for_each_warp(Group& group, Visit visit) {
  if (!group.table) {
    visit(warp_of(group), group.lanes);
    return;
  }
  uint32_t* lanes = &lane_tables[group.table];
  for (unsigned warp = 0; warp < table_size; ++warp)
    if (lanes[warp] && !visit(warp, lanes[warp])) return;
}

// A thread of the group whose access nothing orders before the current thread, or 0.
uint32_t unordered_thread(Group& group) {
  unsigned block = block_of(group);
  if (block != block_rank ? block_ordered(block, group.time) : block_time > group.time) return 0;
  uint32_t found = 0;
  for_each_warp(group, [&](unsigned warp, uint32_t all) {
    uint32_t lanes = block == block_rank ? unordered_lanes(warp, group.time, all) : all;
    if (lanes) found = block * MAX_RANKS + warp * WARP + (unsigned)__builtin_ctz(lanes) + 1;
    return !found;
  });
  return found;
}

// Takes out the threads that are ordered before the current one; true if nobody remains.
bool empties(Group& group) {
  if (block_of(group) != block_rank) return block_ordered(block_of(group), group.time);
  if (block_time > group.time) return true;
  bool empty = true;
  for_each_warp(group, [&](unsigned warp, uint32_t& lanes) {
    lanes = unordered_lanes(warp, group.time, lanes);
    empty &= !lanes;
    return true;
  });
  return empty;
}

Group* next_group(const Group& group) {
  return group.next ? &more_groups[group.next] : nullptr;
}

uint32_t new_group(Group group) {
  uint32_t index = free_group;
  if (!index) {
    more_groups.push_back(group);
    return (uint32_t)more_groups.size() - 1;
  }
  free_group = more_groups[index].next;
  more_groups[index] = group;
  return index;
}

// With all lanes unset.
uint32_t new_table() {
  uint32_t table = free_table;
  if (table) {
    free_table = lane_tables[table];
    std::fill_n(&lane_tables[table], table_size, 0u);
  } else {
    table = (uint32_t)lane_tables.size();
    lane_tables.resize(table + table_size);
  }
  return table;
}

void drop_table(const Group& group) {
  if (!group.table) return;
  lane_tables[group.table] = free_table;
  free_table = group.table;
}

void drop_group(uint32_t index) {
  drop_table(more_groups[index]);
  more_groups[index].next = free_group;
  free_group = index;
}

void drop_groups(Cell& cell) {
  for (uint32_t index = cell.group.next; index;) {
    uint32_t next = more_groups[index].next;
    drop_group(index);
    index = next;
  }
  drop_table(cell.group);
  cell.group = Group{};
}

Group copied(Group group) {
  if (group.table) {
    uint32_t table = new_table();
    std::copy_n(&lane_tables[group.table], table_size, &lane_tables[table]);
    group.table = table;
  }
  if (group.next) group.next = new_group(copied(more_groups[group.next]));
  return group;
}

void forget_groups() {
  more_groups.assign(1, Group{});
  table_size = (launch.threads + WARP - 1) / WARP;
  lane_tables.assign(1, 0);
  free_group = free_table = 0;
}

std::string thread_text(uint32_t thread) {
  return "block " + std::to_string(block_of(thread)) + " thread " +
         std::to_string(rank_of(thread));
}

const char* verb(AccessKind kind) {
  switch (kind) {
    case PLAIN_READ:
      return "read";
    case PLAIN_WRITE:
      return "write";
    case ATOMIC_READ:
      return "volatile read";
    default:
      return "atomic or volatile write";
  }
}

bool writes(AccessKind kind) { return kind == PLAIN_WRITE || kind == ATOMIC_WRITE; }
bool atomic(AccessKind kind) { return kind == ATOMIC_READ || kind == ATOMIC_WRITE; }

bool first_report(uint32_t place, uint32_t earlier_place) {
  return reported_pairs.insert((uint64_t)place << 32 | earlier_place).second;
}

void report_race(const Range& range, size_t byte, AccessKind kind, uint32_t place,
                 const char* earlier, const std::string& who, uint32_t earlier_place) {
  if (!first_report(place, earlier_place)) return;
  report(RACE, "race on %s byte %zu: %s by %s at %s vs earlier %s by %s at %s", range.name.c_str(),
         byte, verb(kind), thread_text(my_id()).c_str(), place_text(place).c_str(), earlier,
         who.c_str(), place_text(earlier_place).c_str());
}

// True when a fault was reported: one report for an access is enough.
bool check_cell(const Range& range, size_t byte, Cell& cell, AccessKind kind, uint32_t place) {
  if (cell.in_flight) {
    if (!first_report(place, cell.write_place)) return true;
    report(FAULT, "%s of %s byte %zu by %s at %s while the copy that %s issued at %s is in flight",
           verb(kind), range.name.c_str(), byte, thread_text(my_id()).c_str(),
           place_text(place).c_str(), thread_text(cell.writer).c_str(),
           place_text(cell.write_place).c_str());
    return true;
  }
  if (cell.writer && !ordered(cell.writer, cell.write_time)) {
    report_race(range, byte, kind, place, "write", thread_text(cell.writer), cell.write_place);
    return true;
  }
  bool looks = cell.group.warp && (writes(kind) || cell.atomic_writes);
  for (Group* group = looks ? &cell.group : nullptr; group; group = next_group(*group)) {
    auto earlier = (AccessKind)group->kind;
    if (!(writes(kind) || writes(earlier)) || (atomic(kind) && atomic(earlier))) continue;
    uint32_t thread = unordered_thread(*group);
    if (!thread) continue;
    report_race(range, byte, kind, place, writes(earlier) ? "write" : "read", thread_text(thread),
                group->place);
    return true;
  }
  if (!writes(kind) && range.flags & RANGE_SHARED && !cell.writer && !cell.atomic_writes) {
    if (!first_report(place, NOWHERE)) return true;
    report(FAULT, "read of uninitialised %s byte %zu by %s at %s", range.name.c_str(), byte,
           thread_text(my_id()).c_str(), place_text(place).c_str());
    return true;
  }
  return false;
}

void record_write(Cell& cell, uint32_t place) {
  cell.writer = my_id();
  cell.write_time = my_time();
  cell.write_place = place;
  cell.atomic_writes = false;
  if (cell.group.warp) drop_groups(cell);
}

// Adds the current thread to a group if its access is the same one.
bool joins(Group& group, AccessKind kind, uint32_t place) {
  if (group.time != my_time() || group.kind != kind || block_of(group) != block_rank) return false;
  uint32_t mine = 1u << current->lane;
  bool same_place = group.place == place;
  if (!group.table) {
    if (group.warp == my_warp()) {
      if (!same_place && !(group.lanes & mine)) return false;
      group.lanes |= mine;
      return true;
    }
    if (!same_place) return false;
    group.table = new_table();
    lane_tables[group.table + warp_of(group)] = group.lanes;
  }
  uint32_t& lanes = lane_tables[group.table + current->warp];
  if (!same_place && !(lanes & mine)) return false;
  lanes |= mine;
  return true;
}

// Whether a group need not be remembered beside the current access of this kind: whoever would race
// with it races with that access, too, or with another block's group that stays.
bool is_covered(Group& group, AccessKind kind, Group** other_block) {
  bool stronger = group.kind == ATOMIC_READ || group.kind == kind;
  if (stronger && empties(group)) return true;
  if (block_of(group) == block_rank) return false;
  Group*& stays = other_block[group.kind];
  if (!stays) {
    stays = &group;
    return false;
  }
  if (fenced(block_of(*stays), stays->time)) {
    std::swap(*stays, group);
    std::swap(stays->next, group.next);
  }
  return true;
}

// Reads and atomic writes.
void record_access(Cell& cell, AccessKind kind, uint32_t place) {
  if (kind == ATOMIC_WRITE) cell.atomic_writes = true;
  for (Group* group = &cell.group; group; group = next_group(*group))
    if (joins(*group, kind, place)) return;
  Group* other_block[ATOMIC_WRITE + 1] = {};
  uint32_t rest = cell.group.warp ? new_group(cell.group) : 0;
  for (uint32_t* link = &rest; *link;) {
    uint32_t index = *link;
    if (is_covered(more_groups[index], kind, other_block)) {
      *link = more_groups[index].next;
      drop_group(index);
    } else {
      link = &more_groups[index].next;
    }
  }
  cell.group = {my_warp(), my_time(), place, kind, 1u << current->lane, 0, rest};
}

// Splits cells so that an access of this many bytes covers whole ones.
void refine(Range& range, unsigned bytes) {
  unsigned shift = range.cell_shift;
  while (shift && ((1u << shift) > bytes)) --shift;
  if (shift == range.cell_shift) return;
  size_t count = (range.bytes + (1u << shift) - 1) >> shift;
  std::vector<Cell> cells(count);
  for (size_t i = 0; i < count; ++i) {
    const Cell& whole = range.cells[i >> (range.cell_shift - shift)];
    cells[i] = whole;
    cells[i].group = copied(whole.group);
  }
  for (Cell& cell : range.cells) drop_groups(cell);
  range.cells.swap(cells);
  range.cell_shift = shift;
}

Range* find_range(uintptr_t address) {
  if (last_range < ranges.size() && ranges[last_range].contains(address))
    return &ranges[last_range];
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (!ranges[i].contains(address)) continue;
    last_range = i;
    return &ranges[i];
  }
  return nullptr;
}

const Range* nearest_range(uintptr_t address) {
  const Range* nearest = nullptr;
  uintptr_t best = ~(uintptr_t)0;
  for (const Range& range : ranges) {
    uintptr_t end = range.begin + range.bytes;
    uintptr_t distance = address < range.begin ? range.begin - address : address - end;
    if (nearest && distance >= best) continue;
    nearest = &range;
    best = distance;
  }
  return nearest;
}

bool is_module_constant(uintptr_t address) {
  const Module& m = kernel_module;
  bool inside = address >= m.begin && address < m.end;
  return inside && !(address >= m.writable && address < m.writable_end);
}

void report_stray(uintptr_t address, unsigned bytes, AccessKind kind, uint32_t place,
                  const Range* range) {
  std::string where = place_text(place);
  if (!range && on_a_fiber_stack(address, false))
    report(FATAL, "%s of another thread's local memory at %s", verb(kind), where.c_str());
  if (!range) range = nearest_range(address);
  if (!range) report(FATAL, "out-of-bounds %s of %u bytes at %s", verb(kind), bytes, where.c_str());
  report(FATAL, "out-of-bounds %s of %u bytes at byte offset %ld of %s (%zu bytes) at %s",
         verb(kind), bytes, (long)(address - range->begin), range->name.c_str(), range->bytes,
         where.c_str());
}

void record_trace(uintptr_t address, unsigned bytes, AccessKind kind, uint32_t place,
                  const Range& range) {
  if (trace_used == trace_room || block_rank >= trace_blocks) return;
  trace[trace_used++] = {address,
                         place,
                         block_rank,
                         (uint16_t)current->rank,
                         (uint8_t)bytes,
                         (uint8_t)kind,
                         (uint32_t)(range.flags & RANGE_SHARED)};
}

template <class Visit>
void for_each_cell(Range& range, uintptr_t address, unsigned bytes, Visit visit) {
  size_t offset = address - range.begin;
  size_t first = offset >> range.cell_shift;
  size_t last = (offset + bytes - 1) >> range.cell_shift;
  for (size_t i = first; i <= last; ++i)
    if (!visit(i << range.cell_shift, range.cells[i])) return;
}

}  // namespace

// ---- places

uint32_t place_of_pc(const void* return_address) {
  return (uint32_t)((uintptr_t)return_address - kernel_module.begin);
}

uint32_t place_of_site(HostSite site) {
  uint64_t key = (uint64_t)(uintptr_t)site.file << 20 ^ (uint64_t)site.line;
  auto [entry, is_new] = site_index.try_emplace(key, (uint32_t)sites.size());
  if (is_new) sites.push_back(site);
  return entry->second | SITE_PLACE;
}

uint32_t place_of_fault(uintptr_t pc) {
  bool in_kernel = pc >= kernel_module.begin && pc < kernel_module.end;
  if (in_kernel) return place_of_pc((const char*)pc + 1);
  if (last_place != NOWHERE) return last_place;
  return current->site.file ? place_of_site(current->site) : NOWHERE;
}

std::string place_text(uint32_t place) {
  if (place == NOWHERE) return "an unknown place";
  char text[512];
  if (place & SITE_PLACE) {
    HostSite site = sites[place & ~SITE_PLACE];
    snprintf(text, sizeof text, "%s:%d", site.file, site.line);
  } else {
    snprintf(text, sizeof text, "<pc %x>", place);  // the launcher looks the line up
  }
  return text;
}

EXPORT void host_place_text(uint32_t place, char* text, size_t room) {
  snprintf(text, room, "%s", place_text(place).c_str());
}

// ---- ranges

void host_clear_ranges() { ranges.clear(); }

void host_add_range(void* address, size_t bytes, const char* name, int flags) {
  unsigned shift = 2;
  while ((uintptr_t)address & ((1u << shift) - 1)) --shift;
  ranges.push_back({(uintptr_t)address, bytes, name, flags, shift, {}});
}

// ---- the launch's course

void checker_begin_launch(size_t blocks, const Module& module) {
  kernel_module = module;
  last_range = 0;
  last_place = NOWHERE;
  sites.clear();
  site_index.clear();
  reported_pairs.clear();
  if (!launch.check) return;
  fence_time.assign(blocks, 0);
  atomic_time.assign(blocks, 0);
  forget_groups();
  for (Range& range : ranges)
    range.cells.assign((range.bytes >> range.cell_shift) + 1, Cell{});
}

void checker_end_launch() {
  ranges.clear();
  ranges.shrink_to_fit();
}

void checker_begin_block() {
  for (Range& range : ranges) {
    if (!(range.flags & RANGE_SHARED)) continue;
    memset((void*)range.begin, HOST_POISON, range.bytes);
    for (Cell& cell : range.cells)
      if (cell.group.next || cell.group.table) drop_groups(cell);
    std::fill(range.cells.begin(), range.cells.end(), Cell{});
  }
  if (!launch.check) return;
  block_time = 0;
  ++now;
  advance_all_warps();
  std::fill(part_syncs, part_syncs + MAX_WARPS, false);
  unsigned warps = (launch.threads + WARP - 1) / WARP;
  memset(warp_sees, 0, sizeof warp_sees);
  memset(lane_sees, 0, warps * sizeof lane_sees[0]);
}

void checker_sync_block(const bool* warps_present, bool whole_block) {
  ++now;
  if (whole_block) {
    block_time = now;
    advance_all_warps();
    return;
  }
  uint32_t merged[MAX_WARPS] = {};
  for (unsigned warp = 0; warp < MAX_WARPS; ++warp) {
    if (!warps_present[warp]) continue;
    for (unsigned other = 0; other < MAX_WARPS; ++other)
      merged[other] = std::max(merged[other], warp_sees[warp][other]);
  }
  for (unsigned warp = 0; warp < MAX_WARPS; ++warp)
    if (warps_present[warp]) merged[warp] = warp_time[warp] = now;
  for (unsigned warp = 0; warp < MAX_WARPS; ++warp)
    if (warps_present[warp]) std::copy(merged, merged + MAX_WARPS, warp_sees[warp]);
}

void checker_sync_lanes(unsigned warp, unsigned lanes) {
  warp_time[warp] = ++now;
  if (lanes == ~0u) {
    warp_sees[warp][warp] = now;
    return;
  }
  part_syncs[warp] = true;
  auto& sees = lane_sees[warp];
  uint32_t merged[WARP] = {};
  for (unsigned lane = 0; lane < WARP; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    for (unsigned other = 0; other < WARP; ++other)
      merged[other] = std::max(merged[other], sees[lane][other]);
  }
  for (unsigned lane = 0; lane < WARP; ++lane)
    if (lanes >> lane & 1) merged[lane] = now;
  for (unsigned lane = 0; lane < WARP; ++lane)
    if (lanes >> lane & 1) std::copy(merged, merged + WARP, sees[lane]);
}

void host_release(HostClock* clock) {
  if (!launch.check) return;
  warp_time[current->warp] = ++now;
  for (unsigned warp = 0; warp < MAX_WARPS; ++warp) {
    uint32_t seen = std::max(block_time, warp_sees[current->warp][warp]);
    clock->seen[warp] = std::max(clock->seen[warp], seen);
  }
  clock->seen[current->warp] = now;
}

void host_acquire(const HostClock* clock) {
  if (!launch.check) return;
  auto& sees = warp_sees[current->warp];
  for (unsigned warp = 0; warp < MAX_WARPS; ++warp)
    sees[warp] = std::max(sees[warp], (uint32_t)clock->seen[warp]);
}

void host_fence_device() {
  if (!launch.check) return;
  fence_time[block_rank] = ++now;
  advance_all_warps();
}

// ---- accesses

bool checker_is_shared(const void* address) {
  const Range* range = find_range((uintptr_t)address);
  return range && range->flags & RANGE_SHARED;
}

void checker_access(const void* pointer, unsigned bytes, AccessKind kind, uint32_t place) {
  if (!current || launch_failed()) return;
  auto address = (uintptr_t)pointer;
  Range* range = find_range(address);
  if (!range && (on_a_fiber_stack(address, true) || is_module_constant(address))) return;
  ++stats.accesses;
  last_place = place;
  bool preempt = launch.preempt && random_number() % (unsigned)launch.preempt == 0;
  if (preempt) host_yield(current->site);
  if (!range || !range->contains(address + bytes - 1))
    report_stray(address, bytes, kind, place, range);
  if (address % bytes)
    report(FATAL, "misaligned %s of %u bytes of %s at %s", verb(kind), bytes, range->name.c_str(),
           place_text(place).c_str());
  if (trace) record_trace(address, bytes, kind, place, *range);
  if (range->flags & RANGE_READ_ONLY) {
    if (!writes(kind)) return;
    report(FATAL, "write to %s, which the kernel declares const, at %s", range->name.c_str(),
           place_text(place).c_str());
  }
  refine(*range, bytes);
  for_each_cell(*range, address, bytes, [&](size_t byte, Cell& cell) {
    return !check_cell(*range, byte, cell, kind, place);
  });
  for_each_cell(*range, address, bytes, [&](size_t, Cell& cell) {
    if (kind == PLAIN_WRITE)
      record_write(cell, place);
    else
      record_access(cell, kind, place);
    return true;
  });
}

void host_touch(const void* address, unsigned bytes, HostAccess access, HostSite site) {
  if (!launch.check) return;
  checker_access(address, bytes, access == HOST_READ ? PLAIN_READ : PLAIN_WRITE,
                 place_of_site(site));
}

void host_atomic(const void* address, unsigned bytes, HostSite site) {
  if (!launch.check) return;
  checker_access(address, bytes, ATOMIC_WRITE, place_of_site(site));
  atomic_time[block_rank] = ++now;
}

void host_async_begin(void* address, unsigned bytes, HostSite site) {
  if (!launch.check) return;
  uint32_t place = place_of_site(site);
  for (unsigned done = 0; done < bytes; done += std::min(bytes, 16u)) {
    auto* part = (char*)address + done;
    checker_access(part, std::min(bytes, 16u), PLAIN_WRITE, place);
    Range* range = find_range((uintptr_t)part);
    for_each_cell(*range, (uintptr_t)part, std::min(bytes, 16u), [](size_t, Cell& cell) {
      cell.in_flight = true;
      return true;
    });
  }
}

// The thread that waits makes the data its own write: others need a barrier after the wait.
void host_async_land(void* address, unsigned bytes) {
  if (!launch.check) return;
  Range* range = find_range((uintptr_t)address);
  for_each_cell(*range, (uintptr_t)address, bytes, [](size_t, Cell& cell) {
    cell.in_flight = false;
    record_write(cell, cell.write_place);
    return true;
  });
}

// ---- trace of the accesses, for the profile

EXPORT void host_trace(Access* buffer, size_t room, unsigned blocks) {
  trace = buffer;
  trace_room = room;
  trace_used = 0;
  trace_blocks = blocks;
}

EXPORT size_t host_trace_used() { return trace_used; }
