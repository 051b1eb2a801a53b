// The depthwise part: sums over SPAN x SPAN taps from the tile of X, for a pair of channels and two rows of
// STRIP pixels a thread. Neighbouring lanes hold neighbouring pairs; further strips of a warp lie two
// rows apart, which X_PITCH puts into other banks.
#pragma once
#include "mix_tile.h"

constexpr int PAIRS = CHUNK / 2;
constexpr int TURNS = PAIRS * (TILE_ROWS / 2) * (TILE_COLUMNS / STRIP) / THREADS;  // strips of a thread
static_assert(TURNS * THREADS * STRIP * 4 == PIXELS * CHUNK, "strips and pairs make the tile");

struct Strip {
  int row, column, channel;  // of the first of its outputs
  float sum[2][STRIP][2];
};

// d: taps by rows, CHUNK numbers each.
DEVICE Strip stencil(const char* x, const float* d, int turn) {
  int number = threadIdx.x / PAIRS + turn * (THREADS / PAIRS);
  Strip strip = {number % (TILE_ROWS / 2) * 2, number / (TILE_ROWS / 2) * STRIP, int(threadIdx.x) % PAIRS * 2, {}};
  const char* corner = x + (strip.row * X_PITCH + strip.column) * PIXEL_BYTES + strip.channel * ELEMENT_BYTES;
  d += strip.channel;
#pragma unroll
  for (int i = 0; i < SPAN + 1; i++) {
    float line[STRIP + SPAN - 1][2];
#pragma unroll
    for (int c = 0; c < STRIP + SPAN - 1; c++) load_pair(line[c], (const Element*)(corner + (i * X_PITCH + c) * PIXEL_BYTES));
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int t = 0; t < SPAN; t++) {
        if (i - r < 0 || i - r >= SPAN) continue;
        float2 weight = *(const float2*)(d + ((i - r) * SPAN + t) * CHUNK);
#pragma unroll
        for (int c = 0; c < STRIP; c++) {
          strip.sum[r][c][0] += weight.x * line[c + t][0];
          strip.sum[r][c][1] += weight.y * line[c + t][1];
        }
      }
  }
  return strip;
}

// To shared memory as the left operand of the projection.
DEVICE void keep(const Strip& strip, char* s) {
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int c = 0; c < STRIP; c++)
      store_pair((Element*)(s + ((strip.row + r) * S_PITCH + strip.column + c) * PIXEL_BYTES) + strip.channel, strip.sum[r][c][0], strip.sum[r][c][1]);
}

// To the result, where the depthwise part is all.
DEVICE void finish(const Strip& strip, Element* y, const Element* residual, const Map& map, int top, int left, int channel0) {
  int channel = channel0 + strip.channel;
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int c = 0; c < STRIP; c++) {
      int h = top + strip.row + r, w = left + strip.column + c;
      if (h >= map.height || w >= map.width || channel >= map.channels) continue;
      long long at = (long long)h * map.row + (long long)w * map.pixel + channel;
      float v[2] = {strip.sum[r][c][0], strip.sum[r][c][1]};
      int count = map.channels - channel;
      if (map.whole) {
        float add[2] = {0.f, 0.f};
        if (residual) load_pair(add, residual + at);
        store_pair(y + at, v[0] + add[0], v[1] + add[1]);
      } else {
        for (int e = 0; e < 2 && e < count; e++) y[at + e] = to_element(v[e] + (residual ? to_float(residual[at + e]) : 0.f));
      }
    }
}
