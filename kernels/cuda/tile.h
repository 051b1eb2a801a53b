// A tile of a channels-last map with its halo in shared memory, laid out so that nothing conflicts.
//
// A pixel holds SEGMENTS segments of 16 bytes. Segment s of pixel (y, x) lies in unit
// ((y PITCH + x) SEGMENTS + s) xor key, where key differs for any eight groups of four pixels that a warp
// reads at once (its 32 pixels are two rows of 16). So ldmatrix (eight groups, one segment) and 16-byte
// loads of two neighbouring groups (four segments each) touch every bank once.
//
// A warp's pixels: group g = 0..7 is row g / 4 and columns 4 (g % 4) .. + 3. Row m of matrix tile t of
// the tensor core is pixel 2 t + m / 8 of group m % 8, so that lane l owns the four pixels of group l / 4.
// Names that no macro of a kernel may take: the members of Tile, SEGMENT.
#pragma once
#include "element.h"

constexpr int SEGMENT_BYTES = 16;
constexpr int SEGMENT = SEGMENT_BYTES / ELEMENT_BYTES;  // channels of a segment

template <int rows, int columns, int halo, int segments> struct Tile {
  static constexpr int ROWS = rows, COLUMNS = columns, HALO = halo, SEGMENTS = segments;
  static constexpr int HEIGHT = rows + 2 * halo, WIDTH = columns + 2 * halo;  // pixels that are loaded
  static constexpr int PITCH = (WIDTH + 3) / 4 * 4;
  static constexpr int BYTES = HEIGHT * PITCH * segments * SEGMENT_BYTES;
  static_assert(segments >= 2 && columns % 4 == 0, "four pixels must fill 128 bytes");
};

// A map in global memory. row, pixel: steps in elements. whole: every segment is aligned to 16 bytes.
struct Map {
  int height, width, channels, row, pixel;
  bool whole;
};

// The same number, of which the compiler does not know that it is: what is computed from it is computed
// here again and takes no registers through the loops around.
DEVICE int recomputed(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

DEVICE int reversed_bits(int x) { return (x & 1) << 2 | (x & 2) | (x & 4) >> 2; }

// Byte offset of a segment; (0, 0) is the first pixel of the halo.
template <class T> DEVICE int tile_offset(int y, int x, int segment) {
  int key = reversed_bits((x >> 2) + T::COLUMNS / 4 * y);
  return (((y * T::PITCH + x) * T::SEGMENTS + segment) ^ key) * SEGMENT_BYTES;
}

// The offset of the same segment and column `rows` below: the key of the next row differs in one bit.
template <class T> DEVICE int tile_below(int offset, int rows) {
  static_assert(T::COLUMNS == 16 && T::PITCH * T::SEGMENTS % 8 == 0, "a row must be whole lines of 128 bytes");
  return (offset ^ (rows & 1) * SEGMENT_BYTES) + rows * T::PITCH * T::SEGMENTS * SEGMENT_BYTES;
}

// Sixteen bytes to shared memory, of which `count` elements are read and the others are zeros.
DEVICE void copy_segment(char* to, const Element* from, int count, bool whole) {
  if (whole) {
    copy_async_16(to, from, count > 0);
    return;
  }
  for (int e = 0; e < SEGMENT; e++) {
    const bool inside = e < count;
#if PRECISION == FP32 || PRECISION == TF32
    copy_async_4(to + 4 * e, inside ? from + e : from, inside);
#else
    ((Element*)to)[e] = inside ? from[e] : Element(0);
#endif
  }
}

// ---- vectors of 4 or 8 neighbouring channels --------------------------------------------------------
template <int size> DEVICE void load_vector(float* v, const Element* p) {
  u32 word[size * ELEMENT_BYTES / 4];
  if constexpr (size * ELEMENT_BYTES == 16) *(uint4*)word = *(const uint4*)p;
  else *(uint2*)word = *(const uint2*)p;
  for (int i = 0; i < size; i++) {
#if PRECISION == BF16
    v[i] = as_float(i % 2 ? word[i / 2] & 0xffff0000u : word[i / 2] << 16);
#elif PRECISION == FP16
    v[i] = fp16_to_float((u16)(word[i / 2] >> (i % 2 * 16)));
#else
    v[i] = as_float(word[i]);
#endif
  }
}
template <int size> DEVICE void store_vector(Element* p, const float* v) {
  u32 word[size * ELEMENT_BYTES / 4];
  for (int i = 0; i < size * ELEMENT_BYTES / 4; i++) {
#if PRECISION == BF16
    word[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
#elif PRECISION == FP16
    word[i] = pack_fp16(v[2 * i], v[2 * i + 1]);
#else
    word[i] = as_word(v[i]);
#endif
  }
  if constexpr (size * ELEMENT_BYTES == 16) *(uint4*)p = *(const uint4*)word;
  else *(uint2*)p = *(const uint2*)word;
}
// The same where only `count` of the channels exist or the place is not aligned.
template <int size> DEVICE void load_some(float* v, const Element* p, int count, bool whole) {
  if (whole && count >= size) return load_vector<size>(v, p);
  for (int i = 0; i < size; i++) v[i] = i < count ? to_float(p[i]) : 0.f;
}
template <int size> DEVICE void store_some(Element* p, const float* v, int count, bool whole) {
  if (whole && count >= size) return store_vector<size>(p, v);
  for (int i = 0; i < size; i++) if (i < count) p[i] = to_element(v[i]);
}

// ---- tiles -----------------------------------------------------------------------------------------
// Start to load channels channel.. of the tile at (top, left) of an image of fewer
// than 2^31 numbers; the outside becomes zero.
template <class T, int threads>
DEVICE void load_tile(char* to, const Element* image, const Map& map, int top, int left, int channel, int thread) {
#pragma unroll 1  // kept out of the registers of the caller's loop
  for (int i = thread; i < T::HEIGHT * T::WIDTH * T::SEGMENTS; i += threads) {
    const int segment = i % T::SEGMENTS, x = i / T::SEGMENTS % T::WIDTH, y = i / T::SEGMENTS / T::WIDTH;
    const int h = top + y - T::HALO, w = left + x - T::HALO, c = channel + segment * SEGMENT;
    const bool inside = (unsigned)h < (unsigned)map.height && (unsigned)w < (unsigned)map.width && c < map.channels;
    const int place = inside ? h * map.row + w * map.pixel + c : 0;
    copy_segment(to + tile_offset<T>(y, x, segment), image + place, inside ? map.channels - c : 0, map.whole);
  }
}

// After its own copies have landed each thread replaces x by scale x + shift, then the positive part of
// it if asked; the outside stays zero. affine: `padded` scales, then as many shifts; both are zero beyond
// the channels of the map.
template <class T, int threads>
DEVICE void normalise_tile(char* tile, const Map& map, int top, int left, int channel, const float* affine, int padded, bool relu, int thread) {
#pragma unroll 1
  for (int i = thread; i < T::HEIGHT * T::WIDTH * T::SEGMENTS; i += threads) {
    const int segment = i % T::SEGMENTS, x = i / T::SEGMENTS % T::WIDTH, y = i / T::SEGMENTS / T::WIDTH;
    const int h = top + y - T::HALO, w = left + x - T::HALO;
    if ((unsigned)h >= (unsigned)map.height || (unsigned)w >= (unsigned)map.width) continue;
    Element* place = (Element*)(tile + tile_offset<T>(y, x, segment));
    const float4* scales = (const float4*)(affine + channel + segment * SEGMENT);
    const float4* shifts = (const float4*)(affine + padded + channel + segment * SEGMENT);
    float v[SEGMENT];
    load_vector<SEGMENT>(v, place);
    for (int q = 0; q < SEGMENT / 4; q++) {
      const float4 scale = scales[q], shift = shifts[q];
      v[4 * q] = scale.x * v[4 * q] + shift.x;
      v[4 * q + 1] = scale.y * v[4 * q + 1] + shift.y;
      v[4 * q + 2] = scale.z * v[4 * q + 2] + shift.z;
      v[4 * q + 3] = scale.w * v[4 * q + 3] + shift.w;
    }
    for (int e = 0; e < SEGMENT; e++) v[e] = relu && v[e] < 0.f ? 0.f : v[e];
    store_vector<SEGMENT>(place, v);
  }
}

// Operand a of the two matrix tiles of a warp: its 32 pixels, the first in row `row` of the tile (halo
// counted), moved by (dy, dx), times the channels of fragment k.
template <class T> DEVICE void load_pixels(u32 (*a)[4], const char* tile, int row, int dy, int dx, int k, int lane) {
  const int group = lane % 8, half = lane / 8 % 2, segment = 2 * k + lane / 16;
  for (int t = 0; t < 2; t++) {
    const int y = row + group / 4 + dy, x = T::HALO + 4 * (group % 4) + 2 * t + half + dx;
    load_matrices(a[t], tile + tile_offset<T>(y, x, segment));
  }
}
