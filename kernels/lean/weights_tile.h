// Tiles of X and dY in shared memory: pixels by rows, the channels of a pixel one after the other.
//
//   X   pixel (r, c), 0 <= r < TILE_ROWS, 0 <= c < TILE_COLUMNS          at (r X_PITCH + c) PIXEL_BYTES
//   dY  the same with a ring of RING pixels, from (-RING, -RING)  at (r Y_PITCH + c) PIXEL_BYTES
//
// PIXEL_BYTES is a row of BLOCK channels and 16 bytes, or 32 where elements have 32 bits and a fragment
// is loaded as 4 pixels x 8 words instead of by ldmatrix: these, too, then fall into different banks.
#pragma once
#include "padded.h"

constexpr int RING = STENCIL > 1 ? 1 : 0;
constexpr int THREADS = (TILE_ROWS / 2) * (TILE_COLUMNS / STRIP) * (BLOCK / 2);
constexpr int WARPS = THREADS / 32;
constexpr int SEGMENTS = BLOCK / SEGMENT;  // of a pixel
constexpr int PIXEL_BYTES = BLOCK * ELEMENT_BYTES + 8 * ELEMENT_BYTES;
constexpr int X_BYTES = TILE_ROWS * X_PITCH * PIXEL_BYTES;
constexpr int Y_BYTES = (TILE_ROWS + 2 * RING) * Y_PITCH * PIXEL_BYTES;
constexpr int STAGE_BYTES = X_BYTES + Y_BYTES;

// Where a tile lies: image and first pixel.
struct Corner { int image, row, column; };

DEVICE Corner corner_of(int tile, int tiles_high, int tiles_wide) {
  int across = tile % tiles_wide, rest = tile / tiles_wide;
  return {rest / tiles_high, rest % tiles_high * TILE_ROWS, across * TILE_COLUMNS};
}

// What the prologue makes of x, or how that moves with shift or scale.
enum Prologue { NONE, VALUE, SLOPE_IN_SHIFT, SLOPE_IN_SCALE };

DEVICE float prologue_of(float x, float scale, float shift, int prologue, bool relu) {
  float value = scale * x + shift;
  bool on = !relu || !(value <= 0.f);  // NaN passes
  return on ? (prologue == VALUE ? value : prologue == SLOPE_IN_SHIFT ? 1.f : x) : 0.f;
}

// In place, by the threads that copied the segments and before the others see them; pixels outside stay 0.
DEVICE void apply_prologue(char* tile, const Map& map, Corner corner, const float* scale, const float* shift, int prologue, bool relu) {
  for_own_segments<TILE_ROWS, TILE_COLUMNS, SEGMENTS, THREADS>([&](int r, int c, int segment) {
    if (corner.row + r >= map.height || corner.column + c >= map.width) return;
    Element* at = (Element*)(tile + (r * X_PITCH + c) * PIXEL_BYTES) + segment * SEGMENT;
    float values[SEGMENT];
    load_vector<SEGMENT>(values, at);
    for (int e = 0; e < SEGMENT; e += 4) {
      float4 a = *(const float4*)(scale + segment * SEGMENT + e), b = *(const float4*)(shift + segment * SEGMENT + e);
      values[e] = prologue_of(values[e], a.x, b.x, prologue, relu);
      values[e + 1] = prologue_of(values[e + 1], a.y, b.y, prologue, relu);
      values[e + 2] = prologue_of(values[e + 2], a.z, b.z, prologue, relu);
      values[e + 3] = prologue_of(values[e + 3], a.w, b.w, prologue, relu);
    }
    store_vector<SEGMENT>(at, values);
  });
}
