// A CPU that behaves like one block of CUDA threads, in order to run kernels without a GPU.
//
// One fiber per thread. Warps run in random order, each as far ahead as it can, so that a missing
// barrier shows. Shared memory starts as 0x7f7f..., a huge number in every format. Each cp.async lands
// at random either at once or as late as its wait. A barrier reached by some threads only, or by
// threads at different lines, is an error. Not seen: bank conflicts, races inside one warp.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define EMULATED 1
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
#define DEVICE static inline
#define KERNEL(threads, blocks) extern "C" void
#define SHARED_MEMORY(name) char* name = emulator::shared_memory()
#define __restrict__ __restrict
struct dim3 { unsigned x, y, z; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { u32 x, y; };
struct alignas(16) uint4 { u32 x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
using std::max;
using std::min;
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

namespace emulator {

constexpr size_t STACK = 64 * 1024;
enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };
struct Copy { void* to; const void* from; int bytes; bool inside; int group; };
struct Fiber {
  void* stack_pointer; char* stack; State state; int line; dim3 index;
  std::vector<Copy> copies; int group;  // copies on their way, and how many groups were committed
};
struct Warp { const void* row[32]; u32 a[32][4], b[32][2], word[32]; };  // what its lanes exchange

static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static std::vector<char> memory;
static dim3 block_index, block_size, grid_size;
static int current;
static void* scheduler;
static std::string error;
static u32 state_of_chance;
static void (*body)(void**);
static void** body_arguments;

static u32 chance() { u32& r = state_of_chance; r ^= r << 13; r ^= r >> 17; return r ^= r << 5; }
static char* shared_memory() { return (char*)(((uintptr_t)memory.data() + 127) & ~(uintptr_t)127); }
static int lane() { return current % 32; }
static Warp& warp() { return warps[current / 32]; }
static Fiber& fiber() { return fibers[current]; }

// ---- switching between fibers: six registers and the stack pointer on x86-64 ---------------------
extern "C" void emulator_switch(void** save, void* to);
#if defined(__x86_64__)
asm(R"(.text
.globl emulator_switch
emulator_switch:
 pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
 movq %rsp, (%rdi)
 movq %rsi, %rsp
 popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
 ret
)");
#else
#error "the emulator switches fibers on x86-64 only"
#endif

static void stop(State state, int line = 0) {
  fiber().state = state;
  fiber().line = line;
  emulator_switch(&fiber().stack_pointer, scheduler);
}
static void entry() { body(body_arguments); stop(DONE); abort(); }
static void resume(int thread) { current = thread; emulator_switch(&scheduler, fibers[thread].stack_pointer); }
static void fail(const char* what) {
  char place[64];
  snprintf(place, sizeof place, " in block %u,%u,%u", block_index.x, block_index.y, block_index.z);
  if (error.empty()) error = what + std::string(place);
}

// ---- one block ---------------------------------------------------------------------------------
static void begin(int threads) {
  for (int i = 0; i < threads; i++) {
    Fiber& f = fibers[i];
    f.state = READY;
    f.index = {unsigned(i), 0, 0};
    f.copies.clear();
    f.group = 0;
    void** top = (void**)(((uintptr_t)f.stack + STACK) & ~(uintptr_t)15);
    *--top = nullptr;
    *--top = (void*)entry;
    for (int k = 0; k < 6; k++) *--top = nullptr;
    f.stack_pointer = top;
  }
  memset(memory.data(), 0x7f, memory.size());
}

// Run one warp until all its lanes wait for the block or are done; whether anything moved.
static bool run_warp(int first, int last) {
  bool moved = false;
  for (;;) {
    bool ran = false;
    for (int i = first; i < last; i++)
      if (fibers[i].state == READY) { resume(i); ran = moved = true; }
    int alive = 0, waiting = 0;
    for (int i = first; i < last; i++) { alive += fibers[i].state != DONE; waiting += fibers[i].state == AT_WARP_BARRIER; }
    if (waiting && waiting == alive) { for (int i = first; i < last; i++) if (fibers[i].state == AT_WARP_BARRIER) fibers[i].state = READY; }
    else if (!ran) return moved;
  }
}

static void run_block(int threads) {
  begin(threads);
  int count = (threads + 31) / 32;
  std::vector<int> order(count);
  for (int i = 0; i < count; i++) order[i] = i;
  for (;;) {
    for (int i = count - 1; i > 0; i--) std::swap(order[i], order[chance() % (i + 1)]);
    bool moved = false;
    for (int w : order) moved |= run_warp(w * 32, std::min(w * 32 + 32, threads));
    int done = 0, waiting = 0, line = -1;
    bool same = true;
    for (int i = 0; i < threads; i++) {
      done += fibers[i].state == DONE;
      if (fibers[i].state != AT_BLOCK_BARRIER) continue;
      waiting++;
      if (line < 0) line = fibers[i].line;
      same &= line == fibers[i].line;
    }
    if (done == threads) return;
    if (waiting == threads && same) { for (int i = 0; i < threads; i++) fibers[i].state = READY; continue; }
    if (waiting && waiting + done == threads) return fail("divergent __syncthreads");
    if (!moved) return fail("deadlock");
  }
}

// ---- the kernel as a function of addresses of its arguments, as cuLaunchKernel takes them ----------
template <class... A, size_t... I>
static void apply(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*(std::remove_reference_t<A>*)arguments[I]...);
}
template <class... A> static void apply(void (*kernel)(A...), void** arguments) {
  apply(kernel, arguments, std::index_sequence_for<A...>());
}

static const char* launch(const unsigned* grid, int threads, size_t shared, u32 seed, void** arguments) {
  error.clear();
  state_of_chance = seed * 2654435761u + 1;
  grid_size = {grid[0], grid[1], grid[2]};
  block_size = {unsigned(threads), 1, 1};
  body_arguments = arguments;
  memory.resize(shared + 256);
  warps.resize((threads + 31) / 32);
  while ((int)fibers.size() < threads) { Fiber f{}; f.stack = (char*)malloc(STACK); fibers.push_back(f); }
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        block_index = {x, y, z};
        run_block(threads);
        for (size_t i = shared + 128; i < memory.size(); i++)
          if (memory[i] != 0x7f) fail("written beyond the shared memory asked for");
        if (!error.empty()) return error.c_str();
      }
  return nullptr;
}
}  // namespace emulator

#define threadIdx (emulator::fiber().index)
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size
#define __syncthreads() emulator::stop(emulator::AT_BLOCK_BARRIER, __LINE__)
static inline void __syncwarp(unsigned = ~0u) { emulator::stop(emulator::AT_WARP_BARRIER); }

// ---- numbers -------------------------------------------------------------------------------------
DEVICE float as_float(u32 x) { float f; memcpy(&f, &x, 4); return f; }
DEVICE u32 as_word(float f) { u32 x; memcpy(&x, &f, 4); return x; }
DEVICE u32 round_tf32(float x) { return (as_word(x) + 0x1000u) & 0xffffe000u; }
DEVICE u32 half_of_bf16(float f) { u32 x = as_word(f); return f != f ? 0x7fff : (x + 0x7fff + ((x >> 16) & 1)) >> 16; }
DEVICE u32 pack_bf16(float low, float high) { return half_of_bf16(low) | half_of_bf16(high) << 16; }
DEVICE float fp16_to_float(u16 x) { _Float16 h; memcpy(&h, &x, 2); return (float)h; }
DEVICE u32 half_of_fp16(float f) { _Float16 h = (_Float16)f; u16 x; memcpy(&x, &h, 2); return x; }
DEVICE u32 pack_fp16(float low, float high) { return half_of_fp16(low) | half_of_fp16(high) << 16; }

// ---- what the lanes of a warp do together ----------------------------------------------------------
DEVICE float exchanged(float value, int from) {
  emulator::warp().word[emulator::lane()] = as_word(value);
  __syncwarp();
  float result = as_float(emulator::warp().word[from & 31]);
  __syncwarp();
  return result;
}
static inline float __shfl_xor_sync(unsigned, float v, int mask) { return exchanged(v, emulator::lane() ^ mask); }
static inline float __shfl_sync(unsigned, float v, int from) { return exchanged(v, from); }
static inline float __shfl_down_sync(unsigned, float v, int by) { int l = emulator::lane(); return exchanged(v, l + by < 32 ? l + by : l); }

DEVICE void load_matrices(u32* r, const void* row) {
  auto& w = emulator::warp();
  int l = emulator::lane();
  if ((uintptr_t)row % 16) emulator::fail("ldmatrix misaligned");
  w.row[l] = row;
  __syncwarp();
  for (int i = 0; i < 4; i++) memcpy(&r[i], (const char*)w.row[8 * i + l / 4] + 4 * (l % 4), 4);
  __syncwarp();
}
DEVICE void load_matrices_transposed(u32* r, const void* row) {
  auto& w = emulator::warp();
  int l = emulator::lane();
  if ((uintptr_t)row % 16) emulator::fail("ldmatrix misaligned");
  w.row[l] = row;
  __syncwarp();
  for (int i = 0; i < 4; i++) {
    u16 pair[2];
    for (int e = 0; e < 2; e++) memcpy(&pair[e], (const char*)w.row[8 * i + 2 * (l % 4) + e] + 2 * (l / 4), 2);
    memcpy(&r[i], pair, 4);
  }
  __syncwarp();
}

// product(a word, b word): what one word of each operand adds to the sum.
template <int words, class Product> static inline void multiply_fragments(float* c, const u32* a, const u32* b, Product product) {
  auto& w = emulator::warp();
  int l = emulator::lane();
  memcpy(w.a[l], a, 16);
  memcpy(w.b[l], b, 8);
  __syncwarp();
  for (int row = 0; row < 2; row++)
    for (int column = 0; column < 2; column++) {
      float sum = 0;
      for (int k = 0; k < words; k++) sum += product(w.a[l / 4 * 4 + k % 4][row + 2 * (k / 4)], w.b[(2 * (l % 4) + column) * 4 + k % 4][k / 4]);
      c[2 * row + column] += sum;
    }
  __syncwarp();
}
DEVICE void mma_bf16(float* c, const u32* a, const u32* b) {
  multiply_fragments<8>(c, a, b, [](u32 x, u32 y) { return as_float(x << 16) * as_float(y << 16) + as_float(x & 0xffff0000u) * as_float(y & 0xffff0000u); });
}
DEVICE void mma_fp16(float* c, const u32* a, const u32* b) {
  multiply_fragments<8>(c, a, b, [](u32 x, u32 y) { return fp16_to_float(x & 0xffff) * fp16_to_float(y & 0xffff) + fp16_to_float(x >> 16) * fp16_to_float(y >> 16); });
}
DEVICE void mma_tf32(float* c, const u32* a, const u32* b) {
  multiply_fragments<8>(c, a, b, [](u32 x, u32 y) { return as_float(x & 0xffffe000u) * as_float(y & 0xffffe000u); });
}

// ---- cp.async --------------------------------------------------------------------------------------
DEVICE void land(const emulator::Copy& copy) { if (copy.inside) memcpy(copy.to, copy.from, copy.bytes); else memset(copy.to, 0, copy.bytes); }
DEVICE void copy_async(void* to, const void* from, int bytes, bool inside) {
  if ((uintptr_t)to % bytes || (uintptr_t)from % bytes) emulator::fail("cp.async misaligned");
  emulator::Copy copy{to, from, bytes, inside, emulator::fiber().group};
  if (emulator::chance() & 4) land(copy); else emulator::fiber().copies.push_back(copy);
}
DEVICE void copy_async_16(void* to, const void* from, bool inside) { copy_async(to, from, 16, inside); }
DEVICE void copy_async_8(void* to, const void* from, bool inside) { copy_async(to, from, 8, inside); }
DEVICE void copy_async_4(void* to, const void* from, bool inside) { copy_async(to, from, 4, inside); }
DEVICE void copy_commit() { emulator::fiber().group++; }
template <int pending> DEVICE void copy_wait() {
  auto& f = emulator::fiber();
  std::vector<emulator::Copy> later;
  for (auto& copy : f.copies) if (copy.group < f.group - pending) land(copy); else later.push_back(copy);
  f.copies.swap(later);
}
