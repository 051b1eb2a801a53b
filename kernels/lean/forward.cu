// Lean convolution in one pass over a channels-last map:
//
//   y[p, f] = sum_c centre[f, c] x'[p, c] + sum_t sum_{c in group(f)} outer[t, f, c] x'[p + t, c]
//   x' = positive part of (scale x + shift), zero outside;  then gate or bias and residual (finish.h)
//
// A block keeps OUTPUTS output channels and walks over tiles of 2 DOWN rows of 16 pixels; the channels of
// x arrive in chunks of CHUNK, STAGES - 1 of them ahead of the arithmetic, across tiles. Warp
// (down, across) holds 32 pixels x SLICE outputs in registers. The 1 x 1 part runs on the tensor cores.
// The taps, by TAPS: GROUPED, tensor cores on the fragments that a group connects with the outputs;
// STENCIL, depthwise in fp32 arithmetic from the chunk that holds the warp's own channels; DIAGONAL, the
// same on tensor cores by diagonal matrices.
//
// Which output channel a column of the tensor core is can be chosen freely: columns 2 q, 2 q + 1 of
// tile j are channels 4 V (j / (V/2)) + V q + 2 (j % (V/2)) + {0, 1}, V = VECTOR. Lane l thus owns V
// neighbouring channels (q = l % 4) of each PART, and loads and stores them as one vector.
#include "tile.h"

#define GROUPED 0
#define STENCIL 1
#define DIAGONAL 2

constexpr int THREADS = 32 * DOWN * ACROSS;
constexpr int OUTPUTS = SLICE * ACROSS;
typedef Tile<2 * DOWN, 16, 1, CHUNK / SEGMENT> Input;
constexpr int VECTOR = SLICE / 4 < SEGMENT ? SLICE / 4 : SEGMENT;
constexpr int PARTS = SLICE / (4 * VECTOR);
constexpr int TILES = SLICE / 8;
constexpr int FRAGMENTS = CHUNK / FRAGMENT;                 // of a chunk
constexpr int SLICE_BYTES = SLICE * CHUNK * ELEMENT_BYTES;  // weights of a warp and a chunk
constexpr int WEIGHT_BYTES = ACROSS * SLICE_BYTES;          // weights of a block and a chunk
constexpr int STENCIL_BYTES = TAPS == STENCIL ? 9 * OUTPUTS * 4 : 0;
typedef float Sums[2][TILES][4];

// The lane's sum for pixel p = 0..3 of its group, value v of a part.
DEVICE float& sum_at(Sums& sums, int p, int part, int v) {
  return sums[p / 2][part * (VECTOR / 2) + v / 2][p % 2 * 2 + v % 2];
}

#include "pointwise.h"
#if TAPS == STENCIL
#include "stencil.h"
#elif TAPS == DIAGONAL
#include "diagonal.h"
#else
#include "grouped.h"
#endif
#include "finish.h"

enum Flags { WHOLE_X = 1, WHOLE_Y = 2, RELU = 4, RESIDENT = 8 };

KERNEL(THREADS, BLOCKS) lean_forward(
    const Element* __restrict__ x, const char* __restrict__ centre, const void* __restrict__ taps,
    const float* __restrict__ affine, const float* __restrict__ bias, const Element* __restrict__ residual,
    const Element* __restrict__ gate, Element* __restrict__ y, int images, int height, int width,
    int channels, int features, int x_row, int x_pixel, int y_row, int y_pixel, int flags,
    int positions, int group_in, int group_out, int band) {
  SHARED_MEMORY(memory);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int down = warp % DOWN, across = warp / DOWN;
  const Map input = {height, width, channels, x_row, x_pixel, (flags & WHOLE_X) != 0};
  const int chunks = (channels + CHUNK - 1) / CHUNK;
  const int columns = (features + OUTPUTS - 1) / OUTPUTS;  // blocks that share a tile run side by side
  const int column = blockIdx.x % columns, worker = blockIdx.x / columns, workers = gridDim.x / columns;
  const int tiles_across = (width + 15) / 16, tiles_down = (height + Input::ROWS - 1) / Input::ROWS;
  const int tiles = images * tiles_down * tiles_across;
  const int total = worker < tiles ? ((tiles - 1 - worker) / workers + 1) * chunks : 0;
  const long long image_size = (long long)height * width * channels;
  const int slice = column * ACROSS + across;  // the warp's outputs: channels from slice SLICE on
  centre += (long long)column * chunks * WEIGHT_BYTES;
  float* const stencil = (float*)(memory + STAGES * Input::BYTES);  // (9, OUTPUTS), if TAPS is STENCIL
  char* const weights = memory + STAGES * Input::BYTES + STENCIL_BYTES;
  const bool resident = flags & RESIDENT;

  auto top_of = [&](int tile) { return tile / tiles_across % tiles_down * Input::ROWS; };
  auto left_of = [&](int tile) { return tile % tiles_across * 16; };
  auto image_of = [&](int tile) { return tile / tiles_across / tiles_down; };
  auto copy_weights = [&](int slot, int chunk) {
#pragma unroll 1
    for (int i = thread; i < WEIGHT_BYTES / 16; i += THREADS)
      copy_async_16(weights + slot * WEIGHT_BYTES + i * 16, centre + (long long)chunk * WEIGHT_BYTES + i * 16, true);
  };
  auto start = [&](int item) {
    const int tile = worker + item / chunks * workers, chunk = item % chunks, stage = item % STAGES;
    load_tile<Input, THREADS>(memory + stage * Input::BYTES, x + image_of(tile) * image_size, input, top_of(tile), left_of(tile), chunk * CHUNK, thread);
    if (!resident) copy_weights(stage, chunk);
  };

#if TAPS == DIAGONAL
  Diagonal diagonal;
  prepare_diagonal(diagonal, (const uint4*)taps, slice, slice * SLICE % CHUNK, down, lane);
#elif TAPS == STENCIL
  for (int i = thread; i < STENCIL_BYTES / 16; i += THREADS)
    copy_async_16(stencil + i * 4, (const char*)taps + column * STENCIL_BYTES + i * 16, true);
#endif
  if (resident) for (int chunk = 0; chunk < chunks; chunk++) copy_weights(chunk, chunk);
  for (int item = 0; item < STAGES - 1; item++) {
    if (item < total) start(item);
    copy_commit();
  }
  int item = 0;
  for (int tile = worker; tile < tiles; tile += workers) {
    const int top = top_of(tile), left = left_of(tile);
    Sums sums;
    for (int m = 0; m < 2; m++) for (int j = 0; j < TILES; j++) for (int k = 0; k < 4; k++) sums[m][j][k] = 0.f;
    for (int chunk = 0; chunk < chunks; chunk++, item++) {
      char* const stage = memory + item % STAGES * Input::BYTES;
      copy_wait<STAGES - 2>();
      if (affine && !gate) normalise_tile<Input, THREADS>(stage, input, top, left, chunk * CHUNK, affine, chunks * CHUNK, flags & RELU, thread);
      __syncthreads();  // the stage is filled, and the one before it is no longer read
      if (item + STAGES - 1 < total) start(item + STAGES - 1);
      copy_commit();
      const char* const mine = weights + (resident ? chunk : item % STAGES) * WEIGHT_BYTES + across * SLICE_BYTES;
      add_pointwise(sums, stage, mine, down, lane);
#if TAPS == DIAGONAL
      if (chunk == slice * SLICE / CHUNK) add_diagonal(sums, stage, diagonal, positions);
#elif TAPS == STENCIL
      if (chunk == slice * SLICE / CHUNK) add_stencil(sums, stage, slice * SLICE % CHUNK, stencil + across * SLICE, positions, down, lane);
#else
      add_grouped(sums, stage, (const uint4*)taps, slice, chunk, positions, group_in, group_out, band, down, lane);
#endif
    }
    Output output = {y, residual, gate, bias, affine, features, columns * OUTPUTS, (flags & RELU) != 0, (flags & WHOLE_Y) != 0};
    finish(sums, output, image_of(tile), top + 2 * down, left, slice * SLICE, height, width, y_row, y_pixel, lane);
  }
}
