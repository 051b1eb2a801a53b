// A tile of pixels in shared memory with padding in place of a swizzle: every address in a loop over
// pixels is a base and a constant.
//
//   pixel (r, c) at (r PITCH + c) PIXEL_BYTES, its channels one after the other
//
// PIXEL_BYTES is the channels and 16 bytes: an odd number of 16-byte units, so that the 8 pixels of an
// ldmatrix fall into different banks. PITCH says which banks the next rows start in (see the launchers).
#pragma once
#include "tile.h"

// Visit the 16-byte segments of `rows` x `columns` pixels that belong to this thread.
template <int rows, int columns, int segments, int threads, class Visit> DEVICE void for_own_segments(Visit visit) {
  for (int i = threadIdx.x; i < rows * columns * segments; i += threads) visit(i / segments / columns, i / segments % columns, i % segments);
}

// Start the copies of the pixels from (top, left); what lies outside the map becomes zero, and so does a
// ring of `skip` pixels, unread.
template <int rows, int columns, int pitch, int segments, int pixel_bytes, int threads>
DEVICE void load_padded(char* tile, const Element* image, const Map& map, int top, int left, int channel0, int skip = 0) {
  for_own_segments<rows, columns, segments, threads>([&](int r, int c, int segment) {
    int h = top + r, w = left + c, channel = channel0 + segment * SEGMENT;
    bool inside = (unsigned)h < (unsigned)map.height && (unsigned)w < (unsigned)map.width && channel < map.channels &&
                  (unsigned)(r - skip) < (unsigned)(rows - 2 * skip) && (unsigned)(c - skip) < (unsigned)(columns - 2 * skip);
    const Element* from = inside ? image + ((long long)h * map.row + (long long)w * map.pixel + channel) : image;
    copy_segment(tile + (r * pitch + c) * pixel_bytes + segment * SEGMENT_BYTES, from, inside ? map.channels - channel : 0, map.whole);
  });
}
