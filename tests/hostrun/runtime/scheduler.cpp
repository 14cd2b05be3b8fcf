// Runs the threads of one block at a time as fibers: launch, barriers, guard pages, signals.
#include <cxxabi.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

#include <algorithm>
#include <numeric>

#include "checker.h"
#include "internal.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

Launch launch;
Stats stats;
Fiber* fibers;
WarpState warps[MAX_WARPS];
Fiber* current;
uint3 block_index;
unsigned block_rank;
uint32_t now;
int outcome;

namespace {

constexpr size_t PAGE = 4096;
constexpr size_t STACK_BYTES = 128 << 10;
constexpr size_t MAX_SHARED = 227 << 10;
constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned BARRIERS = 16;
constexpr int MAX_REPORTS = 12;
constexpr unsigned char CANARY = 0xCB;

struct Barrier {
  unsigned arrived;
  unsigned expected;  // 0: every thread that is still alive
  HostSite site;
  HostBlockVote vote;
};

std::vector<Fiber> fiber_pool;
std::vector<char*> stacks;  // the first `stacks_used` belong to fibers
size_t stacks_used;
Barrier barriers[BARRIERS];
unsigned alive;
void* scheduler_sp;
void* dynamic_shared;
unsigned long long blocks_run;
uint64_t random_state;
std::string messages;
int reports;

// Progress, for the watchdog: a thread that spins on another one makes none.
volatile unsigned long long progress;
unsigned long long progress_seen;

}  // namespace

// ---- context switch

#if !defined(__x86_64__)
#error "write swap_context for this processor"
#endif
extern "C" void swap_context(void** save_sp, void* load_sp);
asm(R"(
  .text
  .globl swap_context
  .hidden swap_context
  .type swap_context, @function
swap_context:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size swap_context, .-swap_context
)");

// AddressSanitizer must be told about every change of stack.
#if defined(__SANITIZE_ADDRESS__)
static void* scheduler_fake_stack;
static const void* scheduler_stack;
static size_t scheduler_stack_bytes;

static void leave_fiber(bool for_good) {
  void** fake = for_good ? nullptr : &current->asan_fake_stack;
  __sanitizer_start_switch_fiber(fake, scheduler_stack, scheduler_stack_bytes);
}
static void enter_fiber(void* fake) {
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_stack_bytes);
}
static void leave_scheduler(const Fiber& fiber) {
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack, STACK_BYTES);
}
static void enter_scheduler() {
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
}
#else
static void leave_fiber(bool) {}
static void enter_fiber(void*) {}
static void leave_scheduler(const Fiber&) {}
static void enter_scheduler() {}
#endif

void switch_to_scheduler() {
  leave_fiber(false);
  swap_context(&current->stack_pointer, scheduler_sp);
  enter_fiber(current->asan_fake_stack);
}

void give_up() {
  if (!current) return;
  leave_fiber(true);
  swap_context(&current->stack_pointer, scheduler_sp);
}

static void release_barrier(unsigned id);

static void finish_thread() {
  Fiber& self = *current;
  self.state = State::done;
  warps[self.warp].alive &= ~(1u << self.lane);
  --alive;
  ++progress;
  land_copies(self, 0);
  // Threads that have left count as arrived: the others may have waited only for this one.
  Barrier& block_barrier = barriers[0];
  if (alive && block_barrier.arrived == alive && !block_barrier.expected) release_barrier(0);
  unsigned first = self.warp * WARP;
  unsigned last = std::min(first + WARP, launch.threads);
  for (unsigned i = first; i < last; ++i) {
    Fiber& lane = fibers[i];
    if (lane.state != State::at_warp_op) continue;
    try_warp_op(self.warp, lane.mask, lane.waiting_in, lane.site, nullptr);
  }
}

static void fiber_main() {
  enter_fiber(nullptr);
  launch.entry(launch.args);
  finish_thread();
  give_up();
  __builtin_unreachable();
}

static void start_fiber(Fiber& fiber) {
  if (stacks_used == stacks.size()) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char* stack = (char*)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    mprotect(stack, PAGE, PROT_NONE);
    stacks.push_back(stack);
  }
  fiber.stack = stacks[stacks_used++];
  void** sp = (void**)(fiber.stack + STACK_BYTES - 64);
  *--sp = nullptr;  // a return address for fiber_main, which never returns
  *--sp = (void*)fiber_main;
  for (int saved_register = 0; saved_register < 6; ++saved_register) *--sp = nullptr;
  fiber.stack_pointer = sp;
}

static void recycle_stack(Fiber& fiber) {
  size_t i = stacks_used - 1;
  while (stacks[i] != fiber.stack) --i;
  std::swap(stacks[i], stacks[--stacks_used]);
}

static void resume(Fiber& fiber) {
  current = &fiber;
  ++stats.switches;
  if (fiber.state == State::fresh) start_fiber(fiber);
  fiber.state = State::runnable;
  leave_scheduler(fiber);
  swap_context(&scheduler_sp, fiber.stack_pointer);
  enter_scheduler();
  current = nullptr;
  if (fiber.state == State::done && !launch_failed()) recycle_stack(fiber);
}

bool on_a_fiber_stack(uintptr_t address, bool own_only) {
  if (own_only) return address - (uintptr_t)current->stack < STACK_BYTES;
  for (size_t i = 0; i < stacks_used; ++i)
    if (address - (uintptr_t)stacks[i] < STACK_BYTES) return true;
  return false;
}

uint32_t random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)(random_state >> 11);
}

template <class T>
static void shuffle(std::vector<T>& items) {
  for (size_t i = items.size(); i-- > 1;) {
    size_t other = (size_t)((uint64_t)random_number() * (i + 1) >> 32);
    std::swap(items[i], items[other]);
  }
}

// ---- errors

bool launch_failed() { return outcome & FATAL; }

static void append_message(const std::string& text) {
  messages += text;
  messages += '\n';
}

static std::string format_text(const char* format, va_list args) {
  char text[1024];
  vsnprintf(text, sizeof text, format, args);
  return text;
}

static std::string thread_text() {
  char text[128];
  snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u): ", block_index.x, block_index.y,
           block_index.z, current->index.x, current->index.y, current->index.z);
  return text;
}

void report(int kind, const char* format, ...) {
  outcome |= kind;
  if (++reports > MAX_REPORTS && !(kind & FATAL)) return;
  va_list args;
  va_start(args, format);
  std::string text = format_text(format, args);
  va_end(args);
  append_message(current && kind & FATAL ? thread_text() + text : text);
  if (kind & FATAL) give_up();
}

void host_fail(HostSite site, const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text = format_text(format, args);
  va_end(args);
  report(FATAL, "%s at %s:%d", text.c_str(), site.file, site.line);
  abort();
}

bool same_site(HostSite a, HostSite b) {
  return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file));
}

// ---- barriers

static void release_barrier(unsigned id) {
  Barrier& barrier = barriers[id];
  bool present[MAX_WARPS] = {};
  for (unsigned i = 0; i < launch.threads; ++i) {
    Fiber& fiber = fibers[i];
    bool waits = fiber.state == State::at_barrier && fiber.barrier == id;
    if (!waits && &fiber != current) continue;
    present[fiber.warp] = true;
    fiber.vote = barrier.vote;
    if (waits) fiber.state = State::runnable;
  }
  if (launch.check) checker_sync_block(present, barrier.expected == 0);
  barrier = Barrier{};
  ++stats.barriers;
  ++progress;
}

void host_barrier(unsigned id, unsigned threads, HostSite site) {
  Fiber& self = *current;
  if (id >= BARRIERS) host_fail(site, "barrier %u: there are only %u", id, BARRIERS);
  Barrier& barrier = barriers[id];
  if (barrier.arrived == 0) {
    barrier.expected = threads;
    barrier.site = site;
    barrier.vote = {0, 1, 0};
  }
  // A named barrier may join different places of the text, __syncthreads must not.
  bool same_place = threads != 0 || same_site(barrier.site, site);
  if (!same_place || barrier.expected != threads) {
    host_fail(site, "divergent barrier %u: others wait for %u threads (0: all) at %s:%d, this one",
              id, barrier.expected, barrier.site.file, barrier.site.line);
  }
  ++barrier.arrived;
  barrier.vote.count += self.predicate;
  barrier.vote.all &= self.predicate;
  barrier.vote.any |= self.predicate;
  self.predicate = 0;
  if (barrier.arrived == (threads ? threads : alive)) {
    release_barrier(id);
    return;
  }
  self.waiting_in = threads ? "a named barrier" : "__syncthreads";
  self.site = site;
  self.barrier = id;
  self.state = State::at_barrier;
  switch_to_scheduler();
}

HostBlockVote host_barrier_vote(int predicate, HostSite site) {
  current->predicate = predicate != 0;
  host_barrier(0, 0, site);
  return current->vote;
}

// ---- what a thread may ask

uint3 host_thread_idx() { return current->index; }
unsigned host_thread_rank() { return current->rank; }
uint3 host_block_idx() { return block_index; }
uint3 host_block_dim() { return {launch.block[0], launch.block[1], launch.block[2]}; }
uint3 host_grid_dim() { return {launch.grid[0], launch.grid[1], launch.grid[2]}; }
void* host_dynamic_shared() { return dynamic_shared; }
unsigned long long host_block_serial() { return blocks_run; }

void host_yield(HostSite site) {
  current->site = site;
  if (alive > 1) switch_to_scheduler();
}

long long host_ticks() {
  static long long ticks = 0;
  return ++ticks;
}

// ---- buffers between guard pages

// Memory for `bytes` at an address that is `offset` more than a multiple of the alignment. It ends
// directly before an inaccessible page (up to the alignment); what is left between the page in
// front and the first byte, and behind the last one, is filled with canaries.
EXPORT void* host_buffer_alloc(size_t bytes, size_t alignment, size_t offset, void** mapping,
                               size_t* mapped) {
#if defined(__SANITIZE_ADDRESS__)
  // The sanitizer's own red zones serve better.
  *mapped = 0;
  if (posix_memalign(mapping, alignment, offset + bytes)) return nullptr;
  return (char*)*mapping + offset;
#else
  size_t body = (offset + bytes + alignment - 1) / alignment * alignment;
  size_t inner = (body + PAGE - 1) / PAGE * PAGE;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  void* map = mmap(nullptr, inner + 2 * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  *mapping = map;
  *mapped = inner + 2 * PAGE;
  char* begin = (char*)map + PAGE;
  char* end = begin + inner;
  char* data = end - body + offset;
  mprotect(map, PAGE, PROT_NONE);
  mprotect(end, PAGE, PROT_NONE);
  memset(begin, CANARY, (size_t)(data - begin));
  memset(data + bytes, CANARY, (size_t)(end - data) - bytes);
  return data;
#endif
}

// Whether a canary was overwritten, and at which byte offset from the data.
EXPORT int host_buffer_damaged(void* mapping, size_t mapped, void* data, size_t bytes,
                               long* offset) {
  if (!mapped) return 0;
  auto* begin = (unsigned char*)mapping + PAGE;
  auto* end = (unsigned char*)mapping + mapped - PAGE;
  auto* first = (unsigned char*)data;
  for (unsigned char* p = begin; p < end; ++p) {
    if (p == first) p += bytes;
    if (p == end) break;
    if (*p == CANARY) continue;
    *offset = p - first;
    return 1;
  }
  return 0;
}

EXPORT void host_buffer_free(void* mapping, size_t mapped) {
  if (mapped)
    munmap(mapping, mapped);
  else
    free(mapping);
}

// ---- signals

static const char* signal_text(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "memory fault: access outside of every buffer (guard page), or a misaligned vector";
    case SIGBUS:
      return "bus error";
    case SIGFPE:
      return "integer division by zero";
    case SIGILL:
      return "illegal instruction";
    default:
      return "watchdog: no barrier, warp operation or thread exit for too long (a spin?)";
  }
}

static void on_signal(int number, siginfo_t*, void* context) {
  bool watchdog = number == SIGVTALRM;
  if (watchdog && progress != progress_seen) {
    progress_seen = progress;
    return;
  }
  if (!current) {
    if (!watchdog) signal(number, SIG_DFL);
    return;
  }
  auto pc = (uintptr_t)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
  report(FATAL, "%s at %s", signal_text(number), place_text(place_of_fault(pc)).c_str());
}

namespace {

class SignalGuard {
 public:
  explicit SignalGuard(double watchdog_seconds) {
    alternate_.resize(64 << 10);
    stack_t stack = {};
    stack.ss_sp = alternate_.data();
    stack.ss_size = alternate_.size();
    sigaltstack(&stack, &old_stack_);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_NODEFER | SA_ONSTACK | SA_SIGINFO;
    for (int i = 0; i < COUNT; ++i) sigaction(NUMBERS[i], &action, &old_[i]);
    progress_seen = ~0ull;
    arm(watchdog_seconds);
  }
  ~SignalGuard() {
    arm(0);
    for (int i = 0; i < COUNT; ++i) sigaction(NUMBERS[i], &old_[i], nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  static void arm(double seconds) {
    timeval interval = {(time_t)seconds, (suseconds_t)((seconds - (time_t)seconds) * 1e6)};
    itimerval timer = {interval, interval};
    setitimer(ITIMER_VIRTUAL, &timer, nullptr);
  }
  static constexpr int COUNT = 5;
  static constexpr int NUMBERS[COUNT] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};
  struct sigaction old_[COUNT];
  stack_t old_stack_;
  std::vector<char> alternate_;
};

}  // namespace

// ---- launch

static void describe_deadlock() {
  std::string text = "deadlock in block (" + std::to_string(block_index.x) + "," +
                     std::to_string(block_index.y) + "," + std::to_string(block_index.z) + "):";
  const Fiber* previous = nullptr;
  for (unsigned i = 0; i < launch.threads && text.size() < 2000; ++i) {
    const Fiber& fiber = fibers[i];
    if (fiber.state == State::done) continue;
    bool same = previous && fiber.waiting_in == previous->waiting_in &&
                same_site(fiber.site, previous->site);
    previous = &fiber;
    if (same) continue;
    char line[512];
    snprintf(line, sizeof line, " from thread %u on, waiting in %s at %s:%d", i, fiber.waiting_in,
             fiber.site.file, fiber.site.line);
    text += line;
    if (fiber.state == State::at_warp_op) {
      snprintf(line, sizeof line, " (mask %08x)", fiber.mask);
      text += line;
    }
    text += ";";
  }
  report(FATAL, "%s", text.c_str());
}

static void prepare_fibers() {
  if (fiber_pool.size() < launch.threads) fiber_pool.resize(launch.threads);
  fibers = fiber_pool.data();
  const unsigned* block = launch.block;
  for (unsigned i = 0; i < launch.threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
    fiber.rank = i;
    fiber.warp = i / WARP;
    fiber.lane = i % WARP;
  }
}

static void prepare_block(unsigned rank) {
  const unsigned* grid = launch.grid;
  block_rank = rank;
  block_index = {rank % grid[0], rank / grid[0] % grid[1], rank / grid[0] / grid[1]};
  alive = launch.threads;
  stacks_used = 0;
  ++blocks_run;
  std::fill(barriers, barriers + BARRIERS, Barrier{});
  std::fill(warps, warps + MAX_WARPS, WarpState{});
  for (unsigned i = 0; i < launch.threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.state = State::fresh;
    fiber.site = {nullptr, 0};
    fiber.predicate = 0;
    fiber.copies.clear();
    fiber.copy_group = 0;
    warps[fiber.warp].existing |= 1u << fiber.lane;
  }
  for (WarpState& warp : warps) warp.alive = warp.existing;
  checker_begin_block();
}

static void run_block(std::vector<unsigned>& order) {
  while (alive && !launch_failed()) {
    bool progressed = false;
    if (launch.order == 2) shuffle(order);
    for (unsigned i : order) {
      Fiber& fiber = fibers[i];
      if (fiber.state != State::fresh && fiber.state != State::runnable) continue;
      progressed = true;
      resume(fiber);
      if (launch_failed()) return;
    }
    if (!progressed) describe_deadlock();
  }
}

template <class T>
static std::vector<T> numbered(size_t count) {
  std::vector<T> items(count);
  std::iota(items.begin(), items.end(), T(0));
  if (launch.order == 1) std::reverse(items.begin(), items.end());
  return items;
}

// Finds where the library that holds the kernel lies in memory.
static int find_module(dl_phdr_info* info, size_t, void* argument) {
  auto* module = (Module*)argument;
  auto entry = (uintptr_t)launch.entry;
  bool inside = false;
  Module found = {info->dlpi_addr, 0, 0, 0};
  uintptr_t relocated_end = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    uintptr_t begin = info->dlpi_addr + header.p_vaddr, end = begin + header.p_memsz;
    if (header.p_type == PT_GNU_RELRO) relocated_end = end;
    if (header.p_type != PT_LOAD) continue;
    inside |= entry >= begin && entry < end;
    found.end = std::max(found.end, end);
    if (header.p_flags & PF_W) {
      found.writable = begin;
      found.writable_end = end;
    }
  }
  if (!inside) return 0;
  // What the loader has relocated is read-only from then on.
  found.writable = std::max(found.writable, relocated_end);
  *module = found;
  return 1;
}

struct LaunchRequest {
  void (*entry)(void**);
  void** args;
  unsigned grid[3];
  unsigned block[3];
  size_t dynamic_bytes;
  size_t dynamic_alignment;
  size_t dynamic_in_place;  // the kernel brings its own memory
  unsigned long long seed;
  double watchdog_seconds;
  int order;  // 0 forward, 1 reverse, 2 random
  int check;
  int preempt;
};

static bool refuse(const char* format, unsigned a, unsigned b, unsigned c) {
  report(FATAL, format, a, b, c);
  return true;
}

static bool bad_shape(const LaunchRequest& request) {
  const unsigned* g = request.grid;
  const unsigned* b = request.block;
  auto threads = (unsigned long long)b[0] * b[1] * b[2];
  if (threads == 0 || threads > MAX_THREADS || b[2] > 64)
    return refuse("invalid block size (%u, %u, %u)", b[0], b[1], b[2]);
  auto blocks = (unsigned long long)g[0] * g[1] * g[2];
  if (blocks == 0 || blocks >> 32 || g[0] >> 31 || g[1] > 65535 || g[2] > 65535)
    return refuse("invalid grid size (%u, %u, %u)", g[0], g[1], g[2]);
  if (request.dynamic_bytes > MAX_SHARED)
    return refuse("%u bytes of dynamic shared memory: at most %u", (unsigned)request.dynamic_bytes,
                  (unsigned)MAX_SHARED, 0);
  return false;
}

static void free_stacks() {
  for (char* stack : stacks) munmap(stack, STACK_BYTES);
  stacks.clear();
}

// 0: all went well; else a set of Outcome bits, with the text in host_messages().
EXPORT int host_launch(const LaunchRequest* request) {
  messages.clear();
  reports = 0;
  outcome = OK;
  stats = {};
  current = nullptr;
  if (bad_shape(*request)) return outcome;

  std::copy(request->grid, request->grid + 3, launch.grid);
  std::copy(request->block, request->block + 3, launch.block);
  launch.entry = request->entry;
  launch.args = request->args;
  launch.threads = request->block[0] * request->block[1] * request->block[2];
  launch.seed = request->seed;
  launch.order = request->order;
  launch.check = request->check;
  launch.preempt = request->preempt;
  random_state = request->seed * 0x9E3779B97F4A7C15ull + 88172645463325252ull;
  now = 1;
  prepare_fibers();

  void* mapping = nullptr;
  size_t mapped = 0;
  size_t bytes = request->dynamic_in_place ? 0 : request->dynamic_bytes;
  dynamic_shared = nullptr;
  if (bytes) {
    dynamic_shared = host_buffer_alloc(bytes, request->dynamic_alignment, 0, &mapping, &mapped);
    host_add_range(dynamic_shared, bytes, "dynamic shared memory", RANGE_SHARED);
  }
  Module module = {};
  dl_iterate_phdr(find_module, &module);
  size_t blocks = (size_t)launch.grid[0] * launch.grid[1] * launch.grid[2];
  checker_begin_launch(blocks, module);
  {
    SignalGuard signals(request->watchdog_seconds);
    auto block_order = numbered<unsigned>(blocks);
    auto thread_order = numbered<unsigned>(launch.threads);
    if (launch.order == 2) shuffle(block_order);
    for (unsigned rank : block_order) {
      prepare_block(rank);
      run_block(thread_order);
      if (launch_failed()) break;
    }
  }
  current = nullptr;
  checker_end_launch();
  if (bytes) {
    long where;
    if (host_buffer_damaged(mapping, mapped, dynamic_shared, bytes, &where))
      report(FAULT, "canary: write at byte offset %ld of dynamic shared memory (%zu bytes)", where,
             bytes);
    host_buffer_free(mapping, mapped);
  }
  // After a failure some stacks still hold frames, and under AddressSanitizer poisoned ones.
  if (launch_failed()) free_stacks();
  return outcome;
}

EXPORT const char* host_signature_text(const HostParameter* parameters, size_t count) {
  static std::string text;
  text.clear();
  for (size_t i = 0; i < count; ++i) {
    const HostParameter& p = parameters[i];
    char* name = abi::__cxa_demangle(p.type, nullptr, nullptr, nullptr);
    text += p.kind;
    text += "|" + std::to_string(p.size) + "|" + (name ? name : "?") + "\n";
    free(name);
  }
  return text.c_str();
}

EXPORT const char* host_messages() { return messages.c_str(); }
EXPORT void host_stats(unsigned long long* out) { memcpy(out, &stats, sizeof stats); }
