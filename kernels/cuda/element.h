// One element type per compilation, chosen by -D PRECISION: what is stored, and how products are made.
//
//   FP32  32-bit floats; three TF32 products a_low b_high + a_high b_low + a_high b_high: fp32-level error
//   TF32  32-bit floats; one TF32 product (10 bits of mantissa)
//   BF16  FP16  16-bit storage, fp32 sums
//
// A fragment of the tensor core spans 32 bytes of channels in every case: 8 words or 16 halves.
#pragma once
#include "device.h"

#define FP32 0
#define TF32 1
#define BF16 2
#define FP16 3

#if PRECISION == FP32 || PRECISION == TF32
typedef float Element;
DEVICE float to_float(Element x) { return x; }
DEVICE Element to_element(float x) { return x; }
DEVICE void load_pair(float* v, const Element* p) { v[0] = p[0]; v[1] = p[1]; }
DEVICE void store_pair(Element* p, float a, float b) { *(float2*)p = make_float2(a, b); }
#elif PRECISION == BF16
typedef u16 Element;
DEVICE float to_float(Element x) { return bf16_to_float(x); }
DEVICE Element to_element(float x) { return (u16)pack_bf16(x, 0.f); }
DEVICE void load_pair(float* v, const Element* p) { u32 w = *(const u32*)p; v[0] = as_float(w << 16); v[1] = as_float(w & 0xffff0000u); }
DEVICE void store_pair(Element* p, float a, float b) { *(u32*)p = pack_bf16(a, b); }
#elif PRECISION == FP16
typedef u16 Element;
DEVICE float to_float(Element x) { return fp16_to_float(x); }
DEVICE Element to_element(float x) { return (u16)pack_fp16(x, 0.f); }
DEVICE void load_pair(float* v, const Element* p) { u32 w = *(const u32*)p; v[0] = fp16_to_float((u16)w); v[1] = fp16_to_float((u16)(w >> 16)); }
DEVICE void store_pair(Element* p, float a, float b) { *(u32*)p = pack_fp16(a, b); }
#else
#error "PRECISION must be FP32, TF32, BF16 or FP16"
#endif

constexpr int ELEMENT_BYTES = sizeof(Element);
constexpr int FRAGMENT_BYTES = 32;
constexpr int FRAGMENT = FRAGMENT_BYTES / ELEMENT_BYTES;  // channels that one product of fragments sums over

// c (16 x 8) += a (16 x FRAGMENT) b (FRAGMENT x 8), operands as stored.
DEVICE void multiply(float* c, const u32* a, const u32* b) {
#if PRECISION == BF16
  mma_bf16(c, a, b);
#elif PRECISION == FP16
  mma_fp16(c, a, b);
#else
  u32 a_high[4], b_high[2];
  for (int i = 0; i < 4; i++) a_high[i] = round_tf32(as_float(a[i]));
  for (int i = 0; i < 2; i++) b_high[i] = round_tf32(as_float(b[i]));
#if PRECISION == FP32
  u32 a_low[4], b_low[2];
  for (int i = 0; i < 4; i++) a_low[i] = round_tf32(as_float(a[i]) - as_float(a_high[i]));
  for (int i = 0; i < 2; i++) b_low[i] = round_tf32(as_float(b[i]) - as_float(b_high[i]));
  mma_tf32(c, a_low, b_high);
  mma_tf32(c, a_high, b_low);
#endif
  mma_tf32(c, a_high, b_high);
#endif
}
