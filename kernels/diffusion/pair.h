// Two neighbouring channels of a pixel: what one thread of these kernels reads and writes at once.
//
// ALIGNED 1: rows of pixels are multiples of 16 bytes, so that pairs and 16-byte copies never straddle.
// ALIGNED 0: any number of channels; elements move one by one.
#pragma once
#include "element.h"

#if PRECISION == BF16 || PRECISION == FP16
typedef u32 Pair;
DEVICE Pair make_pair(Element a, Element b) { return a | (u32)b << 16; }
DEVICE void unpack(float* v, Pair pair) { v[0] = to_float((u16)pair); v[1] = to_float((u16)(pair >> 16)); }
DEVICE void read_pair(float* v, const Element* p) { unpack(v, *(const Pair*)p); }
#else
typedef float2 Pair;
DEVICE Pair make_pair(Element a, Element b) { return make_float2(a, b); }
DEVICE void unpack(float* v, Pair pair) { v[0] = pair.x; v[1] = pair.y; }
#endif
DEVICE void read_pair(float* v, const float* p) { float2 pair = *(const float2*)p; v[0] = pair.x; v[1] = pair.y; }

// The pair at p of which `channels` exist (2, 1, or none where it is 0 or less); zeros for the others.
DEVICE Pair fetch(const Element* p, int channels) {
#if ALIGNED
  return channels > 0 ? *(const Pair*)p : make_pair(0, 0);
#else
  return make_pair(channels > 0 ? p[0] : Element(0), channels > 1 ? p[1] : Element(0));
#endif
}
DEVICE void put(Element* p, float a, float b, int channels) {
#if ALIGNED
  if (channels > 0) store_pair(p, a, b);
#else
  if (channels > 0) p[0] = to_element(a);
  if (channels > 1) p[1] = to_element(b);
#endif
}
