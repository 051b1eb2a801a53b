// Gradients as products of matrices: dW (features x channels) = sum over pixels of dY[p, f] U[p, c].
// Pixels are the summed dimension, so both operands lie transposed in shared memory.
#pragma once
#include "weights_tile.h"

constexpr int SIDE = BLOCK < 32 ? BLOCK : 32;             // of the square of dW that a warp holds
constexpr int SQUARES = (BLOCK / SIDE) * (BLOCK / SIDE);  // of a block
constexpr int SLICES = WARPS / SQUARES;                   // warps that share a square, by pixels
constexpr int STEPS = TILE_ROWS * TILE_COLUMNS / FRAGMENT;          // products of FRAGMENT pixels in a tile
constexpr int STEPS_WIDE = TILE_COLUMNS / FRAGMENT;
constexpr int MS = SIDE / 16, NS = SIDE / 8;              // fragments of a square
constexpr int UNROLL = ELEMENT_BYTES == 2 ? 4 : 1;        // of steps: 32-bit fragments fill the registers

// a (16 features x FRAGMENT pixels) from the pixels after `pixel`.
DEVICE void load_features(u32* a, const char* pixel, int lane) {
  if constexpr (ELEMENT_BYTES == 2) {
    load_matrices_transposed(a, pixel + (lane % 8 + lane / 16 * 8) * PIXEL_BYTES + lane / 8 % 2 * 16);
  } else {
    const char* at = pixel + lane % 4 * PIXEL_BYTES + lane / 4 * 4;
    for (int i = 0; i < 4; i++) a[i] = *(const u32*)(at + i / 2 * 4 * PIXEL_BYTES + i % 2 * 32);
  }
}
// Two b (FRAGMENT pixels x 8 channels), next to each other.
DEVICE void load_channels(u32* b, const char* pixel, int lane) {
  if constexpr (ELEMENT_BYTES == 2) {
    load_matrices_transposed(b, pixel + lane % 16 * PIXEL_BYTES + lane / 16 * 16);
  } else {
    const char* at = pixel + lane % 4 * PIXEL_BYTES + lane / 4 * 4;
    for (int i = 0; i < 4; i++) b[i] = *(const u32*)(at + i % 2 * 4 * PIXEL_BYTES + i / 2 * 32);
  }
}

// c += a b. The tensor core cuts off what it adds (round to zero): over thousands of pixels that would
// cost fp32 three digits, so there each product starts from zero and is added by an ordinary sum.
// Source: Ootomo and Yokota 2022, Recovering single precision accuracy from Tensor Cores, section 3.
DEVICE void accumulate(float* c, const u32* a, const u32* b) {
#if PRECISION == FP32
  float product[4] = {0.f, 0.f, 0.f, 0.f};
  multiply(product, a, b);
  for (int i = 0; i < 4; i++) c[i] += product[i];
#else
  multiply(c, a, b);
#endif
}

// Sums of one warp. bias: of dY over its pixels, as products with a column of ones.
struct Centre { float sum[MS][NS][4], bias[MS][4]; };

DEVICE void add_centre(Centre& centre, const char* x, const char* dy, int warp, int lane, bool with_bias) {
  int square = warp % SQUARES, slice = warp / SQUARES;
  x += square % (BLOCK / SIDE) * SIDE * ELEMENT_BYTES;
  dy += square / (BLOCK / SIDE) * SIDE * ELEMENT_BYTES + RING * (Y_PITCH + 1) * PIXEL_BYTES;
  u32 one = ELEMENT_BYTES == 4 ? as_word(1.f) : (u32)to_element(1.f) * 0x10001u;
  u32 ones[2] = {one, one};
#pragma unroll UNROLL
  for (int k = 0; k < STEPS / SLICES; k++) {
    int step = k * SLICES + slice, row = step / STEPS_WIDE, column = step % STEPS_WIDE * FRAGMENT;
    u32 a[MS][4];
#pragma unroll
    for (int m = 0; m < MS; m++) load_features(a[m], dy + (row * Y_PITCH + column) * PIXEL_BYTES + m * 16 * ELEMENT_BYTES, lane);
    if (with_bias)
#pragma unroll
      for (int m = 0; m < MS; m++) accumulate(centre.bias[m], a[m], ones);
#pragma unroll
    for (int n = 0; n < NS; n += 2) {
      u32 b[4];
      load_channels(b, x + (row * X_PITCH + column) * PIXEL_BYTES + n * 8 * ELEMENT_BYTES, lane);
#pragma unroll
      for (int m = 0; m < MS; m++) {
        accumulate(centre.sum[m][n], a[m], b);
        accumulate(centre.sum[m][n + 1], a[m], b + 2);
      }
    }
  }
}

// Fragment i of a 16 x 8 tile: row lane / 4 + 8 (i / 2), column 2 (lane % 4) + i % 2.
DEVICE int fragment_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
DEVICE int fragment_column(int lane, int i) { return lane % 4 * 2 + i % 2; }
