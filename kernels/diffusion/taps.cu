// The gradient of the taps of both steps, from y, the gradient g and the taps:
//
//   dK[t] = -step  sum over pixels p of  (K g)[p] y[p + t] + (K y)[p] g[p + t],
//
// since the loss changes by -step <g, d(K'K) y>. Zero padding: y, g are the step's input and the gradient
// of its output; K y and K g count on the map only. Periodic: y is the output of the implicit step, g the
// gradient of its input, (I + step K'K)^-1 dout.
//
// A block keeps its 16 channels and walks over tiles of all images, two stages of copies deep; K y and K g
// of a patch never leave the registers. It writes one partial sum; the caller adds those up in a fixed order.
#include "patch.h"

constexpr int SIDE_OF_TILE = TILE + 2 * HALF;
constexpr int PITCH = pitch_of(SIDE_OF_TILE);
constexpr int TILE_ELEMENTS = SIDE_OF_TILE * PITCH * CHANNELS;
constexpr int WARPS = THREADS / 32;

// gradient[t] += sum over the patch of factor[p] tile[p + t].
DEVICE void spread(float (*gradient)[2], float (*factor)[COLUMNS][2], const Element* corner) {
#pragma unroll
  for (int i = 0; i < SIDE + ROWS - 1; i++) {
    float line[WINDOW][2];
#pragma unroll
    for (int j = 0; j < WINDOW; j++) read_pair(line[j], corner + (i * PITCH + slot(j)) * CHANNELS);
    __syncwarp();  // keeps the compiler from loading all lines ahead, more than the registers hold
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
      if (i - row < 0 || i - row >= SIDE) continue;
#pragma unroll
      for (int t = 0; t < SIDE; t++)
#pragma unroll
        for (int x = 0; x < COLUMNS; x++)
#pragma unroll
          for (int c = 0; c < 2; c++) gradient[(i - row) * SIDE + t][c] += factor[row][x][c] * line[x + t][c];
    }
  }
}

KERNEL(THREADS, BLOCKS)
tap_gradients(const Element* __restrict__ y, const Element* __restrict__ g, const float* __restrict__ taps,
              float* __restrict__ partial, float step, int images, int height, int width, int channels, int periodic) {
  SHARED_MEMORY(memory);
  Element* stages = (Element*)memory;                               // [2][y, g][SIDE_OF_TILE][PITCH][16]
  float* taps_tile = (float*)(stages + 4 * TILE_ELEMENTS);          // [TAPS][16]
  Map map{height, width, channels};
  int across = (width + TILE - 1) / TILE, down = (height + TILE - 1) / TILE, tiles = across * down * images;
  int first = blockIdx.x * CHANNELS;
  int pair = threadIdx.x % LANES * 2, patch = threadIdx.x / LANES;
  int column = patch % (TILE / COLUMNS) * COLUMNS, row = patch / (TILE / COLUMNS) * ROWS;

  auto load = [&](int tile, Element* stage) {
    if (tile < tiles) {
      int left = tile % across * TILE - HALF, top = tile / across % down * TILE - HALF;
      u64 image = (u64)(tile / across / down) * offset(map, height, 0);
      load_tile<SIDE_OF_TILE, SIDE_OF_TILE, PITCH>(stage, y + image, map, top, left, first, periodic);
      load_tile<SIDE_OF_TILE, SIDE_OF_TILE, PITCH>(stage + TILE_ELEMENTS, g + image, map, top, left, first, periodic);
    }
    copy_commit();
  };

  float gradient[TAPS][2] = {};
  load_taps(taps_tile, taps, first, channels);
  load(blockIdx.y, stages);
  int stage = 0;
  for (int tile = blockIdx.y; tile < tiles; tile += gridDim.y, stage ^= 1) {
    load(tile + gridDim.y, stages + (stage ^ 1) * 2 * TILE_ELEMENTS);
    copy_wait<1>();
    __syncthreads();  // this stage is here
    const Element* y_corner = stages + stage * 2 * TILE_ELEMENTS + (row * PITCH + slot(column)) * CHANNELS + pair;
    const Element* g_corner = y_corner + TILE_ELEMENTS;
    int top = tile / across % down * TILE, left = tile % across * TILE;
#pragma unroll 1
    for (int turn = 0; turn < 2; turn++) {  // one copy of the long body
      float factor[ROWS][COLUMNS][2] = {};
      correlate<PITCH, false>(factor, turn ? y_corner : g_corner, taps_tile + pair);
#pragma unroll
      for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int x = 0; x < COLUMNS; x++)
          if (!holds(map, top + row + i, left + column + x)) factor[i][x][0] = factor[i][x][1] = 0.f;
      spread(gradient, factor, turn ? g_corner : y_corner);
    }
    __syncthreads();  // before this stage is filled again
  }

  // Four patches of a warp, then the warps in order.
  float* sums = (float*)memory;  // [WARPS][TAPS][16]
#pragma unroll
  for (int t = 0; t < TAPS; t++)
#pragma unroll
    for (int c = 0; c < 2; c++) {
      float sum = gradient[t][c];
      sum += __shfl_xor_sync(0xffffffffu, sum, 8);
      sum += __shfl_xor_sync(0xffffffffu, sum, 16);
      if (threadIdx.x % 32 < LANES) sums[(threadIdx.x / 32 * TAPS + t) * CHANNELS + pair + c] = sum;
    }
  __syncthreads();  // the sums of all warps are here
  for (int i = threadIdx.x; i < TAPS * CHANNELS; i += THREADS) {
    int channel = i / TAPS, t = i % TAPS;
    float sum = 0.f;
    for (int warp = 0; warp < WARPS; warp++) sum += sums[(warp * TAPS + t) * CHANNELS + channel];
    if (first + channel < channels) partial[((u64)blockIdx.y * channels + first + channel) * TAPS + t] = -step * sum;
  }
}
