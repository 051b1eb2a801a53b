// Sums over a sliding cuboid of the map, `depth` channels x SIDE x SIDE pixels, for one tile of places.
//
// The channels are walked: with t_i the sum of channel i over the SIDE x SIDE pixels under a place,
//
//   s_j = s_(j-1) + t_(j+enter) - t_(j+leave-1),
//
// in fp32. Sums of a map over its channels have enter = depth - 1, leave = 0; the transposed ones, which take
// a gradient of sums back to the map, have enter = 0, leave = 1 - depth and see zeros before the first
// channel. The work for a sum does not grow with the depth.
//
// The map comes in chunks of ROW bytes of channels per pixel, by copies of COPY bytes. In shared memory row r
// holds its 16-byte segments in the order that `place` gives: eight neighbouring rows of one segment fall
// into eight different groups of four banks, for ldmatrix as for one 16-byte access per thread.
#pragma once
#include "copies.h"

constexpr int SEGMENTS = ROW / 16;
constexpr int SEGMENT = 16 / ELEMENT_BYTES;
constexpr int CHUNK = ROW / ELEMENT_BYTES;  // channels
constexpr int SUM_H = (TILE_H - 1) * STRIDE + TAPS, SUM_W = (TILE_W - 1) * STRIDE + TAPS;
constexpr int SUM_PIXELS = SUM_H * SUM_W, SUM_BYTES = SUM_PIXELS * ROW;
constexpr int RAW_H = SUM_H + SIDE - 1, RAW_W = SUM_W + SIDE - 1;
constexpr int RAW_PIXELS = RAW_H * RAW_W, RAW_BYTES = RAW_PIXELS * ROW;

constexpr int ROWS_AT_ONCE = SIDE <= 2 ? SIDE : 1;  // of a window: more would take too many registers

DEVICE int place(int row, int segment) {
  constexpr int rows = 128 / ROW;  // that share the 128 bytes of all banks
  return row * ROW + ((segment ^ (row / rows % SEGMENTS)) << 4);
}
// The same where one chunk follows another.
DEVICE int place_in_chunks(int row, int segment) { return segment / SEGMENTS * RAW_BYTES + place(row, segment % SEGMENTS); }

DEVICE int segments_of(int channels) { return (channels + SEGMENT - 1) / SEGMENT; }
DEVICE int least(int a, int b) { return a < b ? a : b; }

// The thread's index, in a way that keeps the compiler from computing what follows from it once for all
// stages: a few more instructions instead of dozens of registers.
DEVICE int this_thread() {
  int thread = threadIdx.x;
  asm volatile("" : "+r"(thread));
  return thread;
}

// What a block knows of its map. `map`: the first channel of its group in its image.
struct Source {
  const char* map;
  int height, width, pixel_bytes, top, left;  // top, left: the tile's first pixel, possibly outside
};

// Channels [first, first + CHUNK) of the pixels under the tile; zeros outside the map and [0, end).
DEVICE void load_raw(char* raw, const Source& source, int first, int end) {
  constexpr int PIECES = ROW / COPY;
#pragma unroll 1
  for (int i = threadIdx.x; i < RAW_PIXELS * PIECES; i += THREADS) {
    int piece = i % PIECES, row = i / PIECES;
    int h = source.top + row / RAW_W, w = source.left + row % RAW_W;
    int channel = first + piece * (COPY / ELEMENT_BYTES);
    bool inside = (unsigned)h < (unsigned)source.height && (unsigned)w < (unsigned)source.width && channel >= 0 && channel < end;
    long long offset = inside ? ((long long)h * source.width + w) * source.pixel_bytes + channel * ELEMENT_BYTES : 0;
    int byte = piece * COPY;
    copy_piece(raw + place(row, byte / 16) + byte % 16, source.map + offset, inside);
  }
}

// Both files below define: struct Windows, the running sums of a thread; `fill_windows`, for the channels
// before the first whole window, which only enter; `slide_windows`, which makes one chunk of sums.
#if PRECISION == BF16 || PRECISION == FP16
#include "sums_matrix.h"
#else
#include "sums_vector.h"
#endif
