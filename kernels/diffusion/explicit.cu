// One explicit reaction-diffusion step: out = y + step (reaction - K'K y), depthwise, zero padding.
//
// K y stays in shared memory: y comes with a halo of 2 HALF pixels, K y is made on the tile and HALF
// pixels around it, zero outside the map, then K' (the taps mirrored) runs over that. One pass: y and
// reaction are read once, the reaction straight to registers while y is on its way; out is written once.
//
// The backward pass is the same kernel on dout without reaction, since K'K is symmetric; it also writes
// `scaled` = step y, the gradient of the reaction.
#include "patch.h"

constexpr int Z_ROWS = TILE + 2 * HALF;                                 // of K y
constexpr int Z_COLUMNS = (Z_ROWS + COLUMNS - 1) / COLUMNS * COLUMNS;   // whole patches; the excess is not used
constexpr int Z_PITCH = pitch_of(Z_COLUMNS);
constexpr int Y_ROWS = TILE + 4 * HALF;
constexpr int Y_PITCH = pitch_of(Z_COLUMNS + 2 * HALF);

KERNEL(THREADS, BLOCKS)
diffuse(const Element* __restrict__ y, const Element* __restrict__ reaction, const float* __restrict__ taps,
        Element* __restrict__ out, Element* __restrict__ scaled, float step, int height, int width, int channels) {
  SHARED_MEMORY(memory);
  float* z_tile = (float*)memory;                                    // [Z_ROWS][Z_PITCH][16]
  float* taps_tile = z_tile + Z_ROWS * Z_PITCH * CHANNELS;           // [TAPS][16]
  Element* y_tile = (Element*)(taps_tile + TAPS * CHANNELS);         // [Y_ROWS][Y_PITCH][16]

  // Block index: channels fastest, so that blocks which share lines of memory run together.
  Map map{height, width, channels};
  int groups = (channels + CHANNELS - 1) / CHANNELS, across = (width + TILE - 1) / TILE, down = (height + TILE - 1) / TILE;
  int first = blockIdx.x % groups * CHANNELS, tile = blockIdx.x / groups;
  int left = tile % across * TILE, top = tile / across % down * TILE;
  u64 image = (u64)(tile / across / down) * offset(map, height, 0);
  y += image, out += image;

  load_tile<Y_ROWS, Y_ROWS, Y_PITCH>(y_tile, y, map, top - 2 * HALF, left - 2 * HALF, first, false);
  copy_commit();

  int pair = threadIdx.x % LANES * 2, patch = threadIdx.x / LANES;
  load_taps(taps_tile, taps, first, channels);
  copy_wait<0>();
  __syncthreads();  // y and the taps are here

  // Warps stay whole: beyond the last patch their lanes do that one again.
  constexpr int Z_ACROSS = Z_COLUMNS / COLUMNS, Z_PATCHES = Z_ROWS / ROWS * Z_ACROSS;
  for (int some = threadIdx.x / 32 * 4; some < Z_PATCHES; some += THREADS / LANES) {
    int item = min(some + patch % 4, Z_PATCHES - 1);
    int z_row = item / Z_ACROSS * ROWS, z_column = item % Z_ACROSS * COLUMNS;
    float z[ROWS][COLUMNS][2] = {};
    correlate<Y_PITCH, false>(z, y_tile + (z_row * Y_PITCH + slot(z_column)) * CHANNELS + pair, taps_tile + pair);
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int x = 0; x < COLUMNS; x++) {
        bool inside = holds(map, top - HALF + z_row + i, left - HALF + z_column + x);
        *(float2*)(z_tile + ((z_row + i) * Z_PITCH + slot(z_column) + x) * CHANNELS + pair) =
            inside ? make_float2(z[i][x][0], z[i][x][1]) : make_float2(0.f, 0.f);
      }
  }
  // The patch of this thread in the tile of outputs; its part of the reaction sets out now.
  int column = patch % (TILE / COLUMNS) * COLUMNS, row = patch / (TILE / COLUMNS) * ROWS;
  int place = offset(map, top + row, left + column) + first + pair, left_channels = channels - first - pair;
  Pair reacted[ROWS][COLUMNS];
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int x = 0; x < COLUMNS; x++) {
      bool inside = reaction && holds(map, top + row + i, left + column + x);
      reacted[i][x] = fetch(reaction + image + place + offset(map, i, x), inside ? left_channels : 0);
    }
  __syncthreads();  // K y is here

  float sum[ROWS][COLUMNS][2] = {};
  correlate<Z_PITCH, true>(sum, z_tile + (row * Z_PITCH + slot(column)) * CHANNELS + pair, taps_tile + pair);
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int x = 0; x < COLUMNS; x++) {
      if (!holds(map, top + row + i, left + column + x)) continue;
      float own[2], source[2];
      read_pair(own, y_tile + ((row + 2 * HALF + i) * Y_PITCH + slot(column) + slot(2 * HALF + x)) * CHANNELS + pair);
      unpack(source, reacted[i][x]);
      int to = place + offset(map, i, x);
      put(out + to, own[0] + step * (source[0] - sum[i][x][0]), own[1] + step * (source[1] - sum[i][x][1]), left_channels);
      if (scaled) put(scaled + image + to, step * own[0], step * own[1], left_channels);
    }
}
