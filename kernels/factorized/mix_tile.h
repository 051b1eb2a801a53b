// Geometry of mix.cu: a block makes PIXELS x BLOCK outputs from CHUNK input channels at a time.
#pragma once
#include "padded.h"

constexpr int THREADS = 256, WARPS = 8;
constexpr int HALO = SPAN / 2;
constexpr int PIXELS = TILE_ROWS * TILE_COLUMNS;
constexpr int SEGMENTS = CHUNK / SEGMENT;
constexpr int PIXEL_BYTES = CHUNK * ELEMENT_BYTES + 16;
constexpr int FRAGMENTS = CHUNK / FRAGMENT;             // products along a chunk
constexpr int WIDE = BLOCK < 64 ? BLOCK : 64;           // features of a warp
constexpr int WARPS_WIDE = BLOCK / WIDE;                // its 32 pixels are two rows of 16
constexpr int BANDS = WIDE / 16;                        // 16 features each
static_assert(TILE_COLUMNS == 16 && PIXELS == 32 * (WARPS / WARPS_WIDE), "a warp has two rows of 16 pixels");

constexpr int HIGH = TILE_ROWS + 2 * HALO, BROAD = TILE_COLUMNS + 2 * HALO;  // pixels that are loaded
constexpr int X_BYTES = HIGH * X_PITCH * PIXEL_BYTES;
constexpr int W_BYTES = BLOCK * PIXEL_BYTES;
constexpr int D_BYTES = BY == TAPS ? 0 : SPAN * SPAN * CHUNK * 4;
constexpr int STAGE_BYTES = X_BYTES + W_BYTES + D_BYTES;
