// Depthwise stencils of SIDE x SIDE taps over tiles of 16 x 16 pixels and 16 channels in shared memory.
//
// A thread owns a patch: 2 rows x 4 columns of pixels of two channels, so that a row that it loads
// serves SIDE x 2 x 4 products. Eight threads share a pixel (16 channels), a warp holds four patches.
// Four columns take five slots, slot(x) = x + x / 4: then the patches of a warp that lie side by side
// start 5 pixels of 32 or 64 bytes apart, at different banks.
#pragma once
#include "pair.h"

constexpr int HALF = SIDE / 2;
constexpr int TAPS = SIDE * SIDE;
constexpr int THREADS = 256;
constexpr int CHANNELS = 16;
constexpr int LANES = CHANNELS / 2;
constexpr int ROWS = 2, COLUMNS = 4;  // of a patch
constexpr int WINDOW = COLUMNS + 2 * HALF;
constexpr int TILE = 16;  // pixels on a side

DEVICE constexpr int slot(int column) { return column + column / COLUMNS; }
// Slots that rows of so many columns take.
DEVICE constexpr int pitch_of(int columns) { return slot(columns - 1) + 1; }

struct Map {
  int height, width, channels;
};
DEVICE bool holds(Map map, int row, int column) { return row >= 0 && row < map.height && column >= 0 && column < map.width; }
// Of pixel (row, column), first channel, in an image; an image has less than 2^31 elements.
DEVICE int offset(Map map, int row, int column) { return (row * map.width + column) * map.channels; }

DEVICE int wrapped(int index, int size) {
  while (index < 0) index += size;
  while (index >= size) index -= size;
  return index;
}

// Queue the copies of pixels (top, left)... of 16 channels from `first` on. Beyond the border: zeros,
// or the opposite side of a periodic map. Beyond the last channel: zeros.
template <int rows, int columns, int pitch>
DEVICE void load_tile(Element* tile, const Element* image, Map map, int top, int left, int first, bool periodic) {
  constexpr int PIECE = ALIGNED ? 16 / ELEMENT_BYTES : 1;  // channels of one copy
  constexpr int PIECES = CHANNELS / PIECE;
  for (int i = threadIdx.x; i < rows * columns * PIECES; i += THREADS) {
    int piece = i % PIECES * PIECE, x = i / PIECES % columns, y = i / (PIECES * columns);
    int row = top + y, column = left + x;
    if (periodic) {
      row = wrapped(row, map.height);
      column = wrapped(column, map.width);
    }
    bool inside = holds(map, row, column) && first + piece < map.channels;
    const Element* from = inside ? image + offset(map, row, column) + first + piece : image;
    Element* to = tile + (y * pitch + slot(x)) * CHANNELS + piece;
#if ALIGNED
    copy_async_16(to, from, inside);
#elif PRECISION == FP32
    copy_async_4(to, from, inside);
#else
    *to = inside ? *from : Element(0);
#endif
  }
}

// Taps (channels, TAPS) as the module holds them -> shared[tap][16 channels].
DEVICE void load_taps(float* shared, const float* taps, int first, int channels) {
  for (int i = threadIdx.x; i < TAPS * CHANNELS; i += THREADS) {
    int channel = i / TAPS, tap = i % TAPS;
    shared[tap * CHANNELS + channel] = first + channel < channels ? taps[(first + channel) * TAPS + tap] : 0.f;
  }
}

// sum[p] += sum over taps t of taps[t] tile[p + t], or of taps[-t] tile[p + t] where mirrored.
// corner: the first tap of the patch's first pixel, at this thread's pair of channels; its column
// is a multiple of 4, so that slots are known at compile time.
template <int pitch, bool mirrored, class T>
DEVICE void correlate(float (*sum)[COLUMNS][2], const T* corner, const float* taps) {
#pragma unroll
  for (int i = 0; i < SIDE + ROWS - 1; i++) {
    float line[WINDOW][2];
#pragma unroll
    for (int j = 0; j < WINDOW; j++) read_pair(line[j], corner + (i * pitch + slot(j)) * CHANNELS);
    __syncwarp();  // keeps the compiler from loading all lines ahead, more than the registers hold
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
      if (i - row < 0 || i - row >= SIDE) continue;
#pragma unroll
      for (int t = 0; t < SIDE; t++) {
        int tap = (i - row) * SIDE + t;
        float2 weight = *(const float2*)(taps + (mirrored ? TAPS - 1 - tap : tap) * CHANNELS);
#pragma unroll
        for (int x = 0; x < COLUMNS; x++) {
          sum[row][x][0] += weight.x * line[x + t][0];
          sum[row][x][1] += weight.y * line[x + t][1];
        }
      }
    }
  }
}
